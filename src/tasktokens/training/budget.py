"""Steps for a budget of minutes: training steps of every stage are timed before the first one is taken.

Their number is then a setting of the run like one that was given: the schedule, the order of the images, resuming and
the other ranks depend on it alone, and on no clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import torch
from accelerate import Accelerator

from tasktokens.config import Config
from tasktokens.data.sample import Batch
from tasktokens.datasets.open import Data
from tasktokens.discovery.pseudo_labels import forward_views
from tasktokens.discovery.store import missing_labels
from tasktokens.discovery.whole_images import AT_ONCE
from tasktokens.errors import ConfigError
from tasktokens.methods import Stage, build_method
from tasktokens.training.batch_size import explain_oom, with_precision
from tasktokens.training.step_memory import MeasuredSteps
from tasktokens.utils import console
from tasktokens.utils.distributed import all_gather, raise_on_all_ranks

WARM_UP, TIMED = 2, 3
"""Steps that are not timed, and those that are, at the start and at the end of a stage."""

LEAST = 10
"""Steps below which a stage learns nothing."""


@dataclass(frozen=True)
class Costs:
    """What a run takes, in seconds.

    Attributes:
        step: of each stage by name.
        discovering: what all labels take that are discovered between stages.
    """

    step: Mapping[str, float]
    discovering: float

    def of(self, stages: tuple[Stage, ...]) -> float:
        """The steps of stages, without discovering."""
        return sum(stage.steps * self.step[stage.name] for stage in stages)


def with_minutes(
    config: Config, data: Data, accelerator: Accelerator, quiet: bool, clock: Callable[[], float] = time.perf_counter
) -> Config:
    """The configuration with numbers of steps in place of ``optim.minutes``, in the method's own proportion.

    All ranks get those of the first.

    Raises:
        ConfigError: a stage would have fewer than `LEAST` steps, or the method has no setting of steps.
        OutOfMemoryError: a step does not fit.
    """
    minutes = config.optim.minutes
    if minutes is None:
        return config
    with explain_oom(config, data, accelerator), raise_on_all_ranks(accelerator), torch.random.fork_rng(devices=[]):
        measured = measure(config, data, accelerator, clock)
    costs = all_gather(accelerator, measured)[0]
    factor = (60 * minutes - costs.discovering) / costs.of(build_method(config.method, {}).stages())
    method = config.method.scaled(max(0.0, factor))
    stages = build_method(method, {}).stages()
    _check(minutes, stages, costs)
    if accelerator.is_main_process and not quiet:
        console.say(f"optim.minutes: {minutes:g} are {_described(stages, costs)}")
    optim = config.optim.model_copy(update={"minutes": None})
    return config.model_copy(update={"optim": optim, "method": method})


class Timer:
    """Seconds of calls, with all that they start on a device."""

    def __init__(self, device: torch.device, clock: Callable[[], float]) -> None:
        self.device, self.clock = device, clock

    def __call__(self, do: Callable[..., object], *arguments: object) -> float:
        """Of one call."""
        begin = self._now()
        do(*arguments)
        return self._now() - begin

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self.clock()


def measure(config: Config, data: Data, accelerator: Accelerator, clock: Callable[[], float]) -> Costs:
    """What steps of each stage and discovering take, on this rank's share of the images."""
    ranks, device, optim = accelerator.num_processes, accelerator.device, config.optim
    timer = Timer(device, clock)
    steps = MeasuredSteps(with_precision(config, accelerator.mixed_precision), data, device)
    image = median([timer(steps.dataset.__getitem__, number) for number in range(min(8, len(steps.dataset)))])
    images = -(-min(optim.images, len(data.train)) // (ranks * optim.accumulate))
    batch, workers = steps.batch(images), config.data.workers
    step = {}
    for stage in steps.method.stages():
        computing = _step(steps, stage, batch, timer) if stage.steps else 0.0
        # Loader processes read while the network computes.
        each = max(computing, image * images / workers) if workers else computing + image * images
        step[stage.name] = optim.accumulate * each
    discovering = sum(stage.discovered and data.discovered is None for stage in steps.method.stages())
    missing = len(missing_labels(data.train, steps.tasks)) if discovering else 0
    if missing == 0:
        return Costs(step, 0.0)
    return Costs(step, discovering * missing * (image + _discovering(steps, batch, timer)) / ranks)


def _step(steps: MeasuredSteps, stage: Stage, batch: Batch, timer: Timer) -> float:
    """A step of a stage; online, the end of a stage costs more than its start."""
    take = steps.step_of(stage, batch)
    for _ in range(WARM_UP):
        take(0)
    return sum(median([timer(take, number) for _ in range(TIMED)]) for number in (0, stage.steps - 1)) / 2


def _discovering(steps: MeasuredSteps, batch: Batch, timer: Timer) -> float:
    """The labels of one image."""
    network = steps.info.build().to(steps.device).eval()
    seen, views, mirrored = batch.image[:AT_ONCE], steps.method.views(), steps.method.mirrored
    forward_views(steps.tasks, network, seen[:1], views, mirrored)
    return timer(forward_views, steps.tasks, network, seen, views, mirrored) / len(seen)


def _check(minutes: float, stages: tuple[Stage, ...], costs: Costs) -> None:
    given = [stage for stage in stages if stage.steps]
    short = min(given, key=lambda stage: stage.steps)
    if short.steps < LEAST:
        enough = (costs.discovering + costs.of(tuple(given)) * LEAST / short.steps) / 60
        raise ConfigError(
            f"optim.minutes={minutes:g} are {_described(tuple(given), costs)}, and a stage needs {LEAST}; give about "
            f"{max(enough, minutes) * 1.1:.2g} or more, or method settings with numbers of steps"
        )


def _described(stages: tuple[Stage, ...], costs: Costs) -> str:
    parts = [f"{stage.steps} steps of stage {stage.name} ({costs.step[stage.name]:.2g} s each)" for stage in stages]
    if costs.discovering:
        parts.append(f"{costs.discovering / 60:.2g} minutes of discovering")
    return ", ".join(parts)
