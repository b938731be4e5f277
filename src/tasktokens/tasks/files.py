"""Label files as arrays, and their writing: PNG and npy, with errors that name the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tasktokens.errors import LabelError
from tasktokens.tasks.stored import read_stored
from tasktokens.utils.atomic import writing

Array = npt.NDArray[Any]

_RUN_LENGTHS = 3
"""zlib's strategy ``Z_RLE``."""

_BAND = 2**18
"""Pixels that are encoded at a time: they stay in a processor's cache."""


def read_array(path: Path, key: str | None = None) -> Array:
    """Read a label file as stored: (H, W) or (H, W, channels) with alpha, in the machine's byte order.

    A palette file gives its indices.

    Args:
        key: the array to take from an npz that holds more than one.

    Raises:
        LabelError: the file cannot be read, holds several pages, or which of its arrays is meant cannot be told; or it
            is a picture whose compression changed the values.
    """
    stored = read_stored(path, key)
    stored.check_lossless()
    if stored.opaque is None or stored.palette is not None:
        return stored.array
    alpha = stored.opaque.astype(stored.array.dtype) * (255 if stored.array.dtype == np.uint8 else 1)
    return np.concatenate([np.atleast_3d(stored.array), alpha[..., None]], axis=-1)


def write_png(path: Path, array: Array) -> None:
    """Write uint8 (H, W), (H, W, 2: value and alpha), (H, W, 3), (H, W, 4) or uint16 (H, W) as PNG, with its folder."""
    path = path.with_suffix(".png")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Runs of equal differences to the pixel before are nearly all that there is to find in label maps and
        # confidences: as small as by searching for longer matches, in a third of the time.
        Image.fromarray(np.ascontiguousarray(array)).save(path, compress_type=_RUN_LENGTHS)


def write_stored(path: Path, stored: Array) -> None:
    """Write floats (H, W) as npy, and all else as `write_png`."""
    if stored.dtype == np.float32:
        write_floats(path, stored)
    else:
        write_png(path, stored)


def in_bands(encode: Callable[[Array, Array | None], Array], value_CHW: Array, valid_HW: Array | None = None) -> Array:
    """``encode(value, valid)`` of some rows at a time: what it makes on the way is small, whatever the image."""
    height, width = value_CHW.shape[1:]
    whole: Array | None = None
    rows = max(1, _BAND // max(1, width))
    for top in range(0, height, rows):
        band = slice(top, top + rows)
        part = encode(value_CHW[:, band], None if valid_HW is None else valid_HW[band])
        if height <= rows:
            return part
        if whole is None:
            whole = np.empty((height, *part.shape[1:]), part.dtype)
        elif part.dtype != whole.dtype:
            break  # some rows need another type than others, so all get it
        whole[band] = part
    else:
        if whole is not None:
            return whole
    return encode(value_CHW, valid_HW)


def write_floats(path: Path, plane_HW: Array) -> None:
    """Write a plane of floats as npy, making its folder."""
    path = path.with_suffix(".npy")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, plane_HW)


def to_float32(value: Array, neutral: float) -> tuple[Array, Array]:
    """Values as float32, and which of them a float32 can hold; ``neutral`` stands for the others."""
    with np.errstate(over="ignore"):
        small = value.astype(np.float32)
    held = np.isfinite(small)
    return np.where(held, small, np.float32(neutral)), held


def unit_interval(path: Path, plane: Array, white: float | None = None) -> Array:
    """Scale a stored plane to [0, 1]: integers by ``white`` (default: the type's maximum), bool and floats as they are.

    Raises `LabelError` where a value lies outside.
    """
    if plane.dtype in (np.uint8, np.uint16) and white is None:
        return plane.astype(np.float32) / np.float32(np.iinfo(plane.dtype).max)
    whole = np.issubdtype(plane.dtype, np.integer)
    with np.errstate(over="ignore"):  # what a float32 cannot hold lies outside
        value = plane.astype(np.float32) / np.float32(white if whole and white is not None else 1)
    known = np.isfinite(plane)
    if known.any() and (value[known].min() < 0 or value[known].max() > 1):
        raise LabelError(
            f"label file {path} must hold values from 0 to {white if whole and white is not None else 1:g}, found "
            f"{plane[known].min():g} to {plane[known].max():g}"
        )
    return value
