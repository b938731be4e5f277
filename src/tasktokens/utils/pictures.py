"""Pictures of a report: strips of maps as one PNG, curves as SVG."""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from tasktokens.utils.atomic import write_atomically
from tasktokens.utils.legends import Legend, draw_legends

COLOURS = ("#7f8da3", "#e0672f", "#2f9e8f", "#8b6fd6", "#c2507f")
"""Colours of runs, legible on white and on black."""

Curve = tuple[str, int, list[int], list[float]]
"""Values over the steps of a stage: the stage's name, its first step, the steps, the values."""

_INK = "#010203"  # stands for the colour of the page's text
_WIDE = 400
_TITLE_LETTERS = 16
_LEGEND_WIDTH = 480


@dataclass(frozen=True)
class Picture:
    """A picture (H, W, 3) uint8 with a caption.

    Attributes:
        caption: above it.
        pixels: (H, W, 3) uint8.
    """

    caption: str
    pixels: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Strip:
    """A row of pictures, such as image | given | discovered | confidence | truth.

    Attributes:
        title: to the left of the row.
        pictures: from left to right.
    """

    title: str
    pictures: tuple[Picture, ...]


LARGEST = 1024
"""Pixels of the longer side of a picture made for looking at; `reduced` shrinks larger ones."""


