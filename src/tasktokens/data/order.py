"""The order of an epoch: a permutation drawn from (seed, epoch), read off anywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[Any]

LARGE = 2**24
"""From so many images on, a permutation is computed where it is asked for, not drawn whole: at 10^8 images it would
take 0.8 GB and seconds in every process and every epoch, and again after each resuming."""


class EpochOrder:
    """``order(first, last)`` are the images at those positions of an epoch; every image comes once."""

    def __init__(self, length: int, seed: int, epoch: int) -> None:
        self.length = length
        rng = np.random.default_rng([seed, epoch])
        self._whole = rng.permutation(length) if length < LARGE else None
        self._keys = rng.integers(2**63, size=6, dtype=np.uint64)

    def __call__(self, first: int, last: int) -> Indices:
        if self._whole is not None:
            return self._whole[first:last]
        return scattered(np.arange(first, last, dtype=np.uint64), self.length, self._keys)


def scattered(positions: Indices, length: int, keys: Indices) -> Indices:
    """Where a keyed permutation of ``range(length)`` sends positions (n,) uint64; int64.

    A Feistel network (Luby and Rackoff, 1988) permutes the numbers of an even number of bits; what falls outside of the
    range is sent on until it falls inside ("cycle walking", Black and Rogaway, 2002): at most four times on average.
    """
    half = np.uint64((max(length - 1, 1).bit_length() + 1) // 2)
    found = _feistel(positions, half, keys)
    while (outside := found >= np.uint64(length)).any():
        found[outside] = _feistel(found[outside], half, keys)
    return found.astype(np.int64)


def _feistel(x: Indices, half: np.uint64, keys: Indices) -> Indices:
    """A permutation of the numbers below ``4 ** half``: a round mixes one half of the bits into the other."""
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = x >> half, x & mask
    for key in keys:
        left, right = right, left ^ (_mixed(right ^ key) & mask)
    mixed: Indices = (left << half) | right
    return mixed


def _mixed(x: Indices) -> Indices:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): every bit depends on every other."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Indices = x ^ (x >> np.uint64(31))
    return mixed
