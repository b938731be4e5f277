"""The kind of a task from its folder's name and from what a scan of its files found.

The numbers decide, the name only where they allow two readings; then the words say both readings and what decided.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from tasktokens.errors import DataError
from tasktokens.inspection.class_names import ClassNames
from tasktokens.inspection.depth_units import depth_scale, unit_words
from tasktokens.inspection.infer_classes import (
    Inferred,
    check_not_instance_ids,
    classes_of_colours,
    classes_of_ids,
    evenly_spread,
    look_like_ids,
)
from tasktokens.inspection.scan import FolderScan
from tasktokens.tasks.base import Array
from tasktokens.tasks.directions import FACING_SHARE, frames

_EDGE = re.compile(r"edge|boundar|contour", re.IGNORECASE)
_SALIENCY = re.compile(r"salien", re.IGNORECASE)
_MASK = re.compile(r"mask|binary|foreground|\bfg\b|matte|silhouette", re.IGNORECASE)
_DEPTH = re.compile(r"depth|distance", re.IGNORECASE)
_DISPARITY = re.compile(r"dispar|inverse|inv_?depth", re.IGNORECASE)
_NORMALS = re.compile(r"(?:^|[^a-z])(?:surface_?)?normals?(?:$|[^a-z])", re.IGNORECASE)
_THINGS = re.compile(r"instance|SegmentationObject", re.IGNORECASE)

FEW = 32
"""Up to this many different values may be ids; more are ids only where neighbours are mostly equal."""


def infer_kind(name: str, scan: FolderScan, known: ClassNames | None = None) -> Inferred:
    """The settings of a task and the words for what speaks for them. Raises `DataError` where nothing fits.

    Args:
        name: of the folder or column.
        scan: what its files hold.
        known: names of classes that lie beside them.
    """
    known = known or ClassNames()
    if not scan.files:
        raise DataError(f"none of its files can be read: {scan.unreadable[0]}")
    if not scan.channels:
        raise DataError("its files have neither one nor three channels, or differ in that")
    if _THINGS.search(name):
        check_not_instance_ids(list(scan.values or ()))
        raise DataError("by its name, ids of things, not of classes; to use it all the same, write it into tasks")
    if scan.channels == 3:
        if scan.scores:
            raise DataError(
                "three channels that are nowhere negative and sum to 1: one score per class; store the index of the "
                "largest (argmax) as one channel"
            )
        return _of_vectors(name, scan) if scan.unit > 0.9 else classes_of_colours(scan, known)
    if _NORMALS.search(name):
        raise DataError("normals by its name, with one channel: join x, y and z of each image into one file (H, W, 3)")
    if scan.two_valued and {scan.least, scan.most, *scan.unmeasured} == {-1.0, 1.0}:
        raise DataError("all pixels are -1 or 1, which seems to be no and yes: save them as 0 and 1")
    found = _of_two_values(name, scan, known) or _of_levels(name, scan) or _of_depth(name, scan)
    if found:
        return found
    if scan.lossy and _nearly_two_valued(scan):
        return {"kind": _probability(name)}, f"{scan.lossy}, nearly all pixels near 0 or 255"
    if scan.lossy and _few_peaks(scan):
        raise DataError(
            f"{scan.lossy} files of what seem to be class ids, which compression has changed; export PNG files"
        )
    if scan.values is not None and not scan.lossy and (len(scan.values) <= FEW or scan.flat > 0.8):
        return classes_of_ids(scan, known)
    return _of_numbers(scan)


def _probability(name: str) -> str:
    return "edge" if _EDGE.search(name) else "saliency" if _SALIENCY.search(name) else "binary"


# -- probabilities -----------------------------------------------------------------------------------------------------
def _of_two_values(name: str, scan: FolderScan, known: ClassNames) -> Inferred | None:
    """Yes and no: 0 and the type's largest number, or 0 and 1 where the name speaks for it."""
    if scan.values is None:
        return None
    kind, values = _probability(name), {*scan.values}
    if not scan.palette:
        _check_one_white(scan)
        if scan.dtype == "bool" or values in ({0, 255}, {0, 65535}, {255}):
            most = max(values)
            white = {} if scan.dtype == "bool" or (scan.dtype, most) in _WHITES else {"white": most}
            return {"kind": kind} | white, f"two values, {min(values)} to {most}"
        if _is_smoothed_mask(scan):
            return {"kind": kind}, (
                f"{scan.dtype}, {_range(scan)}; mostly 0 and 255, with levels between them that smooth borders have "
                f"(the other reading: kind: classes)"
            )
    if values <= {0, 1} and not scan.palette and (kind != "binary" or _MASK.search(name)):
        return {"kind": kind, "white": 1}, (
            "values of 0 and 1; yes and no by its name (the other reading: kind: classes, classes: [class_0, class_1])"
        )
    if values <= {0, 1}:
        spec, saw = classes_of_ids(scan, known)
        return spec, f"{saw} (the other reading: yes and no, kind: binary, white: 1)"
    if values <= {0, 1, 255} and not scan.palette and kind != "binary":
        return {"kind": kind, "white": 1, "void": [255]}, (
            f"values of 0, 1 and 255; {kind} by its name, 255 taken for no label (the other reading: kind: classes)"
        )
    return None


