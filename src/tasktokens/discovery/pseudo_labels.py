"""Label discovery: a teacher's predictions and features supervise the pairs of image and task that have no label.

Sources: HTT (arXiv 2411.18823, section 3.3) with the defects of its release fixed: targets stay soft, the confident
pixels are kept rather than the others, padding is never discovered, and given labels are never touched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from tasktokens.models import TaskOutput
from tasktokens.models.layers import upsample
from tasktokens.tasks import Task

VIEW_ZOOM = 1.25
"""Zoom of the second view relative to the image, in training and in prediction."""


@dataclass(frozen=True)
class Discovered:
    """Pseudo-labels of one task for n images.

    Attributes:
        value: (n, C, H, W) in the units of the task's labels.
        confidence: (n, 1, H, W) in [0, 1].
        valid: (n, 1, H, W) bool: confident enough, and no padding.
    """

    value: Tensor
    confidence: Tensor
    valid: Tensor


class ThresholdRule(Protocol):
    """Says which confidence each predicted pixel must exceed."""

    def of(self, task: Task, prediction_BCHW: Tensor) -> Tensor:
        """(B, 1, H, W) in [0, 1]."""


@torch.no_grad()
def forward_views(
    tasks: Mapping[str, Task],
    teacher: nn.Module,
    image_B3HW: Tensor,
    views: int = 1,
    zoom: float = 1.0,
    mirror: bool = True,
) -> dict[str, TaskOutput]:
    """The teacher's outputs for a batch; with two views, the mean over the images and their mirror images.

    The mean of two views is better than either, more so if they differ in size, and less confident where they disagree.
    Where the features of a mirror image mean other labels (`Task.mirror_changes_meaning`), those of the image are kept.

    Args:
        zoom: by how much the mirror images are enlarged first.
        mirror: False for a teacher that was trained without mirroring: the second view is only enlarged, and omitted
            without a zoom.
    """
    outputs: dict[str, TaskOutput] = teacher(image_B3HW)
    if views == 1 or (not mirror and zoom == 1):
        return outputs

    def turned(x: Tensor) -> Tensor:
        return x.flip(-1) if mirror else x

    larger = enlarge(turned(image_B3HW), zoom)
    magnified = math.sqrt(larger[0, 0].numel() / image_B3HW[0, 0].numel())
    second: dict[str, TaskOutput] = teacher(larger)
    means = {}
    for name, output in outputs.items():
        task, other, size = tasks[name], second[name], output.logits.shape[-2:]
        logits = task.flip_logits(other.logits) if mirror else other.logits
        back = upsample(task.zoom_logits(logits, magnified), size)
        feature = (output.feature + upsample(turned(other.feature), output.feature.shape[-2:])) / 2
        means[name] = TaskOutput(
            logits=(output.logits + back) / 2,
            feature=output.feature if mirror and task.mirror_changes_meaning else feature,
            confidence=None
            if output.confidence is None
            else (output.confidence + upsample(turned(other.confidence), size)) / 2,  # type: ignore[arg-type]
            token=None if output.token is None else (output.token + other.token) / 2,  # type: ignore[operator]
        )
    return means


def enlarge(image_B3HW: Tensor, zoom: float) -> Tensor:
    """uint8 images (B, 3, H, W), bilinear, at the multiple of 32 that is nearest to ``zoom`` times their size.

    Examples:
        >>> enlarge(torch.zeros(1, 3, 96, 128, dtype=torch.uint8), 1.25).shape
        torch.Size([1, 3, 128, 160])
    """
    if zoom == 1:
        return image_B3HW
    size = [32 * max(1, round(zoom * side / 32)) for side in image_B3HW.shape[-2:]]
    return upsample(image_B3HW.float(), size).round_().clamp_(0, 255).to(torch.uint8)


@torch.no_grad()
def discover_labels(
    task: Task,
    logits_BKHW: Tensor,
    pixels_B1HW: Tensor,
    confidence: str = "ours",
    thresholds: ThresholdRule | None = None,
) -> Discovered:
    """Turn a teacher's logits into pseudo-labels.

    Args:
        logits_BKHW: at the size of ``pixels_B1HW``.
        pixels_B1HW: bool, False where nothing may be discovered, such as padding.
        confidence: ``ours`` (`Task.confidence`) or ``paper`` (`Task.paper_confidence`).
        thresholds: confidence that a pixel must exceed; default: the task's own threshold.
    """
    score_B1HW = task.paper_confidence(logits_BKHW) if confidence == "paper" else task.confidence(logits_BKHW)
    value = task.decode(logits_BKHW)
    threshold = task.threshold if thresholds is None else thresholds.of(task, value)
    return Discovered(value, score_B1HW, (score_B1HW > threshold) & pixels_B1HW)


def inside(pixels_B1HW: Tensor, size: Sequence[int]) -> Tensor:
    """Positions (B, 1, h, w) bool of a coarser grid most of whose pixels are True in a bool map.

    Examples:
        >>> inside(torch.tensor([[[[True, True, True, False], [True, True, False, False]]]]), (1, 2)).tolist()
        [[[[True, False]]]]
    """
    return upsample(pixels_B1HW.float(), size) > 0.5


def feature_weights(teacher: TaskOutput, labelled: Tensor, pixels_B1HW: Tensor, weighted: bool = True) -> Tensor:
    """Weights (B, 1, h, w) of feature distillation at the features' size.

    1 on labelled pairs, the teacher's own confidence map on unlabelled ones, 0 on padding.

    Args:
        teacher: output for the whole batch.
        labelled: (n,) rows that have a label for the task.
        pixels_B1HW: bool, False on padding.
        weighted: False ignores the confidence map: 1 on every pair.
    """
    size = teacher.feature.shape[-2:]
    usable = inside(pixels_B1HW, size).float()
    if teacher.confidence is None or not weighted:
        return usable
    return usable * teacher.confidence.sigmoid().index_fill(0, labelled, 1.0)
