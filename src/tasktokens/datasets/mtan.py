"""What the npy files of MTAN (Liu et al., CVPR 2019) have in common, for NYU Depth v2 and Cityscapes alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tasktokens.errors import DataError, TaskTokensError
from tasktokens.tasks.base import Array
from tasktokens.utils.safe_io import read_npy


def numbered(folder: Path) -> list[Path]:
    """The files of a folder in the order of their numbers: 2.npy comes before 10.npy.

    Raises `DataError` for a name that is no number.
    """
    paths = [path for path in folder.glob("*.npy") if not path.name.startswith(".")]
    wrong = [path.name for path in paths if not path.stem.isdecimal()]
    if wrong:
        raise DataError(f"{folder} must hold 0.npy, 1.npy and so on; found {wrong[0]}")
    return sorted(paths, key=lambda path: int(path.stem))


def read_unit_image(path: Path) -> Array:
    """Read an npy (H, W, 3) of floats in 0..1, or of uint8, as uint8. Raises `DataError` naming the file."""
    try:
        stored = read_npy(path)
    except FileNotFoundError as error:
        raise DataError(f"image {path} does not exist") from error
    except TaskTokensError:
        raise
    except Exception as error:  # whatever a file does to a decoder, it is the file that is named
        raise DataError(f"image {path} cannot be read ({error}); replace it or remove it") from error
    if stored.ndim != 3 or stored.shape[-1] != 3:
        raise DataError(f"image {path} must have the shape (H, W, 3), found {stored.shape}")
    if stored.dtype == np.uint8:
        return stored
    # Resizing may overshoot by rounding errors, no further.
    if stored.dtype.kind != "f" or not (stored.size and stored.min() >= -1e-3 and stored.max() <= 1 + 1e-3):
        raise DataError(f"image {path} must hold floats from 0 to 1, found {stored.dtype} {_range(stored)}")
    levels: Array = np.rint(stored.clip(0, 1) * 255).astype(np.uint8)
    return levels


def _range(array: Array) -> str:
    return f"from {array.min():g} to {array.max():g}" if array.size else "without pixels"
