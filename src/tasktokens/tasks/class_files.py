"""Class ids and colours in label files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tasktokens.errors import LabelError
from tasktokens.tasks.base import Array
from tasktokens.tasks.stored import StoredLabel
from tasktokens.utils.legends import Colour


def classes_of_colours(
    stored: StoredLabel, colours: Sequence[Colour], void_colours: Sequence[Colour]
) -> tuple[Array, Array]:
    """Class ids (1, H, W) uint8 of a file whose classes are coded by colour, and valid (H, W).

    Raises `LabelError` for a colour that is neither a class nor void.
    """
    packed, valid = _pack(stored.colours()), stored.valid
    classes = dict(zip(_pack(np.array(colours)).tolist(), range(len(colours)), strict=True))
    void = dict.fromkeys(_pack(np.array(void_colours).reshape(-1, 3)).tolist(), -1)
    found = look_up(packed, classes | void)
    wrong, counts = np.unique(packed[valid & (found == -2)], return_counts=True)
    if wrong.size:
        most = int(wrong[counts.argmax()])
        raise LabelError(
            f"label file {stored.where} has the colour {[most >> 16, most >> 8 & 255, most & 255]} "
            f"on {counts.max()} pixels ({wrong.size} unknown colours in all); add it to 'colours' or 'void_colours'"
        )
    valid = valid & (found >= 0)
    return np.where(valid, found, 0).astype(np.uint8)[None], valid


def whole_numbers(ids: Array, valid: Array, where: str) -> tuple[Array, Array]:
    """Ids that were stored as floats, as integers; NaN is void. Raises `LabelError` for fractions and infinity."""
    stored_type, valid = ids.dtype, valid & ~np.isnan(ids)
    ids = ids.astype(np.promote_types(ids.dtype, np.float32), copy=False)  # half floats end at 65504
    wrong = valid & ~(np.isfinite(ids) & (ids == np.rint(ids)) & (np.abs(ids) < 2**31))
    if wrong.any():
        raise LabelError(
            f"label file {where} must hold whole class ids, found {ids[wrong][0]:g} (and {int(wrong.sum()) - 1} more "
            f"such pixels, {stored_type}): was it resized with interpolation, or is it an amount (kind regression)?"
        )
    return np.where(valid, ids, 0).astype(np.int64), valid


def _pack(colours: Array) -> Array:
    """Colours (..., 3) as one number each."""
    wide = colours.astype(np.int32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def look_up(values: Array, table: Mapping[int, int]) -> Array:
    """What a table has for each value, int64; -2 where it has nothing."""
    keys = np.array(sorted(table))
    place = np.searchsorted(keys, values).clip(max=len(keys) - 1)
    return np.where(keys[place] == values, np.array([table[key] for key in keys.tolist()])[place], -2)
