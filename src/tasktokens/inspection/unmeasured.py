"""Numbers that stand for "no measurement" in files of measurements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tasktokens.tasks.base import Array

_USUAL = (
    -1, -999, -9999, -99999, -32767, -32768, -(2**31), -1e10, -1e20, -1e30, -1e38,
    9999, 99999, 32767, 65535, 2**31 - 1, 2**32 - 1, 1e10, 1e20, 1e30, 1e38,
)  # fmt: skip


def unmeasured_values(extremes: Array, dtype: np.dtype[Any], nodata: Sequence[float] = ()) -> tuple[float, ...]:
    """Values that mean "no measurement": those that the files name, and usual ones that stand apart from all others.

    A usual value is the lowest or the highest, and further from the next one than all others are from each other; -1
    is one where no other value is negative, the largest number of a 16- or 32-bit type where a gap lies below it.

    Args:
        extremes: distinct finite values, ascending: the lowest and the highest few.
        dtype: the type of the files, to which a value such as 1e38 was rounded.
        nodata: values that the files name, such as by the tag GDAL_NODATA.

    >>> unmeasured_values(np.array([-9999.0, 0.5, 7.25]), np.dtype("float32"))
    (-9999.0,)
    >>> unmeasured_values(np.array([0.0, 900.0, 9000.0, 65535.0]), np.dtype("uint16"))
    (65535.0,)
    >>> unmeasured_values(np.array([-2.0, -1.0, 0.0, 1.0]), np.dtype("float32"))
    ()
    """
    found = {float(value) for value in nodata}
    rest = extremes[~np.isin(extremes, list(found))]
    if dtype.kind not in "uif" or dtype.itemsize == 1:
        return tuple(sorted(found))
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    usual = [*_USUAL, float(limits.max), *([float(limits.min)] if limits.min else [])]
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            usual = np.array(usual).astype(dtype).astype(np.float64).tolist()
    while rest.size > 1:
        low, high = rest[1:], rest[:-1]
        if float(rest[0]) in usual and _apart(low[0] - rest[0], low[-1] - low[0], rest[0] == -1 and low[0] >= 0):
            found.add(float(rest[0]))
            rest = low
        elif float(rest[-1]) in usual and _apart(
            rest[-1] - high[-1],
            high[-1] - high[0],
            dtype.kind in "ui" and rest[-1] == limits.max and rest[-1] - high[-1] > 0.01 * (high[-1] - high[0]) + 1,
        ):
            found.add(float(rest[-1]))
            rest = high
        else:
            break
    return tuple(sorted(found))


def _apart(gap: float, width: float, anyway: bool) -> bool:
    return bool(anyway or gap > width)
