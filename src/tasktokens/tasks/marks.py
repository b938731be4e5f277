"""Stored numbers that probably mean "no measurement" but are not declared as void."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tasktokens.tasks.examine import Sums, Suspicion
from tasktokens.tasks.stored import StoredLabel
from tasktokens.tasks.void import is_void

Array = npt.NDArray[Any]


class Mark(NamedTuple):
    """A stored number that usually means "no measurement", and whether it is the largest of a type.

    Attributes:
        value: the stored number.
        reason: why it is usual, for messages.
        largest: whether it is the largest of its type.
    """

    value: float
    reason: str
    largest: bool = False


_CUSTOM = 'a customary mark of "no measurement"'
_CONVERTED = "what becomes of 65535 when 16-bit files are converted"
MARKS = (
    *(Mark(np.iinfo(kind).max, f"the largest number of {np.dtype(kind)}", largest=True)
      for kind in (np.uint8, np.int16, np.uint16, np.int32, np.uint32)),
    *(Mark(np.iinfo(kind).min, f"the smallest number of {np.dtype(kind)}") for kind in (np.int16, np.int32)),
    Mark(65504, "the largest number of float16", largest=True),
    *(Mark(value, _CUSTOM) for value in (9999, 99999, 999999, -999, -9999, -99999)),
    *(Mark(value, _CONVERTED) for value in (6553.5, 655.35, 65.535, 65535 / 256, 65535 / 512, 65535 / 5000)),
    *(Mark(sign * float(np.finfo(kind).max), f"the largest number of {np.dtype(kind)}, or minus it", largest=True)
      for kind in (np.float32, np.float64) for sign in (1, -1)),
    *(Mark(sign * value, _CUSTOM) for value in (9.969209968386869e36, 1e38, 1e30, 1e20, 1e10) for sign in (1, -1)),
    Mark(1e10, f"{_CUSTOM}: 1e10 and more", largest=True),
    Mark(-1e10, f"{_CUSTOM}: -1e10 and less"),
)  # fmt: skip
"""The last two stand for all numbers beyond them."""


def mark_sums(
    stored: StoredLabel, void: Sequence[float], low: float, high: float, scale: float, offset: float
) -> dict[str, Array]:
    """Pixels of a label file that hold each of `MARKS`, apart by whether it lies in the range [low, high].

    ``lone`` counts pixels of another number that is the largest of its file, and far above the range or all
    others. Numbers in ``void`` do not count; integers mean ``(v + offset) * scale``.
    """
    plane = stored.numbers(lossless=False)
    floats = plane.dtype.kind == "f"
    plane = plane[stored.valid & ~is_void(plane, void) & np.isfinite(plane)]
    counts = np.zeros((2, len(MARKS)), np.int64)
    lone = 0
    if plane.size and plane.dtype != bool:
        least, most = float(plane.min()), float(plane.max())
        for index, mark in enumerate(MARKS):
            count = _mark_count(plane, mark, least, most)
            value = mark.value if floats else (mark.value + offset) * scale
            counts[int(low * 0.999 <= value <= high * 1.001), index] = count
        top = most if floats else (most + offset) * scale
        far_above = top > max(1.5 * high, high + (high - low) / 2)
        if not counts.any() and (far_above or lone_extreme(plane) is not None):
            lone = int((plane == plane.max()).sum())
    return {"marks outside": counts[0], "marks within": counts[1], "lone": np.array([lone, plane.size])}


def _mark_count(plane: Array, mark: Mark, least: float, most: float) -> int:
    if mark is MARKS[-2]:
        return int((plane >= 1e10).sum()) if most >= 1e10 else 0
    if mark is MARKS[-1]:
        return int((plane <= -1e10).sum()) if least <= -1e10 else 0
    if not least - 0.001 * abs(least) - 1 <= mark.value <= most * 1.001 + 1 or (
        mark.value == 255 and plane.dtype != np.uint8
    ):
        return 0
    return int(is_void(plane, (mark.value,)).sum())


def likely_marks(plane: Array) -> tuple[float, ...]:
    """Marks that stand apart from the other numbers of files of an unknown kind, on a thousandth of the pixels or more.

    Args:
        plane: stored numbers of any shape, without those that are transparent.
    """
    plane = plane[np.isfinite(plane)]
    if not plane.size or plane.dtype in (np.uint8, bool):
        return ()  # of 8 bits 255 is white, or the usual void id
    least, most = float(plane.min()), float(plane.max())
    found: list[float] = []
    for mark in MARKS:
        count = _mark_count(plane, mark, least, most)
        with np.errstate(over="ignore"):  # float16 ends at 65504
            # Not by abs(), which is negative for the smallest number of a type of integers.
            near = plane >= 0.9 * mark.value if mark.value > 0 else plane <= 0.9 * mark.value
        named = mark in MARKS[-2:] and any(value / mark.value >= 1 for value in found)  # by a mark of its own
        if count >= 0.001 * plane.size and count == near.sum() and not named and not _whole_in(plane.dtype, mark):
            found.append(most if mark is MARKS[-2] else least if mark is MARKS[-1] else mark.value)
    return tuple(found)


def _whole_in(dtype: np.dtype[Any], mark: Mark) -> bool:
    """Whether half floats round a fraction to a whole number, such as 127.998 to 128, which then says nothing."""
    return dtype == np.float16 and mark.reason == _CONVERTED and float(np.float16(mark.value)).is_integer()


def lone_extreme(plane: Array) -> float | None:
    """The largest number of a file of measurements that stands apart from all others; None where there is none.

    It is on a thousandth of the pixels or more, and at least twice the next of `MANY` smaller numbers above 0.

    >>> lone_extreme(np.array([*range(1, 65), *[1000] * 9], np.uint16))
    1000.0
    """
    if plane.size < MANY or plane.dtype == bool or plane.dtype.itemsize == 1:
        return None
    most = plane.max()
    rest = plane[plane < most]
    count = plane.size - rest.size
    if not rest.size or count < max(2, 0.001 * plane.size) or not 0 < 2 * float(rest.max()) <= float(most):
        return None
    return float(most) if np.unique(rest).size >= MANY else None


MANY = 32
"""Files with fewer different numbers may hold ids or steps, of which one may stand apart."""


def judge_marks(sums: Sums) -> list[Suspicion]:
    """What the sums of `mark_sums` over a task's labels suggest.

    An error where marks outside the range are on a thousandth of the pixels or more, for nobody measured them. A
    warning where they are fewer, where a hundredth holds the largest number of a type inside the range, or where a
    thousandth holds another lone number.
    """
    if "lone" not in sums:
        return []
    lone, pixels = (int(n) for n in sums["lone"])
    outside = [(int(n), mark) for n, mark in zip(sums["marks outside"], MARKS, strict=True) if n]
    within = [(int(n), mark) for n, mark in zip(sums["marks within"], MARKS, strict=True)
              if mark.largest and n >= 0.01 * pixels > 0]  # fmt: skip
    count, mark = max(outside or within, default=(0, MARKS[0]), key=lambda each: each[0])
    if count:
        named = f"void: [{_exact(mark.value)}]" if mark not in MARKS[-2:] else "the number under void"
        place = "outside the range" if outside else "at the end of what the type holds"
        text = (
            f"{_percent(count / pixels)} of the pixels hold {mark.value:.10g}, {mark.reason}, {place}: probably "
            f'"no measurement"; then declare {named}'
        )
        return [Suspicion("error" if outside and count >= 0.001 * pixels else "warning", "saturated", text)]
    if lone >= 0.001 * pixels > 0:
        text = (
            f"{_percent(lone / pixels)} of the pixels hold one and the same number, the largest of their file and far "
            f'above the range: probably "no measurement"; then declare it under void'
        )
        return [Suspicion("warning", "saturated", text)]
    return []


def _exact(number: float) -> str:
    """The number in few digits where they say it all."""
    short = f"{number:.10g}"
    return short if float(short) == number else repr(float(number))


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else "less than 0.1 %"
