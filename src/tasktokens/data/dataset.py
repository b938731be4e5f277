"""Samples by (seed, draw): the order and the augmentation depend on nothing else, so a run can be resumed."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol, SupportsIndex

import numpy as np
import psutil
import torch
from torch.utils.data import Dataset, get_worker_info

from tasktokens.config import Augmentation
from tasktokens.data.sample import Batch, Label, Sample, collate
from tasktokens.data.sampler import Draw
from tasktokens.data.soft_labels import SoftSource
from tasktokens.data.transforms import augment, no_padding, resize, resize_image, shrink_to_cover
from tasktokens.data.visibility import VisibleLabels
from tasktokens.errors import DataError, LabelError
from tasktokens.tasks import Task
from tasktokens.utils.resizing import working_size

if TYPE_CHECKING:
    from tasktokens.datasets.index import DatasetIndex


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
        return self.stacking()(samples)

    def stacking(self) -> Callable[[Sequence[Sample]], Batch]:
        """`collate` without the data set, so that loader processes need not get a second one."""
        channels, soft = self.channels(), self.discovered
        if soft is None:
            return partial(collate, channels=channels, weighted=self.weighted is not None)
        shapes = {name: (task.num_tokens, *soft.head) for name, task in self.tasks.items()}
        return partial(
            collate, channels=channels, soft=shapes, weighted=self.weighted is not None, token_width=soft.token_width
        )

    def channels(self) -> dict[str, int]:
        """Channels of a label of each task."""
        return {name: task.label_channels for name, task in self.tasks.items()}

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
