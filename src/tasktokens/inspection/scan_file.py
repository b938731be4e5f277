"""One label file as it is stored, before its kind is known."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tasktokens.tasks.base import Array
from tasktokens.tasks.files import one_channel, read_array
from tasktokens.utils.safe_io import open_picture

_GDAL_NODATA = 42113
"""The TIFF tag in which GDAL names, as text, the value that means "no data"."""


@dataclass(frozen=True)
class ScannedFile:
    """What a file holds.

    Attributes:
        path: the file.
        array: (H, W), also where grey was saved as RGB; (H, W, 3) for colours; alpha is left out.
        palette: colours (256, 3) uint8 of a palette file, whose array has the indices.
        lossy: the compression that changed the values, such as ``JPEG``, or empty.
        nodata: what the file's tag names as "no data".
    """

    path: Path
    array: Array
    palette: Array | None = None
    lossy: str = ""
    nodata: float | None = None


def scan_file(path: Path, name: str) -> ScannedFile:
    """Read a file; ``name`` chooses among the arrays of an npz. Raises `LabelError` where it cannot be read."""
    array = read_array(path, name)
    if array.ndim == 3 and array.shape[-1] in (2, 4):
        array = array[..., :-1]
    array = one_channel(array)
    if path.suffix.lower() in (".npy", ".npz"):
        return ScannedFile(path, array)
    with open_picture(path) as image:
        lossy = image.format or "" if image.format in ("JPEG", "MPO", "WEBP") else ""
        return ScannedFile(path, array, _palette(image), lossy, _nodata(image))


def _palette(image: Image.Image) -> Array | None:
    if image.mode not in ("P", "PA"):
        return None
    colours = np.zeros((256, 3), np.uint8)  # an index beyond the palette's end is black
    known = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    colours[: len(known)] = known
    return colours


def _nodata(image: Image.Image) -> float | None:
    with suppress(ValueError):
        value = float(str(getattr(image, "tag_v2", {}).get(_GDAL_NODATA, "")).strip().strip("\0"))
        return value if np.isfinite(value) else None
    return None
