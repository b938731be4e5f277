"""Stored numbers that a task declares to mean "no label"."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tasktokens.errors import ConfigError

Array = npt.NDArray[Any]


def is_void(stored: Array, void: Sequence[float]) -> Array:
    """Where a stored number is one of ``void``, bool of the same shape.

    A value of floats is compared after rounding to the type of the file: a float32 file holds -9999.900390625 for
    -9999.9. Doubles also count after rounding to float32, since many files were floats before. Numbers that a type of
    integers cannot hold are in no file of it.
    """
    if not void:
        return np.zeros(stored.shape, dtype=bool)
    if stored.dtype.kind == "f":
        with np.errstate(over="ignore"):
            found = np.isin(stored, np.array(void, np.float64).astype(stored.dtype))
            if stored.dtype.itemsize > 4:
                found |= np.isin(stored.astype(np.float32), np.array(void, np.float64).astype(np.float32))
        return np.asarray(found)
    plane = stored.view(np.uint8) if stored.dtype == bool else stored
    limits = np.iinfo(plane.dtype)
    whole = [int(value) for value in void if float(value).is_integer() and limits.min <= int(value) <= limits.max]
    return np.isin(plane, np.array(whole, plane.dtype))


def parse_void(values: Any) -> tuple[float, ...]:
    """The setting ``void``: a list of numbers, NaN and infinity left out, since they are void anyway.

    Raises `ConfigError` for anything else.
    """
    if isinstance(values, str | bool) or not isinstance(values, Iterable):
        raise ConfigError(f"void must be a list of numbers such as [65535], found {values!r}")
    numbers = [_number(value) for value in values]
    return tuple(number for number in numbers if math.isfinite(number))


def parse_void_ids(values: Any) -> tuple[int, ...]:
    """The setting ``void`` of class ids: a list of whole numbers. Raises `ConfigError` for anything else."""
    numbers = parse_void(values)
    if len(numbers) < len(list(values)):
        raise ConfigError(f"void must be whole class ids, found {values!r}")
    for number in numbers:
        if not number.is_integer():
            raise ConfigError(f"void must be whole class ids, found {number:g}")
    return tuple(map(int, numbers))


def _number(value: Any) -> float:
    try:
        if not isinstance(value, bool):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ConfigError(f"void must be a list of numbers such as [65535], found {value!r} in it")
