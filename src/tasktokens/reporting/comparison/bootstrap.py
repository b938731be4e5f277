"""Is a difference between two methods more than chance? Paired bootstrap over the test images.

Both methods are measured on the same images, so the images are drawn again, with replacement, for both alike (Efron and
Tibshirani, An Introduction to the Bootstrap, 1993). Metrics are read off sums over images, so a draw is a weighted sum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tasktokens.metrics import delta_mtl
from tasktokens.reporting.comparison.measure import Sums, metric_of
from tasktokens.tasks import Task


@dataclass(frozen=True)
class Difference:
    """Δ_MTL of a method against another in percent, with its interval of 95 %.

    Attributes:
        value: over all images. low, high: of the draws. draws: how many there were.
    """

    value: float
    low: float
    high: float
    draws: int

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def paired_difference(
    tasks: Mapping[str, Task], method: Sequence[Sums], other: Sequence[Sums], draws: int = 300, seed: int = 0
) -> Difference | None:
    """Δ_MTL of a method against another over the same images; None where they share no task or not the images.

    Args:
        method, other: for each seed the sums of each test image by task; metrics are averaged over the seeds.
    """
    shared = [
        name for name in tasks
        if all(name in sums for sums in (*method, *other)) and len({len(s[name]) for s in (*method, *other)}) == 1
    ]  # fmt: skip
    if not shared or not method or not other:
        return None
    images = len(other[0][shared[0]])
    higher = {name: tasks[name].metric().primary_is_higher for name in shared}

    def difference(weights: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
        mine, theirs = (
            {name: float(np.mean([metric_of(tasks[name], weights @ s[name]) for s in sides])) for name in shared}
            for sides in (method, other)
        )
        return delta_mtl(mine, theirs, higher)

    rng = np.random.default_rng(seed)
    weights = rng.multinomial(images, np.full(images, 1 / images), size=draws).astype(np.float64)
    found = [value for row in weights if math.isfinite(value := difference(row))]
    if not found:
        return None
    low, high = np.percentile(found, [2.5, 97.5])
    return Difference(difference(np.ones(images)), float(low), float(high), len(found))
