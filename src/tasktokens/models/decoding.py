"""Logits to a prediction at an image's own size, in bounded memory: `evaluate` measures what `predict` writes.

Up to four times the head's size per side, which is that of the images in training, logits are enlarged and then
decoded. Beyond it a photograph would have billions of logits. Of what is continuous (depth, normals, probabilities) the
values at that size are enlarged instead: they differ by what bends between two of its pixels. Everything else is
decoded at full size: the class of every pixel is that of its own logits. All of it goes in bands of rows, which
`decode_bands` gives one by one: a photograph's values and confidences fill hundreds of MB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from tasktokens.models.layers import upsample
from tasktokens.tasks import Task

_FINE = 4
"""Pixels per head pixel and side, up to which logits are enlarged rather than values."""

_STRIP = {"cpu": 500_000, "cuda": 50_000_000}
"""Numbers that are enlarged or decoded at a time, by device: 2 MB stay in a processor's cache, 200 MB keep a GPU busy.
"""

Maps = tuple[Tensor, ...]
"""Maps (1, C, H, W), the prediction first."""
Decode = Callable[[Tensor], Maps]


class Band(NamedTuple):
    """Some rows of a prediction: from which one on, its values (C, n, W) and confidences (n, W) in [0, 1]."""

    top: int
    value_CnW: Tensor
    confidence_nW: Tensor


def decode_at(task: Task, logits_1Khw: Tensor, size: tuple[int, int]) -> Tensor:
    """The prediction (C, H, W) at (height, width), in the units of the labels."""
    (value,) = _joined(_bands(task, lambda logits: (task.decode(logits),), logits_1Khw.float(), size), size)
    return value[0]


def decode_with_confidence_at(task: Task, logits_1Khw: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """`decode_at`, and the confidence (H, W) in [0, 1]."""
    value, confidence = _joined(_bands(task, task.decode_with_confidence, _last(logits_1Khw), size), size)
    return value[0], confidence[0, 0]


def decode_bands(task: Task, logits_1Khw: Tensor, size: tuple[int, int]) -> Iterator[Band]:
    """What `decode_with_confidence_at` gives at (height, width), from top to bottom."""
    for top, (value, confidence) in _bands(task, task.decode_with_confidence, _last(logits_1Khw), size):
        yield Band(top, value[0], confidence[0, 0])


def _last(logits_1Khw: Tensor) -> Tensor:
    """With the channels last in memory, where a CPU enlarges them five times as fast."""
    logits = logits_1Khw.float()
    return logits if logits.is_cuda else logits.contiguous(memory_format=torch.channels_last)


def _bands(task: Task, decode: Decode, logits: Tensor, size: tuple[int, int]) -> Iterator[tuple[int, Maps]]:
    height, width = (min(side, _FINE * coarse) for side, coarse in zip(size, logits.shape[-2:], strict=True))
    fine = height, width
    if fine == size:
        enlarged = upsample(logits, size)
        for top, bottom in _rows(size, logits):
            yield top, decode(enlarged[:, :, top:bottom])
        return
    if not task.continuous:
        for top, bottom in _rows(size, logits):
            yield top, decode(_enlarged_rows(logits, size, top, bottom))
        return
    value, *others = _joined(_bands(task, decode, logits, fine), fine)
    for top, bottom in _rows(size, value):
        lines = _between(value, size, top, bottom)
        enlarged = task.enlarge(lines[0], (bottom - top, size[1]))[None]
        yield top, (enlarged, *(_enlarged_rows(other, size, top, bottom).clamp_(0, 1) for other in others))


def _rows(size: tuple[int, int], map_1Chw: Tensor) -> Iterator[tuple[int, int]]:
    """From one row to another, so that a band of the map at (height, width) is no larger than `_STRIP`."""
    most = _STRIP.get(map_1Chw.device.type, _STRIP["cpu"])
    count = max(1, most // (map_1Chw.shape[1] * size[1]))
    for top in range(0, size[0], count):
        yield top, min(top + count, size[0])


def _joined(bands: Iterator[tuple[int, Maps]], size: tuple[int, int]) -> Maps:
    """Whole maps at (height, width)."""
    whole: Maps = ()
    for top, maps in bands:
        if not whole:
            whole = tuple(band.new_empty((*band.shape[:2], *size)) for band in maps)
        for full, band in zip(whole, maps, strict=True):
            full[:, :, top : top + band.shape[2]] = band
    return whole


def _enlarged_rows(map_1Chw: Tensor, size: tuple[int, int], top: int, bottom: int) -> Tensor:
    """Rows ``top`` to ``bottom`` of what `upsample` makes of a map at (height, width)."""
    return upsample(_between(map_1Chw, size, top, bottom), (bottom - top, size[1]))


def _between(map_1Chw: Tensor, size: tuple[int, int], top: int, bottom: int) -> Tensor:
    """Such rows, of the width that the map has."""
    height = map_1Chw.shape[2]
    if height == size[0]:
        return map_1Chw[:, :, top:bottom]
    row = torch.arange(top, bottom, device=map_1Chw.device, dtype=torch.float32)
    source = ((row + 0.5) * (height / size[0]) - 0.5).clamp_(0, height - 1)
    above = source.long()
    below = (above + 1).clamp_(max=height - 1)
    return torch.lerp(map_1Chw[:, :, above], map_1Chw[:, :, below], (source - above)[:, None])
