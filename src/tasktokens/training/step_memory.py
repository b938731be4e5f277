"""Memory of training steps, measured by running some.

On a GPU they are taken in this process. On a CPU, where a process's peak never falls again, they are taken in another
one: ``python -m tasktokens.training.step_memory`` reads a configuration, whose data it opens, and then lines of a
configuration and a number of images, and answers each with bytes.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor, nn

from tasktokens.config import Config
from tasktokens.data.dataset import PartialDataset
from tasktokens.data.sample import Batch, collate
from tasktokens.data.soft_labels import SoftLabels
from tasktokens.datasets.open import Data, open_data
from tasktokens.errors import TrainingError
from tasktokens.methods import Stage, StepOptions, build_method
from tasktokens.models import Network
from tasktokens.models.files import ModelInfo
from tasktokens.training.beside import Beside, trained
from tasktokens.training.make_balance import make_balance
from tasktokens.training.nan_guard import FiniteGuard
from tasktokens.training.optim import make_optimizer
from tasktokens.training.step import Step
from tasktokens.utils import strict_json

DISTINCT = 16
"""Images that are really read; larger batches repeat them."""

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Type of autocast by ``run.precision``."""


class MeasuredSteps:
    """Training steps of all stages of a run, on its images with the most labels; nothing of them is kept."""

    def __init__(self, config: Config, data: Data, device: torch.device) -> None:
        augmentation = config.data.augmentation
        self.tasks = {name: task.widened(augmentation.widest) for name, task in data.tasks.items()}
        self.config, self.device = config, device
        self.method = build_method(config.method, self.tasks, augmentation.flip)
        self.info = ModelInfo(self.method.network, config.model, self.tasks, config.data.size, augmentation.flip)
        ids = sorted(data.train, key=lambda id: -len(data.train[id]))[:DISTINCT]
        visible, corrupt = {id: data.train[id] for id in ids}, config.data.skip_corrupt
        self.dataset = PartialDataset(
            data.collection, visible, self.tasks, config.data.size, augmentation, skip_corrupt=corrupt
        )
        self.samples = [self.dataset[0, index] for index in range(len(self.dataset))]

    def run(self, images: int) -> None:
        """Two steps of each kind of stage: the first makes the optimiser's moments.

        Raises where memory does not suffice.
        """
        batch = self.batch(images)
        # Stages that differ in nothing but their name, such as rounds, cost the same.
        for stage in dict.fromkeys(replace(stage, name="") for stage in self.method.stages()):
            step = self.step_of(stage, batch)
            for _ in range(2):
                step(stage.steps - 1)  # the last one, since discovery may set in late

    def batch(self, images: int) -> Batch:
        """So many images on the device, one or another of them several times."""
        channels = {name: task.label_channels for name, task in self.tasks.items()}
        samples = [self.samples[index % len(self.samples)] for index in range(images)]
        return collate(samples, channels).to(self.device)

    def step_of(self, stage: Stage, batch: Batch) -> Callable[[int], None]:
        """What takes a step of that number of a stage, on a network of its own."""
        student = self.info.build().to(self.device)
        teacher = copy.deepcopy(student).eval().requires_grad_(False) if stage.has_teacher else None
        self.method.begin(student)
        if (state := self.method.state()) is not None:
            state.to(self.device)
        balance = make_balance(self.config.optim.balance, self.tasks, epoch=1)
        if balance.module is not None:
            balance.module.to(self.device)
        beside = Beside(trained(state, balance.module))
        optim, photometric = self.config.optim, self.config.data.augmentation.photometric
        optimizer = make_optimizer(student, optim, [(module, self.method.state_lr) for module in beside.modules])
        engine = OneProcess(self.device, DTYPES.get(self.config.run.precision))
        guard = FiniteGuard(optimizer, self.device, network=nn.ModuleList([student, *beside.modules]))
        step = Step(self.method, engine, student, optimizer, guard, optim.clip, balance, beside)
        if stage.discovered:
            batch = self._with_discovered(batch, student)

        def take(number: int) -> None:
            options = StepOptions(
                number, stage.has_teacher, photometric, optim.loss_stride, discovered=stage.discovered
            )
            step([self.method.prepare(batch, torch.Generator(), options)], teacher)

        return take

    @torch.no_grad()
    def _with_discovered(self, batch: Batch, student: Network) -> Batch:
        """With blank labels in place of discovered ones."""
        outputs = student.eval()(batch.image[:1])
        soft = {}
        for name, labels in batch.labels.items():
            shape = outputs[name].logits.shape[1:]
            logits = torch.zeros(len(labels.absent), *shape, dtype=torch.float16, device=self.device)
            token = outputs[name].token if self.method.learns_tokens else None
            blank = None if token is None else torch.zeros(len(labels.absent), token.shape[1], device=self.device)
            soft[name] = SoftLabels(labels.absent, logits, blank)
        return replace(batch, discovered=soft)


