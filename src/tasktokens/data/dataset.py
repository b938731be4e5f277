"""Samples by (seed, epoch, index): the order and the augmentation depend on nothing else, so a run can be resumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import psutil
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from tasktokens.config import Augmentation
from tasktokens.data.collection import Collection
from tasktokens.data.partial import Split
from tasktokens.data.sample import Batch, Label, Sample, collate
from tasktokens.data.transforms import augment, resize, shrink_to_cover
from tasktokens.errors import LabelError
from tasktokens.tasks import Task


class PartialDataset(Dataset[Sample]):
    """Images of a collection with the labels that a split lets be seen; other label files are never opened.

    Args:
        collection: the data.
        split: ids, in order, and the tasks whose labels may be seen.
        tasks: the tasks of the run by name.
        size: (height, width) of every sample.
        augmentation: None for evaluation: samples are then stretched to ``size`` and nothing is random.
        seed: of the augmentation.
        cache: keep decoded samples in memory if all of them fit into a quarter of what is free.
    """

    def __init__(
        self,
        collection: Collection,
        split: Split,
        tasks: Mapping[str, Task],
        size: tuple[int, int],
        augmentation: Augmentation | None = None,
        seed: int = 0,
        cache: bool = False,
    ) -> None:
        self.collection, self.split, self.ids, self.tasks = collection, split, tuple(split), tasks
        self.size, self.augmentation, self.seed = size, augmentation, seed
        self._cache: dict[int, Sample] | None = {} if cache else None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        sample = self._base(index)
        if self.augmentation is None:
            return resize(sample, self.tasks, self.size)
        rng = np.random.default_rng([self.seed, epoch, index])
        return augment(sample, self.tasks, self.size, self.augmentation, rng)

    def _base(self, index: int) -> Sample:
        """The decoded sample, no larger than the augmentation can use."""
        if self._cache is not None and index in self._cache:
            return self._cache[index]
        sample = load_sample(self.collection, self.ids[index], self.split[self.ids[index]])
        if self.augmentation is None:
            sample = resize(sample, self.tasks, self.size)
        else:
            most = max(1.0, self.augmentation.scale[1])
            sample = shrink_to_cover(sample, self.tasks, (round(self.size[0] * most), round(self.size[1] * most)))
        if self._cache is not None:
            self._cache[index] = sample
            if len(self._cache) == 1 and _bytes(sample) * len(self) > psutil.virtual_memory().available / 4:
                self._cache = None
        return sample


def load_sample(collection: Collection, id: str, visible: Sequence[str]) -> Sample:
    """Decode one image and its visible labels. Raises `DataError` or `LabelError` naming the file."""
    image = torch.from_numpy(collection.images[id].read().transpose(2, 0, 1).copy())
    size = tuple(image.shape[-2:])
    labels = {}
    for name in visible:
        file = collection.labels[name][id]
        value, valid = file.read()
        if valid.shape != size:
            raise LabelError(
                f"label file {file.path} is {valid.shape[1]}x{valid.shape[0]} pixels, its image "
                f"{collection.images[id].path.name} is {size[1]}x{size[0]}; labels must have the size of their image"
            )
        labels[name] = Label(torch.from_numpy(value), torch.from_numpy(valid)[None])
    return Sample(id, image, torch.ones(1, *size, dtype=torch.bool), labels)


def _bytes(sample: Sample) -> int:
    tensors = [
        sample.image,
        sample.pixels,
        *(t for label in sample.labels.values() for t in (label.value, label.valid)),
    ]
    return sum(tensor.nbytes for tensor in tensors)


class EpochSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index), from a given step on, without end.

    Every epoch is a permutation drawn from (seed, epoch); the incomplete batch at its end is left out, unless the data
    set is smaller than a batch. With several ranks each takes its share of every batch.
    """

    def __init__(
        self, length: int, batch_size: int, seed: int, first_step: int = 0, rank: int = 0, ranks: int = 1
    ) -> None:
        self.length, self.batch_size, self.seed, self.first_step = length, min(batch_size, length), seed, first_step
        self.rank, self.ranks = rank, ranks

    @property
    def steps_per_epoch(self) -> int:
        return self.length // self.batch_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, skip = divmod(self.first_step, self.steps_per_epoch)
        while True:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.length)
            for step in range(skip, self.steps_per_epoch):
                batch = order[step * self.batch_size : (step + 1) * self.batch_size]
                yield [(epoch, int(index)) for index in batch[self.rank :: self.ranks]]
            epoch, skip = epoch + 1, 0


def train_loader(dataset: PartialDataset, sampler: EpochSampler, workers: int) -> DataLoader[Sample]:
    """Endless batches for training."""
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=_collate_for(dataset),
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
    )


def eval_loader(dataset: PartialDataset, batch_size: int, rank: int = 0, ranks: int = 1) -> DataLoader[Sample]:
    """Each image once, in order; ranks share them without padding by duplicates."""
    indices = list(range(rank, len(dataset), ranks))
    batches = [[(0, index) for index in indices[i : i + batch_size]] for i in range(0, len(indices), batch_size)]
    return DataLoader(dataset, batch_sampler=batches, collate_fn=_collate_for(dataset))


def _collate_for(dataset: PartialDataset) -> partial[Batch]:
    return partial(collate, channels={name: task.label_channels for name, task in dataset.tasks.items()})
