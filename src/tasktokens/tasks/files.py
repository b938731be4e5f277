"""Reading and writing label files: PNG of 8 and 16 bits and npy, with errors that name the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tasktokens.errors import LabelError

Array = npt.NDArray[Any]


def read_array(path: Path) -> Array:
    """Read a label file as stored: (H, W) or (H, W, channels). Raises `LabelError` when it cannot be read."""
    try:
        if path.suffix.lower() == ".npy":
            return np.asarray(np.load(path, allow_pickle=False))
        with Image.open(path) as image:
            # A palette PNG stores class ids; its colours are decoration.
            return np.asarray(image)
    except FileNotFoundError as error:
        raise LabelError(f"label file {path} does not exist") from error
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise LabelError(
            f"label file {path} cannot be read ({error}); replace it or remove it to leave the label out"
        ) from error


def read_plane(path: Path) -> tuple[Array, Array]:
    """Read a one-channel label file; an alpha channel of zero marks void. Returns plane (H, W) and valid (H, W)."""
    array = read_array(path)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim == 3 and array.shape[-1] == 2:
        return array[..., 0], array[..., 1] > 0
    if array.ndim != 2:
        raise LabelError(f"label file {path} must have one channel, found an array of shape {array.shape}")
    return array, np.ones(array.shape, dtype=bool)


def write_png(path: Path, array: Array) -> None:
    """Write uint8 (H, W), (H, W, 2: value and alpha), (H, W, 3) or uint16 (H, W) as PNG, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(array)).save(path.with_suffix(".png"))


def unit_interval(path: Path, plane: Array) -> Array:
    """Scale a stored plane to [0, 1]: 8 and 16 bits by their maximum, bool and floats as they are."""
    if plane.dtype == np.uint8 or plane.dtype == np.uint16:
        return plane.astype(np.float32) / np.float32(np.iinfo(plane.dtype).max)
    value = plane.astype(np.float32)
    finite = value[np.isfinite(value)]
    if finite.size and (finite.min() < 0 or finite.max() > 1):
        raise LabelError(f"label file {path} must hold values from 0 to 1, found {finite.min():g} to {finite.max():g}")
    return value
