"""Logits to a prediction at an image's own size, in bounded memory: `evaluate` measures what `predict` writes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tasktokens.models.layers import upsample
from tasktokens.tasks import Task

_LARGEST = 80_000_000  # logits of one image and task: 320 MB; 40 maps of a large photograph would fill the memory


def full_logits(logits_1Khw: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits (1, K, H, W) at (height, width), or where they would be too many, at the largest size of that shape."""
    shrink = min(1.0, math.sqrt(_LARGEST / (logits_1Khw.shape[1] * size[0] * size[1])))
    return upsample(logits_1Khw.float(), [max(1, round(side * shrink)) for side in size])


def decode_at(task: Task, logits_1Khw: Tensor, size: tuple[int, int]) -> Tensor:
    """The prediction (C, H, W) at (height, width), in the units of the labels."""
    value = task.decode(full_logits(logits_1Khw, size))[0]
    return task.resize(value, torch.ones_like(value[:1], dtype=torch.bool), size)[0]
