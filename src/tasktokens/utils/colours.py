"""Colours of classes and of scalar maps, the same in every picture."""

from __future__ import annotations

import colorsys
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tasktokens.utils.legends import Legend

Array = npt.NDArray[Any]


@cache
def class_palette(count: int) -> Array:
    """Well separated colours (count, 3) uint8: hues by the golden ratio, two alternating lightnesses."""
    colours = [
        colorsys.hls_to_rgb((i * 0.618034) % 1, 0.42 + 0.2 * (i % 2), 0.55 + 0.15 * (i % 3)) for i in range(count)
    ]
    palette: Array = np.rint(np.asarray(colours) * 255).astype(np.uint8)
    return palette


def colour_map(unit_HW: Array) -> Array:
    """A scalar map in [0, 1] as (H, W, 3) uint8 in matplotlib's ``magma``."""
    from matplotlib import colormaps

    rgb: Array = colormaps["magma"](np.nan_to_num(unit_HW.clip(0, 1)), bytes=True)[..., :3]
    return rgb


@cache
def colour_table() -> tuple[tuple[int, int, int], ...]:
    """The 256 colours of `colour_map`, from 0 to 1."""
    return tuple((int(r), int(g), int(b)) for r, g, b in colour_map((np.arange(256) + 0.5) / 256))


def confidence_legend() -> Legend:
    """What the colours of a confidence mean."""
    return Legend("confidence", bar=colour_map(np.linspace(0, 1, 64)[None])[0], ends=("0", "1"))
