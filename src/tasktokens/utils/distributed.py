"""Several processes as one run: how they find each other, fail together and stop together.

They are started by ``torchrun`` (docs/operate/scaling.md); a single process runs the same code and waits for nobody.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import distributed, nn

from tasktokens.errors import ConfigError, OtherRankError
from tasktokens.utils.environment import accelerate_variables_hidden, check_environment
from tasktokens.utils.signals import StopSignal

if TYPE_CHECKING:
    from tasktokens.config import RunSettings

Value = TypeVar("Value")

STOP_EVERY = 4
"""Training steps between two checks whether a rank was told to stop: each check waits for the device."""

_SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")


def start(settings: RunSettings, precision: str = "no") -> Accelerator:
    """Join the other processes of this run, if there are any.

    Args:
        settings: device, time that ranks wait for each other, determinism.
        precision: ``no`` (fp32), ``bf16`` or ``fp16``.

    Raises:
        ConfigError: several processes were started that do not know of each other, fp16 without a GPU, or an
            environment variable asks for what a run cannot do.
    """
    check_environment()
    started = max(_number(name) for name in _SIZES)
    cpu = settings.device == "cpu" or not torch.cuda.is_available()
    if precision == "fp16" and cpu:
        raise ConfigError("run.precision=fp16 needs a GPU, and none is used; take fp32 or bf16 on a CPU")
    if settings.deterministic:
        make_deterministic()
    # torch 2.14 gave it another name, which earlier ones lack.
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
    AcceleratorState._reset_state()  # of an earlier run in this process, perhaps of another precision
    with accelerate_variables_hidden():
        accelerator = Accelerator(
            # Without a GPU accelerate looks for other ranks only where told so; one process may use what it finds.
            cpu=settings.device == "cpu" or (cpu and started > 1),
            mixed_precision=precision,
            gradient_accumulation_steps=1,  # `optim.accumulate` is ours
            kwargs_handlers=[
                InitProcessGroupKwargs(timeout=timedelta(minutes=settings.rank_timeout)),
                # The statistics of batch norm are averaged after each step instead (`Statistics`).
                DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
            ],
        )
    check_world_size(accelerator.num_processes, started)
    return accelerator


def training_precision(settings: RunSettings) -> str:
    """What accelerate calls it; emulated on most CPUs, bf16 is many times slower there."""
    if settings.precision == "auto":
        gpu = settings.device != "cpu" and torch.cuda.is_available()
        return "bf16" if gpu and torch.cuda.is_bf16_supported() else "no"
    return "no" if settings.precision == "fp32" else settings.precision


def check_world_size(joined: int, started: int) -> None:
    """Raise `ConfigError` where more processes were started than joined the run: each would train on its own."""
    if joined < started:
        raise ConfigError(
            f"{started} processes were started and only {joined} joined the run; start them with torchrun "
            f"(docs/operate/scaling.md), or unset {' and '.join(name for name in _SIZES if _number(name) > 1)}"
        )
    # What accelerate's launcher leaves behind when it was asked for several CPU processes and starts one.
    if joined == 1 and "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_PORT" in os.environ:
        raise ConfigError(
            "'accelerate launch' was asked for several processes and started one; "
            "start them with torchrun --nproc_per_node N (docs/operate/scaling.md)"
        )


def _number(name: str) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else 1


def make_deterministic() -> None:
    """Let torch refuse kernels whose result depends on the order in which a GPU's threads finish."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def all_gather(accelerator: Accelerator, value: Value) -> list[Value]:
    """A value of each rank, in their order; it is pickled between processes of one run."""
    if accelerator.num_processes == 1:
        return [value]
    values: list[Any] = [None] * accelerator.num_processes
    distributed.all_gather_object(values, value)
    return values


@contextmanager
def raise_on_all_ranks(accelerator: Accelerator) -> Iterator[None]:
    """An error on one rank is raised on all at the end of the block, so that no rank waits for a failed one.

    The first rank that failed raises its own error, which is printed once; the others raise `OtherRankError`. No rank
    may wait for another within the block.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as caught:
        error = caught
    failed = all_gather(accelerator, None if error is None else f"{type(error).__name__}: {error}")
    first = next((rank for rank, message in enumerate(failed) if message is not None), None)
    if first is None:
        return
    if error is not None and first == accelerator.process_index:
        raise error
    raise OtherRankError(f"rank {first} failed: {failed[first]}") from error


def main_process_first(accelerator: Accelerator, function: Callable[[], Value]) -> Value:
    """``function()`` on every rank; one of each machine goes first, so that what is made on first use is made once."""
    values: list[Value] = []
    for turn in (True, False):
        with raise_on_all_ranks(accelerator):
            if accelerator.is_local_main_process == turn:
                values.append(function())
    return values[0]


def signals(ranks: int) -> StopSignal:
    """For the length of a piece of work; under a launcher a signal often comes twice."""
    launched = ranks > 1 or "TORCHELASTIC_RUN_ID" in os.environ
    return StopSignal(echo=5.0 if launched else 0.0)


def stopping(stop: StopSignal, accelerator: Accelerator) -> bool:
    """Whether any rank was told to stop; its signal becomes every rank's. All ranks must ask at the same point."""
    if accelerator.num_processes > 1:
        number = torch.tensor(stop.received or 0, device=accelerator.device)
        stop.received = int(accelerator.reduce(number, "max")) or None
    return stop.received is not None


def sync_batch_norm(network: nn.Module) -> nn.Module:
    """Batch norms that take mean and variance over all ranks; torch can do so on GPUs only."""
    from timm.layers.norm_act import convert_sync_batchnorm  # torch's own would lose the activation of timm's norms

    converted: nn.Module = convert_sync_batchnorm(network)
    return converted


def lost_contact(error: BaseException) -> bool:
    """Whether an error only means that another rank is gone, which has printed the reason."""
    words = ("Connection closed by peer", "Connection reset by peer", "NCCL", "Broken pipe", "Timed out waiting")
    network = isinstance(error, distributed.DistError) or type(error) is RuntimeError
    return "torch.distributed" in sys.modules and network and any(word in str(error) for word in words)
