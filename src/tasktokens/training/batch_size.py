"""How many images fit into memory, and which settings help if they do not, by measurement."""

from __future__ import annotations

import contextlib
import os
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import psutil
import torch
from accelerate import Accelerator

from tasktokens.config import Config, load_config
from tasktokens.datasets.open import Data
from tasktokens.errors import OutOfMemoryError, TaskTokensError
from tasktokens.models import DESIGNS
from tasktokens.training.step_memory import DTYPES, is_out_of_memory, peaks
from tasktokens.utils import console

Peak = Callable[[Config, int], int | None]
"""Bytes that training steps on a number of images take; None where they do not fit."""

GPU_SHARE, CPU_SHARE = 0.9, 0.5
"""Shares of the free memory that ``auto`` fills: batches differ, and a CPU's memory also holds the decoded images."""

CPU_MOST = 32
"""Images of the largest batch that is tried on a CPU; beyond, the cost per image says what fits."""


# -- optim.batch_size=auto ---------------------------------------------------------------------------------------------
def with_batch_size(config: Config, data: Data, accelerator: Accelerator, resume: bool, quiet: bool) -> Config:
    """The configuration with a number for ``auto``: that of the resumed run, or the largest that fits.

    Raises:
        OutOfMemoryError: not one image fits.
    """
    if config.optim.batch_size != "auto":
        return config
    path = config.run.dir / "config.yaml"
    if resume and path.is_file():
        chosen = load_config(path).optim.images
    else:
        chosen = largest_batch(config, data, accelerator, quiet)
    return config.model_copy(update={"optim": config.optim.model_copy(update={"batch_size": chosen})})