_WHITES = {("uint8", 255), ("uint16", 65535)}
"""Types and numbers that mean 1 without a setting."""


def _is_smoothed_mask(scan: FolderScan) -> bool:
    """Whether files of 8 bits hold black and white and, on few pixels, several levels across the range between them."""
    counts = scan.values or {}
    between = {value: n for value, n in counts.items() if 0 < value < 255}
    if scan.dtype != "uint8" or scan.lossy or not {0, 255} <= {*counts} or len(between) < 4:
        return False
    if look_like_ids([*counts]) or evenly_spread([*counts]) or not min(between) < 128 <= max(between):
        return False
    total = sum(counts.values())
    return max(between.values()) <= 0.05 * total and sum(between.values()) <= 0.3 * total


def _check_one_white(scan: FolderScan) -> None:
    """Files of 0 and 1 among files of 0 and 255: no one reading is right for both."""
    ones = [name for name, values in scan.values_of.items() if values == {0, 1}]
    whites = [name for name, values in scan.values_of.items() if values == {0, 255}]
    if ones and whites and all(values <= {0, 1} or values <= {0, 255} for values in scan.values_of.values()):
        raise DataError(
            f"yes is 1 in {len(ones)} files (such as {ones[0]}) and 255 in {len(whites)} (such as {whites[0]}), so "
            f"neither can be read for the other; save them all in one way"
        )


def _of_levels(name: str, scan: FolderScan) -> Inferred | None:
    """A probability by its name: edges and saliency unless the numbers are ids, masks where there are many levels."""
    kind, values = _probability(name), list(scan.values or ())
    if scan.palette or not (scan.dtype in ("uint8", "uint16") or (scan.least >= 0 and scan.most <= 1)):
        return None
    saw = f"{scan.dtype}, {_range(scan)}; taken as a probability by its name"
    if kind != "binary":
        if scan.values is not None and not scan.lossy and look_like_ids(values):
            return None
        if evenly_spread(values):
            saw += " (the other reading: kind: classes, whose ids were spread for viewing)"
        return {"kind": kind}, saw
    if not _MASK.search(name):
        return None
    if scan.values is None or (len(values) > FEW and (scan.flat <= 0.8 or _nearly_two_valued(scan))):
        return {"kind": kind}, f"{saw} and its many levels"
    return None


def _nearly_two_valued(scan: FolderScan) -> bool:
    counts = scan.values or {}
    return sum(n for value, n in counts.items() if value <= 16 or value >= 239) > 0.95 * sum(counts.values())


def _few_peaks(scan: FolderScan) -> bool:
    """Whether up to ten values, each with what lies within 4 of it, make up 90 % of the pixels."""
    left, total = dict(scan.values or {}), sum((scan.values or {}).values())
    covered = 0
    for _ in range(10):
        if not left:
            break
        peak = max(left, key=lambda value: left[value])
        covered += sum(left.pop(value, 0) for value in range(peak - 4, peak + 5))
    return covered >= 0.9 * total > 0


