"""Random numbers of a batch's images that do not depend on how the batch is shared out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class BatchShard:
    """Which images of a step's batch are at hand: number ``number``, and every ``of``-th after it.

    Over ranks, and over the parts that a rank takes one after another. ``images``: of the whole batch; None for a batch
    of which every part has the same number.
    """

    number: int = 0
    of: int = 1
    images: int | None = None

    def rand(self, generator: torch.Generator, count: int, *shape: int) -> Tensor:
        """(count, *shape) in [0, 1): an image's numbers are those that it has in the undivided batch.

        Every part draws for all images, so that generators which start alike go on alike.
        """
        whole = count * self.of if self.images is None else self.images
        return torch.rand(whole, *shape, generator=generator)[self.number :: self.of]


WHOLE_BATCH = BatchShard()
"""The shard of a run with one rank and no accumulation."""