def largest_batch(config: Config, data: Data, accelerator: Accelerator, quiet: bool = False) -> int:
    """The largest batch over all ranks that fits into memory, no larger than the number of training images."""
    parts, device = _parts(config, accelerator), accelerator.device
    on_gpu = device.type == "cuda"
    free = free_memory(device)
    budget = int(free * (GPU_SHARE if on_gpu else CPU_SHARE / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    most = max(1, len(data.train) // parts)
    config = with_precision(config, accelerator.mixed_precision)
    with peaks(config, data, device) as peak:
        per_part, cost = largest_fitting(partial(peak, config), budget, most, most if on_gpu else CPU_MOST)
    chosen: int = int(accelerator.gather(torch.tensor([per_part], device=device)).min()) * parts
    if chosen == 0:
        raise OutOfMemoryError(
            f"not one image fits into memory ({gb(free)} free); lower data.size or model.width, or choose a smaller "
            f"model.backbone"
        )
    if accelerator.is_main_process and not quiet:
        at_once = f" ({per_part} at once)" if parts > 1 else ""
        whole = ", all training images" if chosen == len(data.train) else ""
        note = f"a step takes about {gb(cost)} of {gb(free)} that are free"
        console.say(f"optim.batch_size: auto is {chosen}{at_once}{whole}: {note}")
    return chosen


def largest_fitting(peak: Callable[[int], int | None], budget: int, most: int, tried: int) -> tuple[int, int]:
    """The largest number of images from 1 to ``most`` whose steps fit, and what they take; (0, 0) where none does.

    It doubles as long as the cost per image so far says that twice as many fit, tries what that cost says, and where
    that is too much after all, halves the gap to within an eighth.

    Args:
        budget: bytes.
        tried: no more images than these are tried; the answer may be larger, going by the cost per image.
    """
    costs: dict[int, int] = {}

    def fits(images: int) -> bool:
        bytes_ = peak(images)
        if bytes_ is None or bytes_ > budget:
            return False
        costs[images] = bytes_
        return True

    count, bad = min(2, most), most + 1
    while count < bad:
        if not fits(count):
            bad = count
        elif count == most or 2 * count > tried or (len(costs) > 1 and LinearCost(costs)(2 * count) > budget):
            break
        else:
            count = min(2 * count, most)
    if not costs:
        return (1, costs[1]) if bad > 1 and fits(1) else (0, 0)
    good = max(costs)
    guess = good if len(costs) < 2 else max(good, min(LinearCost(costs).fitting(budget), bad - 1))
    if guess > tried:
        return guess, LinearCost(costs)(guess)
    while guess > good:
        if fits(guess):
            good = guess
            if bad > most:
                break
        else:
            bad = guess
        guess = (good + bad) // 2 if bad - good > max(1, good // 8) else good
    return good, costs[good]


class LinearCost:
    """What a number of images takes, by the line through the costs of the two largest batches that were measured."""

    def __init__(self, costs: Mapping[int, int]) -> None:
        (fewer, less), (self.images, self.bytes) = sorted(costs.items())[-2:]
        self.image = max(1.0, (self.bytes - less) / (self.images - fewer))
        """Bytes of one image."""

    def __call__(self, images: int) -> int:
        """Bytes."""
        return int(self.bytes + self.image * (images - self.images))

    def fitting(self, budget: int) -> int:
        """The most images that fit."""
        return int(self.images + (budget - self.bytes) / self.image)


# -- out of memory -----------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def explain_oom(config: Config, data: Data, accelerator: Accelerator) -> Iterator[None]:
    """Turn an error that says that memory does not suffice into `OutOfMemoryError` with what would help."""
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the network and its activations
        accelerator.free_memory()
        asked = re.search(r"tried to allocate ([\d.]+ \w+)", str(error))
        piece = f" for another {asked[1]}" if asked else ""
        raise OutOfMemoryError(f"out of memory{piece}: {advice(config, data, accelerator)}") from None


def advice(config: Config, data: Data, accelerator: Accelerator) -> str:
    """What a step takes, what is free, and three changes with what a step would take then."""
    parts = _parts(config, accelerator)
    images = -(-config.optim.images // parts)
    free = free_memory(accelerator.device)
    config = with_precision(config, accelerator.mixed_precision)
    with peaks(config, data, accelerator.device) as peak:
        now = _linear_cost(peak, config)
        others = (
            [(text, _linear_cost(peak, other)) for text, other in _changes(config, accelerator.device)] if now else []
        )
    if now is None:
        return (
            f"{gb(free)} are free, and not even steps on one or two images could be measured in that; lower data.size "
            f"or model.width, or choose a smaller model.backbone"
        )
    usage = f"steps on {images} images take about {gb(now(images))}, {gb(now.image)} per image, and {gb(free)} are free"
    fitting = max(1, min(images // 2, now.fitting(int(GPU_SHARE * free))))
    fewer = f"optim.batch_size={fitting * parts} (about {gb(now(fitting))})"
    changes = [fewer] if images > 1 else []
    if images > 1:
        changes.append(f"optim.accumulate={2 * config.optim.accumulate} (about {gb(now(-(-images // 2)))})")
    better = [(text, line) for text, line in others if line is not None and line(images) < now(images)]
    changes += [f"{text} (about {gb(line(images))})" for text, line in better]
    return f"{usage} (measured). What helps, alone or combined: {'; '.join(changes[:3])}"


def _parts(config: Config, accelerator: Accelerator) -> int:
    """Of how many parts, one after another or on several ranks, the images of a step are."""
    ranks: int = accelerator.num_processes
    return ranks * config.optim.accumulate


def _changes(config: Config, device: torch.device) -> Iterator[tuple[str, Config]]:
    """Settings that take less memory, as they are typed, and the configuration with them."""
    height, width = (max(32, round(side * 0.7 / 32) * 32) for side in config.data.size)
    if (height, width) != config.data.size:
        data = config.data.model_copy(update={"size": (height, width)})
        yield f"data.size=[{height},{width}]", config.model_copy(update={"data": data})
    if device.type == "cuda" and config.run.precision not in DTYPES:
        yield "run.precision=bf16", with_precision(config, "bf16")
    if config.optim.loss_stride == 1:
        optim = config.optim.model_copy(update={"loss_stride": 2})
        yield "optim.loss_stride=2", config.model_copy(update={"optim": optim})
    width = (config.model.width or DESIGNS[config.model.variant].width) // 2
    model = config.model.model_copy(update={"width": width})
    if width >= 8:
        yield f"model.width={width}", config.model_copy(update={"model": model})


def _linear_cost(peak: Peak, config: Config) -> LinearCost | None:
    """The cost of images under these settings; None where it cannot be measured."""
    with contextlib.suppress(TaskTokensError):
        costs = {images: bytes_ for images in (1, 2, 4) if (bytes_ := peak(config, images)) is not None}
        return LinearCost(costs) if len(costs) > 1 else None
    return None


def with_precision(config: Config, precision: str) -> Config:
    """The configuration with a precision of accelerate's; steps are measured in full precision without any."""
    if precision not in DTYPES:
        return config
    return config.model_copy(update={"run": config.run.model_copy(update={"precision": precision})})


# -- memory of the machine ---------------------------------------------------------------------------------------------
def free_memory(device: torch.device) -> int:
    """Bytes that this process can still take: of a GPU, or of the machine within the limits that are set for it."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + unused)
    return max(0, min([psutil.virtual_memory().available, *_limits()]))


def _limits() -> Iterator[int]:
    """What is left within the limits of a container and of the process."""
    group, old = Path("/sys/fs/cgroup"), "memory/memory"
    for most, used in (("memory.max", "memory.current"), (f"{old}.limit_in_bytes", f"{old}.usage_in_bytes")):
        with contextlib.suppress(OSError, ValueError):  # no such limit: no file, or "max"
            yield int((group / most).read_text(encoding="utf-8")) - int((group / used).read_text(encoding="utf-8"))
    with contextlib.suppress(ImportError):  # Windows
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            yield limit - int(psutil.Process().memory_info().vms)


def gb(bytes_: float) -> str:
    """Bytes for a person."""
    return f"{bytes_ / 2**30:.1f} GB" if bytes_ >= 2**30 else f"{bytes_ / 2**20:.0f} MB"