def reduced(pixels_HW3: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A picture of at most `LARGEST` pixels per side; of a larger one, the nearest pixels, so that colours keep."""
    height, width = pixels_HW3.shape[:2]
    return pixels_HW3 if max(height, width) <= LARGEST else pixels_HW3[nearest_pixels(height, width)]


def nearest_pixels(height: int, width: int) -> tuple[Any, Any]:
    """Index of the rows and columns of a map that `reduced` keeps."""
    share = min(1.0, LARGEST / max(height, width))
    rows, columns = (_nearest(side, max(1, round(side * share))) for side in (height, width))
    return rows[:, None], columns


def _nearest(side: int, kept: int) -> npt.NDArray[np.int32]:
    """Which of ``side`` pixels lie nearest to ``kept`` evenly spaced ones."""
    line = Image.fromarray(np.arange(side, dtype=np.int32)[None])
    places: npt.NDArray[np.int32] = np.asarray(line.resize((kept, 1), Image.Resampling.NEAREST))[0]
    return places


def save_strips(path: Path, strips: Sequence[Strip], scale: int = 2, legends: Sequence[Legend] = ()) -> Path:
    """Write `draw_strips` as one PNG."""
    return write_atomically(path, png(draw_strips(strips, scale, legends)))


def draw_strips(strips: Sequence[Strip], scale: int = 2, legends: Sequence[Legend] = ()) -> Image.Image:
    """Draw strips as one picture: a row per strip, titles at the left, captions on top (of each row where they differ).
    What the colours mean stands below.

    Pictures are enlarged ``scale`` times, pixel by pixel, unless one is wider than 400 pixels. Raises `ValueError`
    if there is no picture.
    """
    pictures = [picture for strip in strips for picture in strip.pictures]
    if not pictures:
        raise ValueError(f"expected at least one strip with a picture, found {len(strips)} strips without")
    factor = scale if max(p.pixels.shape[1] for p in pictures) <= _WIDE else 1
    width = factor * max(p.pixels.shape[1] for p in pictures)
    heights = [factor * max((p.pixels.shape[0] for p in strip.pictures), default=0) for strip in strips]
    font = _font(max(11, min(width // 13, 24)))
    gap = max(4, int(font.size) // 2)
    titles = [_wrap(strip.title, _TITLE_LETTERS) for strip in strips]
    left = max(_text_size(title, font)[0] for title in titles)
    left += 2 * gap if left else gap
    letters = int(width / font.getlength("n"))
    head = max(_text_size(_wrap(p.caption, letters), font)[1] for p in pictures) + gap
    once = same_captions(strips)
    heads = [0 if once and row else head for row in range(len(strips))]
    columns = max(len(strip.pictures) for strip in strips)
    extent = (left + columns * (width + gap), gap + sum(heads) + sum(heights) + len(strips) * gap)
    canvas = Image.new("RGB", extent, "white")
    draw, top = ImageDraw.Draw(canvas), gap
    for strip, title, above, height in zip(strips, titles, heads, heights, strict=True):
        top += above
        draw.text((gap, top + height // 2), title, "#222", font, "lm")
        for column, picture in enumerate(strip.pictures):
            x = left + column * (width + gap)
            if above:
                caption = _wrap(picture.caption, letters)
                draw.text((x + width // 2, top - gap), caption, "#222", font, "md", align="center")
            image = Image.fromarray(picture.pixels)
            image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
            canvas.paste(image, (x + (width - image.width) // 2, top + (height - image.height) // 2))
        top += height + gap
    if legends:
        below = draw_legends(legends, max(canvas.width, _LEGEND_WIDTH), _font(13))
        whole = Image.new("RGB", (max(canvas.width, below.width), canvas.height + below.height), "white")
        whole.paste(canvas, (0, 0))
        whole.paste(below, (0, canvas.height))
        canvas = whole
    return canvas


def same_captions(strips: Sequence[Strip]) -> bool:
    """Whether the captions of one strip say it for all."""
    return len({tuple(picture.caption for picture in strip.pictures) for strip in strips}) <= 1


def chart(name: str, runs: Sequence[Sequence[Curve]], share: bool = False) -> str:
    """Curves of each run as SVG for a page: thin as logged, thick smoothed; a dotted line where a later stage begins.

    ``name`` differs from chart to chart of a page; ``share`` marks values in [0, 1], shown in percent.
    """
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    def draw(axes: Any) -> None:
        for run, curves in enumerate(runs):
            for curve in curves:
                draw_curve(axes, curve, COLOURS[run % len(COLOURS)])
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.set_xlabel("step")
        if share:
            axes.set_ylim(0, 1.02)
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))

    return svg(name, draw, (3.4, 2.2))


def svg(name: str, draw: Callable[[Any], None], size: tuple[float, float]) -> str:
    """A figure as SVG for a page, whose text and lines have the colour of the page's text.

    Args:
        name: differs from figure to figure of a page.
        draw: into axes of matplotlib.
        size: width and height in inches.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # Text stays text, in the page's font; the salt makes ids differ between the figures of a page.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 9.5, "text.color": _INK}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_INK)
        axes.tick_params(which="both", colors=_INK, length=2.5)
        axes.xaxis.label.set_color(_INK)
        axes.grid(axis="y", color=_INK, alpha=0.12, linewidth=0.6)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    _, start, text = buffer.getvalue().partition("<svg")
    unwanted = r'(?<=<g) id="[^"]*"| xmlns[:a-z]*="[^"]*"|<style.*?</style>'
    return re.sub(unwanted, "", start + text, flags=re.DOTALL).replace(_INK, "currentColor")


def draw_curve(axes: Any, curve: Curve, colour: str, label: str | None = None) -> None:
    """Into axes of matplotlib: thin as logged, thick smoothed; a dotted line where a later stage begins."""
    stage, start, steps, values = curve
    # Markers, or a value between two gaps would not be seen.
    axes.plot(steps, values, color=colour, linewidth=0.7, alpha=0.35, marker="." if np.isnan(values).any() else None)
    axes.plot(steps, _smooth(values), color=colour, linewidth=1.8, label=label)
    if start:
        axes.axvline(start, color=colour, linewidth=0.9, linestyle=":")
        top = axes.get_xaxis_transform()
        axes.text(start, 1.02, stage, color=colour, size=8.5, transform=top, parse_math=False)


def hidden(shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Grey diagonal stripes (H, W, 3): no label was given."""
    rows, columns = np.indices(shape[:2])
    stripes = np.where((rows + columns) // 8 % 2 == 0, 205, 225).astype(np.uint8)
    return np.repeat(stripes[..., None], 3, axis=-1)


def _smooth(values: Sequence[float]) -> list[float]:
    """Centred running mean over a tenth of the values; the window shrinks at both ends, and a gap stays one."""
    means = []
    for i in range(len(values)):
        reach = min(len(values) // 20, i, len(values) - 1 - i)
        window = np.asarray(values[i - reach : i + reach + 1])
        means.append(math.nan if math.isnan(values[i]) else float(np.mean(window[~np.isnan(window)])))
    return means


def png(image: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=4)  # `optimize` takes nine times as long and saves 6 %
    return buffer.getvalue()


def _wrap(text: str, letters: int) -> str:
    return "\n".join(textwrap.wrap(text, max(4, letters)))


def _text_size(text: str, font: ImageFont.FreeTypeFont) -> tuple[int, int]:
    """Width and height in pixels of text that may have several lines."""
    left, top, right, bottom = ImageDraw.Draw(Image.new("L", (1, 1))).multiline_textbbox((0, 0), text, font)
    return int(right - min(left, 0)), int(bottom - min(top, 0))


def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along, for its Δ, → and accents; without matplotlib Pillow's own."""
    try:
        from matplotlib import get_data_path
    except ModuleNotFoundError:  # where exported models are used
        return cast(ImageFont.FreeTypeFont, ImageFont.load_default(size))
    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)
