"""Random draws that come out the same on every machine and with every NumPy version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Dice:
    """A stream of draws decided by a key of whole numbers.

    ``RandomState`` is NumPy's frozen generator; only its raw 53-bit uniforms are used, and whatever leaves here is
    rounded to 1e-6, so a last-bit difference between two processors can never reach a label.
    """

    def __init__(self, *key: int) -> None:
        """Begin the stream of a key."""
        self._state = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(list(key))))

    def unit(self) -> float:
        """Draw uniformly from [0, 1)."""
        return float(self._state.random_sample())

    def between(self, low: float, high: float) -> float:
        """Draw uniformly from [low, high], rounded to 1e-6."""
        return round(low + (high - low) * self.unit(), 6)

    def index(self, count: int) -> int:
        """Draw a whole number from 0 to count - 1."""
        return min(int(self.unit() * count), count - 1)

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return self.unit() < probability

    def pick(self, items: Sequence[T]) -> T:
        """Draw one of the items, all alike."""
        return items[self.index(len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Return the items in a random order."""
        left = list(items)
        return [left.pop(self.index(len(left))) for _ in range(len(left))]

    def bits(self) -> int:
        """Draw a 31-bit number, to seed an integer hash."""
        return self.index(2**31 - 1)
