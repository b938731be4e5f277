"""Samples by (seed, draw): the order and the augmentation depend on nothing else, so a run can be resumed."""

from __future__ import annotations

import math
import multiprocessing
import operator
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, SupportsIndex, TypeVar

import numpy as np
import psutil
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from tasktokens.config import Augmentation
from tasktokens.data.sample import Batch, Label, Sample, collate, collate_by_size
from tasktokens.data.sampler import Draw, Draws
from tasktokens.data.soft_labels import SoftSource
from tasktokens.data.transforms import augment, no_padding, resize, resize_image, shrink_to_cover
from tasktokens.data.visibility import VisibleLabels
from tasktokens.errors import DataError, LabelError
from tasktokens.tasks import Task
from tasktokens.utils.console import say
from tasktokens.utils.processes import kill, kill_at_exit
from tasktokens.utils.resizing import working_size
from tasktokens.utils.signals import SIGNALS

if TYPE_CHECKING:
    from tasktokens.datasets.index import DatasetIndex

Stacked = TypeVar("Stacked")

WORKER_SECONDS = 50.0
"""Timeout of a batch from a loader process, in seconds."""

AHEAD = 2
"""Batches that a loader process prepares ahead, torch's own default."""


class WeightedSource(Protocol):
    """Where a data set finds labels that were discovered before."""

    def has(self, id: str, task: str) -> bool:
        """Whether there is one."""

    def complete(self, id: str, task: str, given: Label) -> Label:
        """A given label with what was discovered of pixels that it leaves open. Raises `LabelError`."""

    def find(self, id: str, task: str, size: tuple[int, int]) -> Label | None:
        """The label for an image of (height, width), or None where there is none. Raises `LabelError`."""


class PartialDataset(Dataset[Sample]):
    """Images of a data set with their visible labels; other label files are never opened.

    A map-style data set: ``dataset[0]``, ``len(dataset)``, ``for sample in dataset``, and a
    ``DataLoader(dataset, batch_size=4, shuffle=True, collate_fn=dataset.collate)``. An int is drawn for the epoch that
    `set_epoch` was given last, 0 at first; training names the epoch of each draw itself, by a `Draw`.

    Args:
        collection: the data.
        split: ids, in order, and the tasks whose labels may be seen.
        tasks: the tasks of the run by name.
        size: (height, width) of every sample.
        augmentation: None for evaluation: samples are then stretched to ``size`` and nothing is random.
        seed: of the augmentation.
        cache: keep decoded samples in memory, up to `cache_room` bytes.
        full: evaluation at full size: images keep their shape (`working_size`), labels their size.
        skip_corrupt: leave out what cannot be read, and say so in the sample, instead of raising `DataError`. In place
            of an unreadable image comes the next one that can be read, so that a run is still exactly resumable.
        discovered: soft labels of tasks without a visible label.
        weighted: labels of such tasks that were discovered elsewhere.
    """

    def __init__(
        self,
        collection: DatasetIndex,
        split: VisibleLabels,
        tasks: Mapping[str, Task],
        size: tuple[int, int],
        augmentation: Augmentation | None = None,
        seed: int = 0,
        cache: bool = False,
        full: bool = False,
        skip_corrupt: bool = False,
        discovered: SoftSource | None = None,
        weighted: WeightedSource | None = None,
    ) -> None:
        self.collection, self.split, self.ids, self.tasks = collection, split, tuple(split), tasks
        self.size, self.augmentation, self.seed, self.full = size, augmentation, seed, full
        self.skip_corrupt, self.discovered, self.weighted = skip_corrupt, discovered, weighted
        self._cache: dict[int, Sample] | None = {} if cache else None
        self._room: float | None = None
        self._epoch = 0

    def __len__(self) -> int:
        return len(self.ids)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose augmentation integer indices draw, as `DistributedSampler.set_epoch` does for the order.

        Call it before each epoch of an augmented data set, or its images are augmented alike in all of them. Loader
        processes that outlive an epoch (``persistent_workers=True``) keep the epoch they started with.
        """
        self._epoch = epoch

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Stack samples of one size: the ``collate_fn`` of a `DataLoader`. See `Batch`."""
        return _stacking(self)(samples)

    def __getitem__(self, key: int | tuple[int, int] | Draw) -> Sample:
        """A sample by its number, from -len to len - 1, or by a draw of (epoch, number).

        Raises `IndexError` for another number, `DataError` for an image or label that cannot be read.
        """
        epoch, index, late = Draw(*key) if isinstance(key, tuple) else Draw(self._epoch, self._number(key))
        sample = self._with_discovered(self._base(index))
        if self.augmentation is not None:
            rng = np.random.default_rng([self.seed, epoch, index])
            sample = augment(sample, self.tasks, self.size, self.augmentation, rng, late)
        if self.discovered is None:
            return sample
        head = self.discovered.head
        return replace(
            sample, discovered={name: soft.at(self.tasks[name], head) for name, soft in sample.discovered.items()}
        )

    def _number(self, index: SupportsIndex) -> int:
        number = operator.index(index)
        if not -len(self) <= number < len(self):
            raise IndexError(f"the data set has {len(self)} images, found index {number}")
        return number % len(self)

    def _base(self, index: int) -> Sample:
        """The decoded sample, no larger than the augmentation can use; for evaluation, as the network sees it."""
        if self._cache is not None and index in self._cache:
            return self._cache[index]
        sample = self._load(index)
        height, width = sample.image.shape[-2:]
        if self.augmentation is not None:
            most = max(1.0, self.augmentation.widest[1])
            sample = shrink_to_cover(sample, self.tasks, (round(self.size[0] * most), round(self.size[1] * most)))
        elif self.full:
            seen = working_size((height, width), self.size)
            sample = replace(sample, image=resize_image(sample.image, seen), pixels=no_padding(seen))
        else:
            sample = resize(sample, self.tasks, self.size)
        if self._cache is not None:
            self._keep(index, sample)
        return sample

    def _with_discovered(self, sample: Sample) -> Sample:
        """With the soft labels of the whole image, for tasks whose label may not be seen or does not exist."""
        if self.discovered is None:
            return sample
        visible = self.split[sample.id]
        stored = () if self.weighted is None else [name for name in self.tasks if self.weighted.has(sample.id, name)]
        missing = [name for name in self.tasks if name not in visible and name not in stored]
        found = {name: self.discovered.find(sample.id, name) for name in missing}
        return replace(sample, discovered={name: soft for name, soft in found.items() if soft is not None})

    def _load(self, index: int) -> Sample:
        """The sample as it is stored."""
        if not self.skip_corrupt:
            return self._read(self.ids[index], None)
        faults: list[str] = []
        for id in (*self.ids[index:], *self.ids[:index]):
            try:
                return replace(self._read(id, faults), left_out=tuple(faults))
            except DataError as error:
                faults.append(str(error))
        raise DataError(f"none of the {len(self)} images can be read; the first: {faults[0]}")

    def _read(self, id: str, faults: list[str] | None) -> Sample:
        """An image with its visible labels, and those that were discovered elsewhere in place of others."""
        sample = load_sample(self.collection, id, self.split[id], faults)
        if self.weighted is None:
            return sample
        labels, (height, width) = dict(sample.labels), sample.image.shape[-2:]
        for name, given in sample.labels.items():
            labels[name] = self.weighted.complete(id, name, given)
        for name in (name for name in self.tasks if name not in self.split[id]):
            try:
                if (label := self.weighted.find(id, name, (height, width))) is not None:
                    labels[name] = label
            except LabelError as error:
                if faults is None:
                    raise
                faults.append(str(error))
        return replace(sample, labels=labels)

    def _keep(self, index: int, sample: Sample) -> None:
        """Cache a sample while there is room."""
        assert self._cache is not None
        if self._room is None:
            self._room = cache_room()
        if (size := _bytes(sample)) <= self._room:
            self._cache[index] = sample
            self._room -= size