# -- measurements ------------------------------------------------------------------------------------------------------
def _of_depth(name: str, scan: FolderScan) -> Inferred | None:
    inverse = bool(_DISPARITY.search(name))
    if not inverse and not _DEPTH.search(name):
        return None
    if scan.dtype in ("uint8", "bool", "int8"):
        return None if scan.values is not None and len(scan.values) <= 12 else _of_relative_depth(inverse, scan)
    if scan.least < 0:
        spec, saw = _of_numbers(scan)
        return spec, f"{saw}; depth by its name, but several negative values: list under void those that are no depth"
    saw = (
        f"{scan.dtype}, {_range(scan)}, half of the pixels below {scan.middle:g}" + _void_words(scan) + _cap_words(scan)
    )
    whole = scan.dtype.startswith(("uint", "int"))
    if inverse:
        scale = 1 / 65535 if whole else 1
        spec = {"kind": "depth", "inverse": True, "range": _round_range(scan.low * scale, scan.high * scale)}
        return spec | _void(scan), f"{saw}; inverse depth by its name" + (_DISPARITY_UNIT if whole else "")
    if not whole:
        advice = (
            "; floats are read as metres, these look like millimetres or centimetres: divide them"
            if scan.middle > 100
            else ""
        )
        return {"kind": "depth", "range": _round_range(scan.low, scan.high)} | _void(scan), saw + advice
    scale = depth_scale(scan.middle)
    spec = {"kind": "depth", "scale": scale, "range": _round_range(scan.low * scale, scan.high * scale)}
    return spec | _void(scan), f"{saw}; {unit_words(scan.middle, scan.low, scan.high, _round_range)}"


_DISPARITY_UNIT = ", in units of 1/65535 (the other reading: pixels x 256, as KITTI: scale: 0.00390625 and its range)"


def _of_relative_depth(inverse: bool, scan: FolderScan) -> Inferred:
    """8 bits: relative depth of no known unit."""
    if inverse:
        spec = {
            "kind": "depth",
            "inverse": True,
            "scale": 1 / 255,
            "range": _round_range(scan.low / 255, scan.high / 255),
        }
        saw = f"{scan.dtype}, {_range(scan)}; inverse depth by its name, in units of 1/255"
        return spec, saw + _cap_words(scan)
    spec = {"kind": "regression", "range": _round_range(scan.least, scan.most)}
    near = f"kind: depth, inverse: true, scale: {1 / 255:.6f}, range: {_round_range(scan.low / 255, scan.high / 255)}"
    return spec, (
        f"{scan.dtype}, {_range(scan)}; depth by its name, but 8 bits tell no unit, so it is taken as a plain number; "
        f"where near is bright: {near}; where it is metres: kind: depth with the scale and the range in metres"
        f"{_cap_words(scan)}{_lossy_words(scan)}"
    )


def _of_numbers(scan: FolderScan) -> Inferred:
    spec = {"kind": "regression", "range": _round_range(scan.least, scan.most)} | _void(scan)
    saw = f"{scan.dtype}, {_range(scan)}" + _void_words(scan) + _cap_words(scan)
    if scan.dtype.startswith("float") and scan.whole and scan.least >= 0 and scan.most - scan.least < FEW:
        saw += "; whole numbers only: if they are class ids, save them as integers (the other reading: kind: classes)"
    if scan.two_valued and scan.least == 0 < scan.most:
        how = "kind: binary" if scan.most == 1 else f"save them as integers, kind: binary, white: {scan.most:g}"
        saw += f"; two values only (the other reading: yes and no, {how})"
    saw += _lossy_words(scan)
    return spec, f"{saw}; set its unit, and scale where a stored 1 is not 1 of the unit"


def _lossy_words(scan: FolderScan) -> str:
    return f"; {scan.lossy} compression has changed the values: export them as PNG" if scan.lossy else ""


def _of_vectors(name: str, scan: FolderScan) -> Inferred:
    saw = f"three channels, {scan.unit:.0%} of the vectors of length 1, mean z {scan.mean_z:+.2f}"
    if "norm" not in name.lower() and scan.one_sided < 0.9:
        return {"kind": "vectors"}, f"{saw}, z of both signs; set flip if a mirrored picture does not negate x"
    mean_y = scan.mean_below[1]
    saw += f", mean y {mean_y:+.2f} in the lower third (ours: z and the y of floors are negative)"
    frame = ["x", "-y" if mean_y > 0.05 else "y", "-z" if scan.mean_z > 0 else "z"]
    if scan.facing is not None and scan.facing.max() >= FACING_SHARE:
        frame = _facing_frame(scan.facing, scan.mean_below)
        saw += f"; {scan.facing.max():.0%} face the camera in this frame"
    saw += _doubt(scan)
    return {"kind": "normals"} | ({"frame": frame} if frame != ["x", "y", "z"] else {}), saw


