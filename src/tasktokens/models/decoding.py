"""Logits to a prediction at an image's own size, in bounded memory: `evaluate` measures what `predict` writes.

Up to four times the head's size per side, which is that of the images in training, logits are enlarged and then
decoded. Beyond it a photograph would have billions of logits. Of what is continuous (depth, normals, probabilities) the
values at that size are enlarged instead: they differ by what bends between two of its pixels. Everything else is
decoded at full size in strips: the class of every pixel is that of its own logits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tasktokens.models.layers import upsample
from tasktokens.tasks import Task

_FINE = 4
"""Pixels per head pixel and side, up to which logits are enlarged rather than values."""

_STRIP = {"cpu": 500_000, "cuda": 50_000_000}
"""Logits that are decoded at a time, by device: 2 MB stay in a processor's cache, 200 MB keep a GPU busy."""

Maps = tuple[Tensor, ...]
"""Maps (1, C, H, W), the prediction first."""


def decode_at(task: Task, logits_1Khw: Tensor, size: tuple[int, int]) -> Tensor:
    """The prediction (C, H, W) at (height, width), in the units of the labels."""
    (value,) = _decode(task, lambda logits: (task.decode(logits),), logits_1Khw, size)
    return value[0]


def decode_with_confidence_at(task: Task, logits_1Khw: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """`decode_at`, and the confidence (H, W) in [0, 1]."""
    value, confidence = _decode(task, task.decode_with_confidence, logits_1Khw, size)
    return value[0], confidence[0, 0]


def _decode(task: Task, decode: Callable[[Tensor], Maps], logits_1Khw: Tensor, size: tuple[int, int]) -> Maps:
    logits = logits_1Khw.float()
    height, width = (min(side, _FINE * coarse) for side, coarse in zip(size, logits.shape[-2:], strict=True))
    fine = height, width
    if fine != size and not task.continuous:
        return _in_strips(decode, lambda top, bottom: _enlarged_rows(logits, size, top, bottom), size)
    enlarged = upsample(logits, fine)
    value, *others = _in_strips(decode, lambda top, bottom: enlarged[:, :, top:bottom], fine)
    if fine == size:
        return value, *others
    return task.enlarge(value[0], size)[None], *(upsample(other, size).clamp_(0, 1) for other in others)


def _in_strips(decode: Callable[[Tensor], Maps], rows: Callable[[int, int], Tensor], size: tuple[int, int]) -> Maps:
    """Maps at (height, width) of logits (1, K, n, width) that ``rows`` gives from one row to another."""
    first = rows(0, 1)
    count = max(1, _STRIP.get(first.device.type, _STRIP["cpu"]) // first.numel())
    whole: Maps = ()
    for top in range(0, size[0], count):
        bottom = min(top + count, size[0])
        maps = decode(rows(top, bottom))
        if not whole:
            whole = tuple(strip.new_empty((*strip.shape[:2], *size)) for strip in maps)
        for full, strip in zip(whole, maps, strict=True):
            full[:, :, top:bottom] = strip
    return whole


def _enlarged_rows(logits_1Khw: Tensor, size: tuple[int, int], top: int, bottom: int) -> Tensor:
    """Rows ``top`` to ``bottom`` of what `upsample` makes of the logits at (height, width)."""
    height = logits_1Khw.shape[2]
    row = torch.arange(top, bottom, device=logits_1Khw.device, dtype=torch.float32)
    source = ((row + 0.5) * (height / size[0]) - 0.5).clamp_(0, height - 1)
    above = source.long()
    below = (above + 1).clamp_(max=height - 1)
    lines = torch.lerp(logits_1Khw[:, :, above], logits_1Khw[:, :, below], (source - above)[:, None])
    return upsample(lines, (bottom - top, size[1]))