def cache_room() -> float:
    """Bytes that this process may cache: a quarter of the free memory over all loader processes of the machine.

    Each loader process of each rank has a cache of its own, since any of them may be asked for any sample.
    """
    worker = get_worker_info()
    processes = (worker.num_workers if worker else 1) * int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return psutil.virtual_memory().available / 4 / processes


def load_sample(collection: DatasetIndex, id: str, visible: Sequence[str], faults: list[str] | None = None) -> Sample:
    """Decode one image and its visible labels. Raises `DataError` or `LabelError` naming the file.

    With ``faults`` a label that cannot be read is no error: it is left out and its message added to the list.
    """
    image = torch.from_numpy(collection.images[id].read().copy()).permute(2, 0, 1)  # channels last is fastest to resize
    size = tuple(image.shape[-2:])
    labels = {}
    for name in visible:
        try:
            value, valid = collection.labels[name][id].read_for(collection.images[id], (size[0], size[1]))
            labels[name] = Label(torch.from_numpy(value), torch.from_numpy(valid)[None])
        except LabelError as error:
            if faults is None:
                raise
            faults.append(str(error))
    return Sample(id, image, no_padding((size[0], size[1])), labels)


def _bytes(sample: Sample) -> int:
    tensors = [
        sample.image,
        sample.pixels,
        *(t for x in sample.labels.values() for t in (x.value, x.valid, x.weight) if t is not None),
    ]
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


def train_loader(dataset: PartialDataset, sampler: Draws, workers: int) -> Iterator[Batch]:
    """Endless batches for training. Raises `DataError` for what cannot be read."""
    return _load(dataset, sampler, _stacking(dataset), workers, pin_memory=torch.cuda.is_available())


def eval_loader(
    dataset: PartialDataset, batch_size: int, rank: int = 0, ranks: int = 1, workers: int = 0
) -> Iterator[Batch]:
    """Each image once; ranks share them without padding by duplicates. Images of different sizes come apart.

    Raises `DataError` for what cannot be read.
    """
    indices = list(range(rank, len(dataset), ranks))
    batches = [[(0, index) for index in indices[i : i + batch_size]] for i in range(0, len(indices), batch_size)]
    stack: Callable[[Sequence[Sample]], list[Batch]] = partial(collate_by_size, channels=_channels(dataset))
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


def _channels(dataset: PartialDataset) -> dict[str, int]:
    return {name: task.label_channels for name, task in dataset.tasks.items()}


def _stacking(dataset: PartialDataset) -> Callable[[Sequence[Sample]], Batch]:
    """What stacks samples of a data set; loader processes get it without the data set."""
    soft = dataset.discovered
    return partial(
        collate, channels=_channels(dataset), soft=_soft_shapes(dataset), weighted=dataset.weighted is not None,
        token_width=None if soft is None else soft.token_width,
    )  # fmt: skip


def _soft_shapes(dataset: PartialDataset) -> dict[str, tuple[int, int, int]] | None:
    """(K, h, w) of the discovered labels of each task, where there are any."""
    if dataset.discovered is None:
        return None
    height, width = dataset.discovered.head
    return {name: (task.num_tokens, height, width) for name, task in dataset.tasks.items()}
