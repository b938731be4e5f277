"""One label file as it is stored, before its kind is known."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasktokens.tasks.base import Array
from tasktokens.tasks.stored import one_channel, palette_greys, read_stored
from tasktokens.utils.safe_io import open_picture

_GDAL_NODATA = 42113
"""The TIFF tag in which GDAL names, as text, the value that means "no data"."""


@dataclass(frozen=True)
class ScannedFile:
    """What a file holds.

    Attributes:
        path: the file.
        array: (H, W), also where grey was saved as RGB; (H, W, 3) for colours; alpha is left out.
        valid: (H, W) bool, false where the file is transparent.
        palette: colours (256, 3) uint8 of a palette file, whose array has the indices; None for a palette of one or two
            greys, whose array has the greys.
        lossy: the compression that changed the values, such as ``JPEG``, or empty.
        nodata: what the file's tag names as "no data".
    """

    path: Path
    array: Array
    valid: Array
    palette: Array | None = None
    lossy: str = ""
    nodata: float | None = None


def scan_file(path: Path, name: str) -> ScannedFile:
    """Read a file; ``name`` chooses among the arrays of an npz. Raises `LabelError` where it cannot be read."""
    stored = read_stored(path, name)
    greys = palette_greys(stored)
    array = one_channel(stored.array if greys is None else greys)
    return ScannedFile(
        path, array, stored.valid, stored.palette if greys is None else None, stored.lossy or "", _nodata(path)
    )


def _nodata(path: Path) -> float | None:
    if path.suffix.lower() not in (".tif", ".tiff"):
        return None
    with suppress(ValueError), open_picture(path) as image:
        value = float(str(getattr(image, "tag_v2", {}).get(_GDAL_NODATA, "")).strip().strip("\0"))
        return value if np.isfinite(value) else None
    return None
