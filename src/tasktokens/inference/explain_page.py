"""The picture that `tasktokens explain` writes: a row with the image and tables, then a row of maps per task."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasktokens.tasks.base import Array

_WIDE, _HIGH, _TABLE = 1.75, 2.6, 1.7  # the largest a panel gets, and a table, in inches
_NARROWEST = 1.45  # a column, for its texts
_TEXT, _GAP, _LEFT = 0.44, 0.12, 0.5  # room for a panel's title and note, between columns, for the names of the rows
_SHARPEST = 480  # pixels per side that a panel shows; larger maps are subsampled first
_DPI = 130
_LEAST_RANGE = 0.2
_LEGEND = (
    "Gates, token maps and features go from dark (least) to yellow (most) within each map, over a range of at least "
    f"{_LEAST_RANGE}. Confidences go from 0 (dark) to 1 (yellow). Affinity: how much the task of the row takes of the "
    "gates of the tasks of the columns. Token maps: those of the tokens that win most pixels."
)


@dataclass(frozen=True)
class Panel:
    """A picture (H, W, 3) uint8, or a map (H, W) in colours from the least to the most, or between ``limits``.

    ``note`` writes the mean and the range below it.

    Attributes:
        title: above the picture.
        pixels: (H, W, 3) uint8 or (H, W) float.
        note: whether the mean and the range are written below.
        limits: values of the first and the last colour; None: the extremes.
    """

    title: str
    pixels: Array
    note: bool = False
    limits: tuple[float, float] | None = None


@dataclass(frozen=True)
class Table:
    """A square matrix of shares with the same names for rows and columns.

    Attributes:
        title: above the matrix.
        names: N, of rows and columns.
        values: (N, N) in [0, 1].
    """

    title: str
    names: list[str]
    values: Array


def draw(title: str, image: Panel, tables: Sequence[Table], rows: Mapping[str, Sequence[Panel | None]]) -> bytes:
    """The PNG: the image and the tables, then each task's row of panels; ``None`` leaves a place empty.

    A panel has the shape of the image, whatever the size of its map.
    """
    from matplotlib.figure import Figure

    wide, high = _panel_size(image.pixels.shape[0], image.pixels.shape[1])
    columns = max(len(row) for row in rows.values())
    first, step = max(high, _TABLE if tables else 0), max(wide, _NARROWEST) + _GAP
    width = _LEFT + max(columns * step, step + len(tables) * (_TABLE + 0.75), 6.5)
    legend = textwrap.wrap(_LEGEND, int((width - _LEFT) / 0.058))
    height = 0.4 + first + _TEXT + len(rows) * (high + _TEXT) + 0.3 + 0.13 * len(legend)
    figure = Figure(figsize=(width, height), dpi=_DPI)

    def place(x: float, top: float, w: float, h: float) -> Any:
        return figure.add_axes((x / width, 1 - (top + h) / height, w / width, h / height))

    figure.text(_LEFT / width, 1 - 0.16 / height, title, size=10, weight="bold", va="center", parse_math=False)
    top = 0.4 + 0.16
    _panel(place(_LEFT, top, wide, high), image)
    for number, table in enumerate(tables):
        _table(place(_LEFT + step + 0.65 + number * (_TABLE + 0.75), top, _TABLE, _TABLE), table)
    top += first + _TEXT
    for name, row in rows.items():
        figure.text(
            0.2 / width, 1 - (top + high / 2) / height, name, size=10, weight="bold", rotation=90, ha="center",
            va="center", parse_math=False,
        )  # fmt: skip
        for column, panel in enumerate(row):
            if panel is not None:
                _panel(place(_LEFT + column * step, top, wide, high), panel)
        top += high + _TEXT
    figure.text(_LEFT / width, 0.12 / height, "\n".join(legend), size=7.5, color="#444", va="bottom")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def _panel_size(height: int, width: int) -> tuple[float, float]:
    """Width and height in inches of the panels of an image; those of very long ones are stretched to be seen."""
    shape = min(max(height / width, 0.3), 3.0)
    wide = min(_WIDE, _HIGH / shape)
    return wide, wide * shape


def _panel(axes: Any, panel: Panel) -> None:
    rows, columns = panel.pixels.shape[:2]
    shown = panel.pixels[:: -(-rows // _SHARPEST), :: -(-columns // _SHARPEST)]
    low, high = panel.limits or _stretched(panel.pixels)
    axes.imshow(shown, cmap="viridis", vmin=low, vmax=high, aspect="auto", interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(_short(panel.title), size=8, pad=3, parse_math=False)
    if panel.note:
        values = panel.pixels
        text = f"mean {_number(values.mean())} ({_number(values.min())} to {_number(values.max())})"
        axes.text(0.5, -0.02, text, size=6.5, color="#444", ha="center", va="top", transform=axes.transAxes)


def _stretched(values_HW: Array) -> tuple[float, float]:
    """From the least to the largest value, with a minimal range, so that rounding errors show no pattern."""
    low, high = float(values_HW.min()), float(values_HW.max())
    return min(low, high - _LEAST_RANGE), high


def _table(axes: Any, table: Table) -> None:
    axes.imshow(table.values, cmap="Blues", vmin=0, vmax=1)
    size = 8 if len(table.names) < 5 else 6
    for (row, column), value in np.ndenumerate(table.values):
        colour = "white" if value > 0.5 else "black"
        axes.text(column, row, f"{value:.2f}", size=size, color=colour, ha="center", va="center")
    names = [_short(name, 9) for name in table.names]
    places = range(len(names))
    axes.set_xticks(places, names, size=6.5, parse_math=False, rotation=0 if len(names) < 4 else 30)
    axes.set_yticks(places, names, size=6.5, parse_math=False)
    axes.tick_params(length=0)
    axes.set_title(table.title, size=8, pad=3)


def _short(text: str, most: int = 22) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 100 else f"{value:.3g}"
