"""Legends of pictures: colours with names, and bars of colours with the values at their ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

_BAR = 160  # pixels


@dataclass(frozen=True, eq=False)
class Legend:
    """What the colours of one kind of picture mean.

    Attributes:
        title: what is shown, such as a task's name.
        swatches: colours and their names.
        bar: colours (N, 3) uint8 from the low to the high end, or None.
        ends: what the two ends of the bar stand for.
    """

    title: str
    swatches: tuple[tuple[Colour, str], ...] = ()
    bar: npt.NDArray[Any] | None = None
    ends: tuple[str, str] = ("", "")


def draw_legends(legends: Sequence[Legend], width: int, font: ImageFont.FreeTypeFont) -> Image.Image:
    """Legends below each other, each wrapped to ``width`` pixels, on white."""
    line = int(font.size * 1.6)
    pieces = [_place(legend, width, line, font) for legend in legends]
    canvas = Image.new("RGB", (width, sum(lines for _, lines in pieces) * line + line // 2), "white")
    draw, top = ImageDraw.Draw(canvas), line // 4
    for placed, lines in pieces:
        for x, row, what, text in placed:
            y = top + row * line
            if isinstance(what, tuple):
                draw.rectangle((x, y + line // 4, x + line // 2, y + 3 * line // 4), fill=what, outline="#888")
                x += line // 2 + 6
            elif what is not None:
                strip = Image.fromarray(np.ascontiguousarray(what[None])).resize((_BAR, line // 2))
                canvas.paste(strip, (x, y + line // 4))
                x += _BAR + 6
            draw.text((x, y + line // 2), text, "#222", font, "lm")
        top += lines * line
    return canvas


_Placed = tuple[int, int, Colour | npt.NDArray[Any] | None, str]


def _place(legend: Legend, width: int, line: int, font: ImageFont.FreeTypeFont) -> tuple[list[_Placed], int]:
    """Each piece of a legend with its column in pixels and its row, and the number of rows."""
    pieces: list[tuple[Colour | npt.NDArray[Any] | None, str]] = [(None, f"{legend.title}:")]
    if legend.bar is not None:
        pieces += [(None, legend.ends[0]), (legend.bar, legend.ends[1])]
    pieces += legend.swatches
    placed: list[_Placed] = []
    x, row = 8, 0
    for what, text in pieces:
        mark = 0 if what is None else (line // 2 if isinstance(what, tuple) else _BAR) + 6
        extent = mark + int(font.getlength(text)) + 14
        if x > 8 and x + extent > width:
            x, row = 24, row + 1
        placed.append((x, row, what, text))
        x += extent
    return placed, row + 1