@dataclass(frozen=True)
class OneProcess:
    """A `StepEngine` that knows of no other rank: each measures by itself.

    Attributes:
        device: of the network.
        dtype: of autocast; None: float32.
        num_processes: always 1 here.
    """

    device: torch.device
    dtype: torch.dtype | None = None
    num_processes: int = 1

    def autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision in ``dtype``; full precision for None."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)

    def no_sync(self, model: nn.Module) -> AbstractContextManager[Any]:
        """No-op: there are no other ranks."""
        return contextlib.nullcontext()

    def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
        """The tensor itself."""
        return tensor

    def backward(self, loss: Tensor) -> None:
        """Plain backward pass, without loss scaling."""
        loss.backward()  # type: ignore[no-untyped-call]

    def clip_grad_norm_(self, parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
        """Clip as torch does; returns the norm before."""
        return nn.utils.clip_grad_norm_(parameters, max_norm)


class GpuPeak:
    """Bytes that steps on ``images`` images take at their peak; None where they do not fit."""

    def __init__(self, data: Data, device: torch.device) -> None:
        self.data, self.device = data, device

    def __call__(self, config: Config, images: int) -> int | None:
        """Run the steps; bytes of the device beyond what was reserved before."""
        clear_device_cache(garbage_collection=True)
        before = torch.cuda.memory_reserved(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        try:
            MeasuredSteps(config, self.data, self.device).run(images)
            return torch.cuda.max_memory_reserved(self.device) - before
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return None
        finally:
            clear_device_cache(garbage_collection=True)
            torch.cuda.reset_peak_memory_stats(self.device)  # the log reports the peak of the training


class CpuPeak:
    """The same on a CPU, in another process.

    Args:
        config: whose data is opened there; the other settings may differ from call to call.

    Raises:
        TrainingError: the other process ended for another reason than memory.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.process: subprocess.Popen[str] | None = None

    def __call__(self, config: Config, images: int) -> int | None:
        """Have the process run the steps, which is started by the first call."""
        if self.process is None:
            self._start()
        assert self.process is not None
        assert self.process.stdout is not None
        self._say(strict_json.dumps([config.model_dump(mode="json"), images]))
        answer = self.process.stdout.readline()
        if not answer:
            code = self.process.wait()
            self.errors.seek(0)
            last = (self.errors.read().strip().splitlines() or [f"exit code {code}"])[-1]
            raise TrainingError(f"the memory of a training step could not be measured ({last}); give optim.batch_size")
        if not hasattr(os, "fork"):
            self.close()
        peak: int | None = json.loads(answer)
        return peak

    def _start(self) -> None:
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace", newline="\n")  # noqa: SIM115
        command = [sys.executable, "-m", "tasktokens.training.step_memory"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self.errors, encoding="utf-8")
        self._say(strict_json.dumps(self.config.model_dump(mode="json")))  # in ASCII: pipes have a code page

    def _say(self, line: str) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended; what it left on standard error says why
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def close(self) -> None:
        """End the other process."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.errors.close()
        self.process = None

    def __enter__(self) -> CpuPeak:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextlib.contextmanager
def peaks(config: Config, data: Data, device: torch.device) -> Iterator[GpuPeak | CpuPeak]:
    """What measures steps on a run's data and device."""
    if device.type == "cuda":
        yield GpuPeak(data, device)
    else:
        with CpuPeak(config) as peak:
            yield peak


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory did not suffice, on whatever device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    texts = ("not enough memory", "can't allocate memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")
    known = isinstance(error, RuntimeError) and any(text in str(error) for text in texts)
    return known or (isinstance(error, Exception) and should_reduce_batch_size(error) and "cuDNN" not in str(error))


def _peak_rss() -> int:
    """The most memory in bytes that this process has held."""
    status = Path("/proc/self/status")
    if status.is_file():  # not ru_maxrss, which begins with that of the process that started this one
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
    memory = psutil.Process().memory_info()
    if sys.platform == "win32":
        return int(memory.peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _serve() -> None:
    """The other process. A fork for each question, since a process keeps memory that it no longer uses."""
    config = Config.model_validate_json(sys.stdin.readline())
    torch.set_num_threads(config.run.threads or torch.get_num_threads())
    data = open_data(config)
    for line in iter(sys.stdin.readline, ""):
        values, images = json.loads(line)
        question = (Config.model_validate(values), data, images)
        if not hasattr(os, "fork"):
            _answer(*question)
        elif (child := os.fork()) == 0:
            _answer(*question)
            os._exit(0)
        elif (code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])) == -signal.SIGKILL:
            print("null", flush=True)  # as the system does where memory is short
        elif code:
            sys.exit(code)


def _answer(config: Config, data: Data, images: int) -> None:
    steps = MeasuredSteps(config, data, torch.device("cpu"))
    before = psutil.Process().memory_info().rss
    try:
        steps.run(images)
        print(max(0, _peak_rss() - before), flush=True)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        print("null", flush=True)


if __name__ == "__main__":
    _serve()
