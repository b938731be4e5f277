"""Which images a step of training gets, and how each is augmented."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from tasktokens.errors import ConfigError


class Draw(NamedTuple):
    """Selects a sample: image ``number`` of the data set as augmented in ``epoch``."""

    epoch: int
    number: int
    late: bool = False
    """Whether it is seen late in a run (``data.augmentation.late_scale``)."""


Draws = Iterable[list[Draw]] | Iterable[list[tuple[int, int]]]
"""Batches of `Draw`, or of plain (epoch, number)."""


class EpochSampler(Sampler[list[Draw]]):
    """Batches of draws, from a given step on, without end; from step ``late_step`` on they are late.

    Every epoch is a permutation drawn from (seed, epoch); the incomplete batch at its end is left out, unless the data
    set is smaller than a batch. With several ranks each takes its share of every batch, as ``accumulate`` batches one
    after another: number k of rank r has the images r + k * ranks, and every ``ranks * accumulate``-th after it.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        first_step: int = 0,
        rank: int = 0,
        ranks: int = 1,
        accumulate: int = 1,
        late_step: int | None = None,
    ) -> None:
        self.length, self.batch_size, self.seed, self.first_step = length, min(batch_size, length), seed, first_step
        self.rank, self.ranks, self.accumulate, self.late_step = rank, ranks, accumulate, late_step
        if self.batch_size < ranks * accumulate:
            raise ConfigError(
                f"a batch of {self.batch_size} images (optim.batch_size={batch_size}, {length} training images) cannot "
                f"be shared out among {ranks} processes in {accumulate} parts each (optim.accumulate); "
                f"raise optim.batch_size to {ranks * accumulate} or more, or start fewer processes"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Batches per epoch, at least 1."""
        return self.length // self.batch_size

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch, skip = divmod(self.first_step, self.steps_per_epoch)
        while True:
            order = epoch_order(self.length, self.seed, epoch)
            for step in range(skip, self.steps_per_epoch):
                indices = order[step * self.batch_size : (step + 1) * self.batch_size][self.rank :: self.ranks]
                late = self.late_step is not None and epoch * self.steps_per_epoch + step >= self.late_step
                for part in range(self.accumulate):
                    yield [Draw(epoch, int(index), late) for index in indices[part :: self.accumulate]]
            epoch, skip = epoch + 1, 0


def epoch_order(length: int, seed: int, epoch: int) -> NDArray[np.uint32]:
    """The images of an epoch in their order: ``np.random.default_rng([seed, epoch]).permutation(length)``.

    As uint32, 4 bytes per image: 0.4 GB for 10^8 images in each rank, while its loader processes hold none of it.
    """
    order = np.arange(length, dtype=np.uint32)
    np.random.default_rng([seed, epoch]).shuffle(order)
    return order
