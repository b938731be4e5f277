"""To which size a network sees an image, and bilinear enlargement in NumPy; without torch, for exported models too."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Size = tuple[int, int]
"""(height, width) in pixels."""


def working_size(image: Size, trained: Size) -> Size:
    """What an image of any size is resized to for a network, keeping its shape.

    The training images' own size where the shape is theirs to 1 %; else about their area, in multiples of 32 (the
    coarsest stride).

    Examples:
        >>> working_size((480, 640), (288, 384)), working_size((500, 500), (288, 384))
        ((288, 384), (320, 320))
    """
    if abs(math.log(image[0] * trained[1] / (image[1] * trained[0]))) < 0.01:
        return trained
    factor = math.sqrt(trained[0] * trained[1] / (image[0] * image[1]))
    height, width = (max(32, round(side * factor / 32) * 32) for side in image)
    return height, width


def rows_between(map_CHW: Array, height: int, top: int, bottom: int) -> Array:
    """Rows ``top`` to ``bottom`` of a map that is resized to ``height``: (C, bottom - top, W), of the same width."""
    before = map_CHW.shape[1]
    if before == height:
        return map_CHW[:, top:bottom]
    above, below, share = _places(before, height, np.arange(top, bottom))
    upper = map_CHW[:, above]
    resized: Array = upper + share[:, None] * (map_CHW[:, below] - upper)
    return resized


def columns_between(map_CHW: Array, width: int) -> Array:
    """A map that is resized to ``width``: (C, H, width)."""
    before = map_CHW.shape[2]
    if before == width:
        return map_CHW
    left, right, share = _places(before, width, np.arange(width))
    weights = np.zeros((before, width), np.float32)
    np.add.at(weights, (left, np.arange(width)), 1 - share)
    np.add.at(weights, (right, np.arange(width)), share)
    resized: Array = map_CHW @ weights
    return resized


def _places(before: int, after: int, index: Array) -> tuple[Array, Array, Array]:
    """For positions of the resized line the two between which each lies, and how far it is from the first."""
    source = ((index + np.float32(0.5)) * np.float32(before / after) - np.float32(0.5)).clip(0, before - 1)
    first = source.astype(np.int64)
    return first, np.minimum(first + 1, before - 1), (source - first).astype(np.float32)
