"""What a folder of label files holds, judged by a few of them: for `tasktokens.inspection.infer`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tasktokens.datasets.index import exif_orientation, image_size
from tasktokens.datasets.upright import is_turned
from tasktokens.errors import DataError
from tasktokens.inspection.scan_file import ScannedFile, scan_file
from tasktokens.inspection.unmeasured import unmeasured_values
from tasktokens.tasks.base import Array
from tasktokens.tasks.directions import facing_shares
from tasktokens.tasks.void import is_void

MAX_SCANNED = 20
"""Files of a folder that are read."""

MOST_VALUES = 4096
"""More different values or colours than this are not kept: they are no classes."""

Colour = tuple[int, int, int]


@dataclass
class FolderScan:
    """What up to `MAX_SCANNED` files of a folder hold.

    Attributes:
        files: number of readable files that were scanned; ``unreadable`` says what was wrong with the others.
        channels: 1 or 3, 0 where the files differ or have another number; alpha does not count.
        dtype: of the arrays, such as ``uint8``; the widest where they differ.
        lossy: the compression that changed the values of a file, such as ``JPEG``; empty where there is none.
        palette: colour of each id that palette files use, None where there is no palette.
        palette_conflict: two files whose palettes have one colour under two ids.
        values: pixels by value of one-channel files of whole numbers; None where there are too many.
        values_of: the values of each of these files, by its name.
        colours: pixels by colour of 8-bit files of three channels, ``mixed`` ones left out; None where too many.
        mixed: files with colours that no other file has, as smoothing makes them along borders, and how many.
        flat: share of neighbours in a row that are equal: high for ids, low for photographs and measurements.
        nodata: values that a TIFF's tag GDAL_NODATA names.
        unmeasured: values that mean "no measurement" by the tag, or because they stand far apart from all others.
        low, middle, high: the 1st, 50th and 99th hundredth of what is finite, measured and not 0.
        least, most: extremes of the finite and measured values.
        at_most: share of these values that are the largest: high where a sensor or an export cuts off.
        whole: whether all finite values are whole numbers.
        two_valued: whether all measured values are the least or the largest.
        unit: share of the vectors that have length 1, but for those that are near 0 (three channels).
        mean_z: mean third component; mean_below: mean vector in the lower third of the pictures.
        scores: whether three channels are nowhere negative and sum to 1, as scores of classes do.
        one_sided: share of the vectors whose third component has the more frequent sign.
        facing: share of the vectors that would face the camera in each of `tasktokens.tasks.directions.frames`.
        vectors: how many there are.
        other_size: number of files whose size is not their image's; ``other_shape``: nor is their aspect ratio.
        turned: number of files whose image has an EXIF orientation; a label may fit such an image as it is shown.
    """

    files: int = 0
    unreadable: list[str] = field(default_factory=list)
    channels: int = 0
    dtype: str = ""
    lossy: str = ""
    palette: dict[int, Colour] | None = None
    palette_conflict: tuple[str, str] | None = None
    values: dict[int, int] | None = None
    values_of: dict[str, frozenset[int]] = field(default_factory=dict)
    colours: dict[Colour, int] | None = None
    mixed: dict[str, int] = field(default_factory=dict)
    flat: float = 0.0
    nodata: tuple[float, ...] = ()
    unmeasured: tuple[float, ...] = ()
    low: float = 0.0
    middle: float = 0.0
    high: float = 0.0
    least: float = 0.0
    most: float = 0.0
    at_most: float = 0.0
    whole: bool = False
    two_valued: bool = False
    unit: float = 0.0
    mean_z: float = 0.0
    mean_below: tuple[float, float, float] = (0.0, 0.0, 0.0)
    one_sided: float = 0.0
    scores: bool = False
    facing: Array | None = None
    vectors: int = 0
    other_size: int = 0
    other_shape: int = 0
    turned: int = 0
    unread_arrays: tuple[str, ...] = ()


def evenly_spread_files(files: Sequence[Path]) -> list[Path]:
    """Up to `MAX_SCANNED` of them, evenly spread."""
    return [files[i] for i in np.linspace(0, len(files) - 1, min(len(files), MAX_SCANNED)).round().astype(int)]


def scan_files(files: Sequence[tuple[Path, Path]], name: str) -> FolderScan:
    """Read label files, each given with its image. ``name`` chooses among the arrays of an npz."""
    scan, read = FolderScan(), list[ScannedFile]()
    for path, image in files:
        try:
            file = scan_file(path, name)
            sides, image_sides = file.array.shape[:2], image_size(image)
            orientation = exif_orientation(image)
        except DataError as error:
            scan.unreadable.append(str(error))
            continue
        read.append(file)
        scan.lossy = scan.lossy or file.lossy
        scan.turned += orientation > 1
        if is_turned(orientation, sides, image_sides):
            image_sides = image_sides[::-1]
        scan.other_size += sides != image_sides
        scan.other_shape += abs(sides[0] * image_sides[1] - sides[1] * image_sides[0]) > sum(image_sides)
    scan.files = len(read)
    scan.unread_arrays = tuple(dict.fromkeys(name for file in read for name in file.unread))
    scan.nodata = tuple(sorted({file.nodata for file in read if file.nodata is not None}))
    arrays = [file.array for file in read]
    shapes = {1 if a.ndim == 2 else a.shape[-1] if a.ndim == 3 else 0 for a in arrays}
    scan.channels = shapes.pop() if len(shapes) == 1 and shapes <= {1, 3} else 0
    if scan.channels:
        scan.dtype = str(np.result_type(*arrays))
        scan.flat = _flatness(arrays)
        _measure(scan, read)
    if scan.channels == 1 and np.dtype(scan.dtype).kind in "bui":
        _count_values(scan, read)
    if scan.channels == 3:
        _directions(scan, read)
        scan.scores = bool(read) and all(_are_scores(file) for file in read)
        if scan.dtype == "uint8":
            _count_colours(scan, read)
    return scan


def _flatness(arrays: Sequence[Array]) -> float:
    equal = pairs = 0
    for array in arrays:
        same = array[:, 1:] == array[:, :-1]
        same = same if array.ndim == 2 else same.all(axis=-1)
        equal, pairs = equal + int(same.sum()), pairs + same.size
    return equal / max(pairs, 1)


def _measure(scan: FolderScan, read: Sequence[ScannedFile]) -> None:
    """Extremes and quantiles of what was measured."""
    scan.whole = True
    found = []
    for file in read:
        values = file.array[file.valid].reshape(-1)
        values = values[np.isfinite(values)].astype(scan.dtype)
        scan.whole = scan.whole and bool((values == np.rint(values)).all())
        found.append(values)
    if scan.channels == 1:
        scan.unmeasured = unmeasured_values(np.concatenate(found), scan.nodata)
    measured = [values[~is_void(values, scan.unmeasured)].astype(np.float64) for values in found]
    known = [values for values in measured if values.size]
    if known:
        scan.least, scan.most = min(float(v.min()) for v in known), max(float(v.max()) for v in known)
        scan.at_most = sum(int((v == scan.most).sum()) for v in known) / sum(v.size for v in known)
        scan.two_valued = all(bool(((v == scan.least) | (v == scan.most)).all()) for v in known)
    # A few of each file: quantiles need no more.
    used = np.concatenate([values[:: max(1, values.size // 20_000)] for values in measured])
    used = used[used != 0]
    if used.size:
        scan.low, scan.middle, scan.high = (float(v) for v in np.quantile(used, (0.01, 0.5, 0.99)))


def _count_values(scan: FolderScan, read: Sequence[ScannedFile]) -> None:
    counts, owner = Counter[int](), dict[Colour, tuple[int, str]]()
    for file in read:
        values, pixels = np.unique(file.array[file.valid].astype(np.int64), return_counts=True)
        own = dict(zip(values.tolist(), pixels.tolist(), strict=True))
        scan.values_of[file.path.name] = frozenset(own)
        counts.update(own)
        if file.palette is None:
            continue
        scan.palette = scan.palette or {}
        for id in own:
            colour: Colour = tuple(file.palette[id].tolist())
            scan.palette.setdefault(id, colour)
            if owner.setdefault(colour, (id, file.path.name))[0] != id and sum(colour):
                scan.palette_conflict = scan.palette_conflict or (owner[colour][1], file.path.name)
    scan.values = dict(counts) if len(counts) <= MOST_VALUES else None


def _count_colours(scan: FolderScan, read: Sequence[ScannedFile]) -> None:
    """Colours of the clean files. A file with more than three colours of its own is taken for a smoothed one."""
    own = {}
    for file in read:
        wide = file.array[file.valid].astype(np.int64)
        packed = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
        values, counts = (part.tolist() for part in np.unique(packed, return_counts=True))
        own[file.path.name] = dict(zip(values, counts, strict=True)) if len(values) <= MOST_VALUES else None
    files_with = Counter(value for counts in own.values() if counts for value in counts)
    alone = {name: MOST_VALUES if counts is None else sum(files_with[value] == 1 for value in counts)
             for name, counts in own.items()}  # fmt: skip
    odd = {name: count for name, count in alone.items() if count > 3}
    scan.mixed = odd if 2 * len(odd) < len(read) else {}
    total = Counter[int]()
    for name, counts in own.items():
        if name not in scan.mixed and counts is None:
            return
        total.update({} if name in scan.mixed else counts)
    if len(total) <= MOST_VALUES:
        scan.colours = {(v >> 16, v >> 8 & 255, v & 255): count for v, count in total.items()}


def _are_scores(file: ScannedFile) -> bool:
    values = file.array[file.valid].astype(np.float64)
    return bool(values.size) and bool((values >= 0).all()) and bool((abs(values.sum(axis=-1) - 1) < 0.01).all())


def _directions(scan: FolderScan, read: Sequence[ScannedFile]) -> None:
    near = total = up = 0
    z, sum_below, below = 0.0, np.zeros(3), 0
    facing = []
    for file in read:
        array = file.array
        vectors = array.astype(np.float64)
        if array.dtype == np.uint8:
            vectors = vectors * (2 / 255) - 1
        length = np.linalg.norm(np.nan_to_num(vectors), axis=-1)
        # 0 and the grey of 128 are the usual void, and so is black, which decodes to length 1.7.
        used = file.valid & (length > 0.1)
        if array.dtype == np.uint8:
            used &= (array != 0).any(axis=-1)
        unit = used & (abs(length - 1) < 0.1)
        facing.append(facing_shares(np.moveaxis(vectors, -1, 0), unit))
        near, total = near + int(unit.sum()), total + int(used.sum())
        z, up = z + float(vectors[unit][:, 2].sum()), up + int((vectors[unit][:, 2] > 0).sum())
        third = slice(2 * array.shape[0] // 3, None)
        sum_below += vectors[third][unit[third]].sum(axis=0)
        below += int(unit[third].sum())
    known = [shares for shares in facing if np.isfinite(shares).all()]
    scan.facing = np.mean(known, axis=0) if known else None
    scan.unit, scan.vectors = near / max(total, 1), near
    scan.mean_z = z / max(near, 1)
    scan.mean_below = tuple((sum_below / max(below, 1)).tolist())
    scan.one_sided = max(up, near - up) / max(near, 1)
