"""Pixels of images in one form, (H, W, 3) uint8 RGB."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tasktokens.errors import DataError

Array = npt.NDArray[Any]


def as_rgb(array: Array, name: str) -> Array:
    """Pixels (H, W) or (H, W, 1, 3 or 4), uint8 or uint16, as (H, W, 3) uint8 RGB.

    16 bits are scaled to 8, grey is repeated, alpha is left out. Raises `DataError`, calling the pixels ``name``.
    """
    if array.dtype.newbyteorder("=") == np.uint16:
        array = ((array.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise DataError(f"{name} must be grey or RGB of 8 or 16 bits, found {array.dtype} of shape {array.shape}")
    if array.ndim == 2 or array.shape[2] == 1:
        array = np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    return array[..., :3]
