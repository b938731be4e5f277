"""Batches from processes that read ahead: endless ones for training, each image once for evaluation."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from tasktokens.data.dataset import PartialDataset
from tasktokens.data.sample import Batch, Sample, collate_by_size
from tasktokens.data.sampler import Draw, Draws
from tasktokens.errors import DataError
from tasktokens.tasks import Task
from tasktokens.utils.console import say
from tasktokens.utils.processes import kill, kill_at_exit
from tasktokens.utils.signals import SIGNALS

Stacked = TypeVar("Stacked")

WORKER_SECONDS = 50.0
"""Timeout of a batch from a loader process, in seconds."""

AHEAD = 2
"""Batches that a loader process prepares ahead, torch's own default."""


def train_loader(dataset: PartialDataset, sampler: Draws, workers: int) -> Iterator[Batch]:
    """Endless batches for training. Raises `DataError` for what cannot be read."""
    return _load(dataset, sampler, dataset.stacking(), workers, pin_memory=torch.cuda.is_available())


def eval_loader(
    dataset: PartialDataset, batch_size: int, rank: int = 0, ranks: int = 1, workers: int = 0
) -> Iterator[Batch]:
    """Each image once; ranks share them without padding by duplicates. Images of different sizes come apart.

    Raises `DataError` for what cannot be read.
    """
    indices = list(range(rank, len(dataset), ranks))
    batches = [[(0, index) for index in indices[i : i + batch_size]] for i in range(0, len(indices), batch_size)]
    stack: Callable[[Sequence[Sample]], list[Batch]] = partial(collate_by_size, channels=dataset.channels())
    for of_one_size in _load(dataset, batches, stack, workers):
        yield from of_one_size


def _load(
    dataset: PartialDataset,
    batches: Draws,
    stack: Callable[[Sequence[Sample]], Stacked],
    workers: int,
    pin_memory: bool = False,
) -> Iterator[Stacked]:
    loader: DataLoader[Any] = DataLoader(
        _ErrorsAsValues(dataset),
        batch_sampler=batches,
        num_workers=workers,
        worker_init_fn=_leave_signals_to_training,
        collate_fn=partial(_stack_or_error, stack=stack),
        pin_memory=pin_memory,
        timeout=WORKER_SECONDS if workers else 0,
    )
    others = set(multiprocessing.active_children())
    batches_of = iter(loader)
    own = set(multiprocessing.active_children()) - others
    kill_at_exit(own)
    here = os.getpid()
    try:
        for item in batches_of:
            if isinstance(item, DataError):
                raise item
            yield item
    except RuntimeError as error:
        if "DataLoader" not in str(error):  # a loader process that has died, or has sent nothing for that long
            raise
        raise DataError(
            f"a loader process has ended or hangs ({str(error).splitlines()[0]}): its memory, or /dev/shm (Docker: "
            f"--shm-size), may be full, or the disk is too slow; lower data.workers, or set it to 0"
        ) from error
    finally:
        # An error keeps the iterator alive, and torch waits for each of its processes once that is let go of.
        if os.getpid() == here:  # and not in a process that was forked since
            kill(own)


def fitting_workers(workers: int, batch_bytes: int) -> int:
    """How many loader processes fit into shared memory; a lower number is reported on standard error.

    Batches travel through ``/dev/shm``, which is 64 MB in a container unless said otherwise. A process that finds it
    full dies or hangs, so the free space is checked first.

    Args:
        batch_bytes: of one batch; each process holds up to `AHEAD` ready and one in the making.
    """
    try:
        shared = os.statvfs("/dev/shm")
    except (OSError, AttributeError):  # no such place: another system
        return workers
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    free = shared.f_bavail * shared.f_frsize
    fitting = int(free // (batch_bytes * (AHEAD + 1) * ranks))
    if fitting >= workers:
        return workers
    say(
        f"data.workers={workers} would need {workers * batch_bytes * (AHEAD + 1) * ranks / 2**20:.0f} MB of /dev/shm, "
        f"of which {free / 2**20:.0f} MB are free: {fitting} are used (Docker: --shm-size raises it)"
    )
    return fitting


def batch_bytes(images: int, size: tuple[int, int], tasks: Mapping[str, Task]) -> int:
    """The most that a batch of images of this (height, width) takes, with a label of every task for each.

    Discovered labels are float16 of a sixteenth of the pixels.
    """
    per_pixel = 4 + sum(4 * task.label_channels + 1 + task.num_tokens / 8 for task in tasks.values())
    return math.ceil(images * size[0] * size[1] * per_pixel)


class _ErrorsAsValues(Dataset[Sample | DataError]):
    """Returns a `DataError` instead of raising it: torch would put a loader process's traceback into the message."""

    def __init__(self, dataset: PartialDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, key: tuple[int, int] | Draw) -> Sample | DataError:
        try:
            return self.dataset[key]
        except DataError as error:
            return error


def _stack_or_error(
    samples: Sequence[Sample | DataError], stack: Callable[[Sequence[Sample]], Stacked]
) -> Stacked | DataError:
    read: list[Sample] = []
    for sample in samples:
        if isinstance(sample, DataError):
            return sample
        read.append(sample)
    return stack(read)


def _leave_signals_to_training(worker: int) -> None:
    """Ctrl-C and batch systems signal all processes: the training process ends its step, saves, and ends the others."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
