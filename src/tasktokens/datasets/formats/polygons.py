"""Masks as polygons whose corners are corners of pixels, and polygons as masks.

A pixel belongs to a polygon if its centre lies inside by the even-odd rule. An outline that follows the edges of pixels
is then exact, and a hole is joined to its outline by a cut of no width, so that one closed line says both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Array = npt.NDArray[Any]

Point = tuple[int, int]
"""(x, y): a corner of pixels, from (0, 0) to (width, height)."""


def fill_polygon(points_N2: Array, height: int, width: int) -> Array:
    """The pixels (H, W) bool whose centres lie inside a closed line of points (x, y), by the even-odd rule.

    Raises `ValueError` for fewer than three points, or points that are not finite.

    Examples:
        >>> fill_polygon(np.array([[0, 0], [2, 0], [2, 1], [0, 1]]), 2, 2).tolist()
        [[True, True], [False, False]]
    """
    points = np.asarray(points_N2, np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3 or not np.isfinite(points).all():
        raise ValueError("a polygon must have at least three points (x, y) of finite numbers")
    # From above to below, or rounding could have a cut, which is passed there and back, on two sides of a centre.
    following = np.roll(points, -1, axis=0)
    down = (points[:, 1] <= following[:, 1])[:, None]
    (x0, y0), (x1, y1) = np.where(down, points, following).T, np.where(down, following, points).T
    first, last = (np.clip(np.ceil(y - 0.5), 0, height).astype(np.int64) for y in (y0, y1))
    left = int(np.clip(np.floor(points[:, 0].min()), 0, width))
    right = int(np.clip(np.ceil(points[:, 0].max()), left, width))
    top, bottom = int(first.min()), int(last.max())
    count = last - first  # the rows whose centres each side passes
    side = np.repeat(np.arange(len(points)), count)
    rows = first[side] + np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    crossed = x0[side] + (rows + 0.5 - y0[side]) * ((x1 - x0)[side] / (y1 - y0)[side])
    # The first pixel whose centre is not to the left of the crossing.
    columns = np.clip(np.ceil(crossed - 0.5), left, right).astype(np.int64) - left
    row_length = right - left + 1
    places = (rows - top) * row_length + columns
    toggles = np.bincount(places, minlength=(bottom - top) * row_length).reshape(-1, row_length)
    inside = np.zeros((height, width), bool)
    inside[top:bottom, left:right] = np.cumsum(toggles, axis=1)[:, :-1] % 2 == 1
    return inside


def trace_mask(mask_HW: Array) -> list[list[Point]]:
    """Closed lines, one per connected region (pixels that share an edge), that `fill_polygon` turns into the mask.

    Examples:
        >>> trace_mask(np.array([[False, True]]))
        [[(1, 0), (2, 0), (2, 1), (1, 1)]]
    """
    regions, count = ndimage.label(mask_HW)
    boxes = ndimage.find_objects(regions)
    lines = []
    for number in range(1, count + 1):
        rows, columns = boxes[number - 1]
        loops = _loops(regions[rows, columns] == number)
        top, left = rows.start, columns.start
        outline, *holes = sorted(loops, key=lambda loop: min(loop))  # the outline has the corner furthest to the left
        line = _join(outline, holes)
        lines.append([(x + left, y + top) for x, y in line])
    return lines


def _loops(mask_HW: Array) -> list[list[Point]]:
    """The closed lines between the pixels of a region and the others, corners only, the region on the right."""
    padded = np.pad(mask_HW, 1)
    following: dict[Point, list[Point]] = {}

    def add(inside: Array, outside: Array, start: tuple[int, int], step: tuple[int, int]) -> None:
        for y, x in np.argwhere(inside & ~outside).tolist():
            begin = (x + start[0], y + start[1])
            following.setdefault(begin, []).append((begin[0] + step[0], begin[1] + step[1]))

    here = padded[1:-1, 1:-1]
    add(here, padded[:-2, 1:-1], (0, 0), (1, 0))  # upper edges go right
    add(here, padded[1:-1, 2:], (1, 0), (0, 1))  # right edges go down
    add(here, padded[2:, 1:-1], (1, 1), (-1, 0))  # lower edges go left
    add(here, padded[1:-1, :-2], (0, 1), (0, -1))  # left edges go up
    loops = []
    while following:
        begin = next(iter(following))
        loop, at, came = [begin], begin, None
        while True:
            at, came = _next_corner(following, at, came)
            if at == begin:
                break
            loop.append(at)
        loops.append(_corners(loop))
    return loops


def _next_corner(following: dict[Point, list[Point]], at: Point, came: Point | None) -> tuple[Point, Point]:
    """The next corner and the step to it. Where two lines meet, either way gives the same pixels; the one to the right
    follows the same pixel.
    """
    choices = following[at]
    place = 0
    if len(choices) > 1 and came is not None:
        right = (at[0] - came[1], at[1] + came[0])
        place = choices.index(right) if right in choices else 0
    chosen = choices.pop(place)
    if not choices:
        del following[at]
    return chosen, (chosen[0] - at[0], chosen[1] - at[1])


def _corners(loop: Sequence[Point]) -> list[Point]:
    """A closed line without the points on its straight parts."""
    kept = []
    for place, (x, y) in enumerate(loop):
        before, after = loop[place - 1], loop[(place + 1) % len(loop)]
        if (before[0] == x) != (after[0] == x) or (before[1] == y) != (after[1] == y):
            kept.append((x, y))
    return kept


def _join(outline: list[Point], holes: Sequence[list[Point]]) -> list[Point]:
    """One closed line: at its first corner the outline goes to each hole, around it and back the same way."""
    line = list(outline)
    for hole in holes:
        line += [outline[0], *hole, hole[0]]
    return [*line, outline[0]] if holes else line