_FEW_FILES, _FEW_VECTORS = 3, 1000


def _doubt(scan: FolderScan) -> str:
    """That the frame is a guess: where other orders of the axes fit too, none fits, or there is little to judge by."""
    reasons = []
    if scan.facing is None or scan.facing.max() < FACING_SHARE:
        reasons.append(f"in no order of the axes {FACING_SHARE:.0%} of the normals face the camera, as they should")
    elif (others := int((scan.facing >= max(FACING_SHARE, scan.facing.max() - _AS_WELL)).sum()) - 1) > 0:
        orders = [order for order, share in zip(frames(), scan.facing, strict=True) if share == scan.facing.max()]
        shown = f", such as [{', '.join(orders[1])}]" if len(orders) > 1 else ""
        reasons.append(f"{others} other order{'s' * (others > 1)} of the axes fit{'s' * (others == 1)} as well{shown}")
    if scan.files < _FEW_FILES or scan.vectors < _FEW_VECTORS:
        reasons.append(f"there are {scan.vectors} vectors in {scan.files} files to judge by")
    return f"; the frame is a guess: {' and '.join(reasons)}; compare a picture with its normals" if reasons else ""


_AS_WELL = 0.02
"""Orders of the axes in which that much less of the normals face the camera fit as well."""


def _facing_frame(facing: Array, mean_below: Sequence[float]) -> list[str]:
    """The frame in which most vectors face the camera; where y down and up are as good, floors decide."""
    best = list(frames()[int(facing.argmax())])
    channel = next(i for i, axis in enumerate(best) if axis[-1] == "y")
    flipped = [*best]
    flipped[channel] = "y" if best[channel] == "-y" else "-y"
    mean_y = mean_below[channel] * (-1 if best[channel] == "-y" else 1)
    as_good = facing[[*map(list, frames())].index(flipped)] >= facing.max() - 0.01
    return flipped if mean_y > 0.3 and as_good else best


def _void(scan: FolderScan) -> dict[str, Any]:
    values = [int(value) if value == int(value) and abs(value) < 2**53 else value for value in scan.unmeasured]
    return {"void": values} if values else {}


def _void_words(scan: FolderScan) -> str:
    if not scan.unmeasured:
        return ""
    marks = ", ".join(f"{value:g}" for value in scan.unmeasured)
    why = "which the files name as no data" if scan.nodata else "which stands apart from all other values"
    return f"; void is {marks}, {why}"


_CAP_SHARE, _MARK_SHARE = 0.01, 0.001


def _cap_words(scan: FolderScan) -> str:
    """That a largest value may be where measuring ends: one that many pixels share, or the end of the type."""
    ends = {"uint8": (255,), "uint16": (65534, 65535)}.get(scan.dtype, ())
    usual = 3 / len(scan.values) if scan.values else 0  # of few values each has many pixels
    if scan.at_most < (_MARK_SHARE if scan.most in ends else max(_CAP_SHARE, usual)) or scan.least == scan.most:
        return ""
    return (
        f"; {scan.at_most:.2g} of the pixels hold the largest value, {scan.most:.10g}, which is in the range: where it "
        f"stands for what was not measured, or for all that is farther, write void: [{scan.most:.10g}] and the range "
        f"of the others"
    )


def _range(scan: FolderScan) -> str:
    return f"{scan.least:g} to {scan.most:g}"


def _round_range(low: float, high: float) -> list[float]:
    """A little wider, to three digits, so that it can be read; never empty."""
    if not low < high:
        low, high = low - abs(low) / 10 - (low == 0), high + abs(high) / 10 + (high == 0)

    def outward(value: float, up: bool) -> float:
        if value == 0:
            return 0.0
        step = 10.0 ** (math.floor(math.log10(abs(value))) - 2)
        return float(f"{(math.ceil(value / step - 1e-9) if up else math.floor(value / step + 1e-9)) * step:.6g}")

    return [outward(low, up=False), outward(high, up=True)]
