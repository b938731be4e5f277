"""Thick responses to lines one pixel wide: suppression across a ridge, and thinning that keeps what is connected."""

from __future__ import annotations

from functools import cache
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Array = npt.NDArray[Any]

SMOOTHING = 1.0
"""Standard deviation in pixels of the Gaussian derivatives that say which way a ridge runs."""

# Row and column steps to the eight neighbours, clockwise from above; neighbour k is bit k of a neighbourhood.
_AROUND = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))


def ridge(value_HW: Array, above: float) -> Array:
    """Pixels above a level that are no lower than both points one pixel away across the ridge they lie on, (H, W) bool.

    Across is the direction in which the smoothed map bends the most (an eigenvector of its Hessian), up or down, so
    that the flanks of a ridge go too. Equal neighbours stay, so a map of zeros and ones stays as it is; `thin` does the
    rest.
    """
    value = value_HW.astype(np.float32)
    xx, yy, xy = (ndimage.gaussian_filter(value, SMOOTHING, order) for order in ((0, 2), (2, 0), (1, 1)))
    rows, columns = np.nonzero(value > above)
    sign = np.where(xx + yy > 0, 1, -1)  # which of the two eigenvalues is the larger one in size
    angle = 0.5 * np.arctan2(sign * 2 * xy, sign * (xx - yy))[rows, columns]
    step = np.stack([np.sin(angle), np.cos(angle)])
    here, at = value[rows, columns], np.stack([rows, columns])
    left, right = (ndimage.map_coordinates(value, at + sign * step, order=1, mode="nearest") for sign in (-1, 1))
    kept = np.zeros(value.shape, bool)
    # Between two pixels of one value, interpolation may round up.
    kept[rows, columns] = here >= np.maximum(left, right) * (1 - 1e-6)
    return kept


def thin(mask_HW: Array) -> Array:
    """Lines one pixel wide in place of thick ones, connected as before, (H, W) bool; thin lines stay as they are.

    Guo and Hall, "Parallel thinning with two-subiteration algorithms", Communications of the ACM, 1989.
    """
    # Not scikit-image's `thin` and `skeletonize`: on edges of photographs they keep other pixels, so scores would
    # change (benchmarks/results/thinning.json).
    padded = np.pad(mask_HW.astype(np.uint8), 1)
    flat, width = padded.ravel(), padded.shape[1]
    pixels = np.flatnonzero(flat)
    idle = 0
    for table in cycle(_deletable()):
        code = np.zeros(len(pixels), np.uint8)
        for bit, (dy, dx) in enumerate(_AROUND):
            code |= flat[pixels + (dy * width + dx)] << np.uint8(bit)
        gone = table[code]
        idle = 0 if gone.any() else idle + 1
        if idle == 2:
            break
        flat[pixels[gone]] = 0
        pixels = pixels[~gone]
    return padded[1:-1, 1:-1].astype(bool)


@cache
def _deletable() -> tuple[Array, Array]:
    """For each of the two alternating passes, whether a pixel with neighbourhood 0..255 goes."""
    n, ne, e, se, s, sw, w, nw = ((np.arange(256) >> bit & 1).astype(bool) for bit in range(8))
    crossings = sum(x.astype(int) for x in (~n & (ne | e), ~e & (se | s), ~s & (sw | w), ~w & (nw | n)))
    one = sum(x.astype(int) for x in (nw | n, ne | e, se | s, sw | w))
    other = sum(x.astype(int) for x in (n | ne, e | se, s | sw, w | nw))
    sides = np.minimum(one, other)
    simple = (crossings == 1) & (sides >= 2) & (sides <= 3)
    return simple & ~((s | sw | ~nw) & w), simple & ~((n | ne | ~se) & e)
