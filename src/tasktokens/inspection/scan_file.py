"""One label file as it is stored, before its kind is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tasktokens.tasks.base import Array
from tasktokens.tasks.stored import array_names, one_channel, palette_greys, read_stored


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
        unread: further arrays of an npz.
    """

    path: Path
    array: Array
    valid: Array
    palette: Array | None = None
    lossy: str = ""
    nodata: float | None = None
    unread: tuple[str, ...] = ()


def scan_file(path: Path, name: str) -> ScannedFile:
    """Read a file; ``name`` chooses among the arrays of an npz. Raises `LabelError` where it cannot be read."""
    stored = read_stored(path, name)
    greys = palette_greys(stored)
    valid = replace(stored, nodata=None).valid  # what the tag names is proposed as void, to be seen
    array = one_channel(stored.array if greys is None else greys)
    names = array_names(path) if path.suffix.lower() == ".npz" else []
    unread = tuple(each for each in names if each != name) if name in names else ()  # a lone array may have any name
    palette = stored.palette if greys is None else None
    return ScannedFile(path, array, valid, palette, stored.lossy or "", stored.nodata, unread)
