"""What lies in a folder of label files, as far as a few of them show it: for `tasktokens.inspection.infer`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tasktokens.datasets.index import exif_orientation, image_size
from tasktokens.datasets.upright import is_turned
from tasktokens.errors import DataError
from tasktokens.tasks.base import Array
from tasktokens.tasks.directions import facing_shares
from tasktokens.tasks.stored import one_channel, palette_greys, read_stored
from tasktokens.tasks.void import is_void, likely_marks

LOOK_AT = 20
MOST_VALUES = 4096
"""More different values or colours than this are not kept: they are no classes."""


@dataclass
class FolderScan:
    """What up to `LOOK_AT` files of a folder hold.

    Attributes:
        files: number of readable files looked at; ``unreadable`` says what was wrong with the others.
        channels: 1 or 3, 0 where the files differ or have another number; alpha does not count.
        dtype: of the arrays, such as ``uint8``; the widest where they differ.
        palette, greys: whether a file has a palette, of colours or many greys, or of two greys (their values count).
        jpeg: whether a file's compression changed its values.
        values: pixels by value of one-channel files of whole numbers; None where there are too many.
        colours: pixels by colour of 8-bit files of three channels; None where there are too many.
        flat: share of neighbours in a row that are equal: high for ids, low for photographs and measurements.
        low, middle, high: the 1st, 50th and 99th hundredth of what is finite and not 0.
        least, most: extremes of the finite values.
        unit: share of the vectors that have length 1, but for those that are near 0 (three channels).
        mean_z, mean_y_below: mean third component, and mean second component in the lower third of the pictures.
        one_sided: share of the vectors whose third component has the more frequent sign.
        marks: numbers that seem to mean "no measurement", such as 65535; they count in no other value.
        transparent: share of the pixels that are transparent, hence void; they count in no other value.
        facing: share of the vectors that would face the camera in each of `tasktokens.tasks.directions.frames`.
        other_size: number of files whose size is not their image's; ``other_shape``: nor is their aspect ratio.
        turned: number of files whose image has an EXIF orientation; a label may fit such an image as it is shown.
    """

    files: int = 0
    unreadable: list[str] = field(default_factory=list)
    channels: int = 0
    dtype: str = ""
    palette: bool = False
    greys: bool = False
    jpeg: bool = False
    values: dict[int, int] | None = None
    colours: dict[tuple[int, int, int], int] | None = None
    flat: float = 0.0
    low: float = 0.0
    middle: float = 0.0
    high: float = 0.0
    least: float = 0.0
    most: float = 0.0
    unit: float = 0.0
    mean_z: float = 0.0
    mean_y_below: float = 0.0
    one_sided: float = 0.0
    marks: tuple[float, ...] = ()
    transparent: float = 0.0
    facing: Array | None = None
    other_size: int = 0
    other_shape: int = 0
    turned: int = 0


def some(files: Sequence[Path]) -> list[Path]:
    """Up to `LOOK_AT` of them, evenly spread."""
    return [files[i] for i in np.linspace(0, len(files) - 1, min(len(files), LOOK_AT)).round().astype(int)]


def scan_files(files: Sequence[tuple[Path, Path]], name: str) -> FolderScan:
    """Read label files, each given with its image. ``name`` chooses among the arrays of an npz."""
    look, arrays, masks = FolderScan(), [], []
    for path, image in files:
        try:
            stored = read_stored(path, name)
            greys = palette_greys(stored)
            array = stored.array if greys is None else greys
            sides, image_sides = array.shape[:2], image_size(image)
            orientation = exif_orientation(image)
        except DataError as error:
            look.unreadable.append(str(error))
            continue
        arrays.append(one_channel(array))
        masks.append(stored.valid)
        look.palette |= stored.palette is not None and greys is None
        look.greys |= greys is not None
        look.jpeg |= stored.lossy is not None
        look.turned += orientation > 1
        if is_turned(orientation, sides, image_sides):
            image_sides = image_sides[::-1]
        look.other_size += sides != image_sides
        look.other_shape += abs(sides[0] * image_sides[1] - sides[1] * image_sides[0]) > sum(image_sides)
    look.files = len(arrays)
    shapes = {1 if a.ndim == 2 else a.shape[-1] if a.ndim == 3 else 0 for a in arrays}
    look.channels = shapes.pop() if len(shapes) == 1 and shapes <= {1, 3} else 0
    if look.channels:
        look.dtype = str(np.result_type(*arrays))
        look.transparent = 1 - sum(int(mask.sum()) for mask in masks) / max(sum(mask.size for mask in masks), 1)
        if look.channels == 1:
            look.marks = likely_marks(np.concatenate([a[m] for a, m in zip(arrays, masks, strict=True)]))
        _count(look, arrays, masks)
    if look.channels == 3:
        _directions(look, arrays, masks)
    return look


def _count(look: FolderScan, arrays: Sequence[Array], masks: Sequence[Array]) -> None:
    whole = not np.issubdtype(np.dtype(look.dtype), np.floating)
    counts: dict[int, int] | None = {}
    equal = pairs = 0
    kept = []
    for array, mask in zip(arrays, masks, strict=True):
        same = array[:, 1:] == array[:, :-1]
        same = same if array.ndim == 2 else same.all(axis=-1)
        equal, pairs = equal + int(same.sum()), pairs + same.size
        flat = array[mask].reshape(-1, look.channels)
        if look.channels == 1:
            flat = flat[~is_void(flat, look.marks)].reshape(-1, 1)
        if whole and counts is not None:
            wide = flat.astype(np.int64)
            packed = wide[:, 0] if look.channels == 1 else wide[:, 0] << 16 | wide[:, 1] << 8 | wide[:, 2]
            for value, count in zip(*(x.tolist() for x in np.unique(packed, return_counts=True)), strict=True):
                counts[value] = counts.get(value, 0) + count
            counts = counts if len(counts) <= MOST_VALUES else None
        values = flat.astype(np.float64)
        # A few of each file: quantiles need no more.
        kept.append(values[np.isfinite(values)][:: max(1, values.size // 20_000)])
        if np.isfinite(values).any():
            look.least = min(look.least if len(kept) > 1 else np.inf, float(values[np.isfinite(values)].min()))
            look.most = max(look.most if len(kept) > 1 else -np.inf, float(values[np.isfinite(values)].max()))
    look.flat = equal / max(pairs, 1)
    used = np.concatenate(kept)
    used = used[used != 0]
    if used.size:
        look.low, look.middle, look.high = (float(v) for v in np.quantile(used, (0.01, 0.5, 0.99)))
    if look.channels == 1:
        look.values = counts if whole else None
    elif look.dtype == "uint8" and counts is not None:
        look.colours = {(v >> 16, v >> 8 & 255, v & 255): count for v, count in counts.items()}


def _directions(look: FolderScan, arrays: Sequence[Array], masks: Sequence[Array]) -> None:
    near = total = up = 0
    z, y_below, below = 0.0, 0.0, 0
    facing = []
    for array, mask in zip(arrays, masks, strict=True):
        vectors = array.astype(np.float64)
        if array.dtype == np.uint8:
            vectors = vectors * (2 / 255) - 1
        length = np.linalg.norm(np.nan_to_num(vectors), axis=-1)
        # 0 and the grey of 128 are the usual void, and so is black, which decodes to length 1.7.
        used = mask & (length > 0.1) & ~((array == 0).all(axis=-1) if array.dtype == np.uint8 else False)
        unit = used & (abs(length - 1) < 0.1)
        facing.append(facing_shares(np.moveaxis(vectors, -1, 0), unit))
        near, total = near + int(unit.sum()), total + int(used.sum())
        z, up = z + float(vectors[unit][:, 2].sum()), up + int((vectors[unit][:, 2] > 0).sum())
        third = slice(2 * array.shape[0] // 3, None)
        y_below += float(vectors[third][unit[third]][:, 1].sum())
        below += int(unit[third].sum())
    known = [shares for shares in facing if np.isfinite(shares).all()]
    look.facing = np.mean(known, axis=0) if known else None
    look.unit = near / max(total, 1)
    look.mean_z, look.mean_y_below = z / max(near, 1), y_below / max(below, 1)
    look.one_sided = max(up, near - up) / max(near, 1)
