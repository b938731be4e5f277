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


def resize_pixels(image_HWC: Array, size: Size) -> Array:
    """Stretch a uint8 image (H, W, C) to (height, width): antialiased bilinear, as `torch.nn.functional.interpolate`.

    In integers, first along rows and then along columns, with weights of 16 bits: the same bits as torch's, so that an
    exported model sees what the network saw. Pillow's weights have 22 bits, and its pixels differ by a level.
    """
    for axis in (1, 0):
        if image_HWC.shape[axis] != size[axis]:
            image_HWC = _stretched(image_HWC, axis, size[axis])
    return image_HWC


def _stretched(image: Array, axis: int, after: int) -> Array:
    first, weights, bits = _antialiasing(image.shape[axis], after)
    last = image.shape[axis] - 1
    shape = [1, 1, 1]
    shape[axis] = after
    total = np.int32(1 << (bits - 1))
    for tap in range(weights.shape[1]):
        pixels = image.take(np.minimum(first + tap, last), axis=axis)
        total = total + pixels * weights[:, tap].reshape(shape)
    levels: Array = (total >> bits).clip(0, 255).astype(np.uint8)
    return levels


def _antialiasing(before: int, after: int) -> tuple[Array, Array, int]:
    """For each new position the first old one that it reads, int32 weights (after, taps), and their bits."""
    scale = before / after
    support = max(scale, 1.0)
    centre = scale * (np.arange(after) + 0.5)
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    count = np.minimum((centre + support + 0.5).astype(np.int64), before) - first
    tap = np.arange(count.max())
    weights = (1 - np.abs((tap + first[:, None] - centre[:, None] + 0.5) / support)).clip(0)
    weights = np.where(tap < count[:, None], weights, 0)
    weights /= weights.sum(axis=1, keepdims=True)
    bits = 0
    while bits < 22 and int(0.5 + weights.max() * (1 << (bits + 1))) < 1 << 15:
        bits += 1
    return first, (weights * (1 << bits) + 0.5).astype(np.int32), bits


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
