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

from tasktokens.discovery.views import AS_IT_IS, Views, usable_views, views_by_task
from tasktokens.losses import masked_divergence, masked_loss
from tasktokens.models import TaskOutput
from tasktokens.models.layers import upsample
from tasktokens.tasks import Task


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
    views: Views = (AS_IT_IS,),
    mirror: bool = True,
    disagreement: dict[str, Tensor] | None = None,
) -> dict[str, TaskOutput]:
    """The teacher's outputs for a batch, each task's the mean over its views, at the size of the images' own heads.

    The mean of several views is better than any, more so if they differ in size, and less confident where they
    disagree. Where the features of a mirror image mean other labels (`Task.mirror_changes_meaning`), views that are not
    mirrored alone enter the feature.

    Args:
        views: of all tasks, or of each by name; a view that several have is computed once.
        mirror: False for a teacher that was trained without mirroring: no view is mirrored then.
        disagreement: filled, by task that has several views, with the share of each image's cells (B,) on which a view
            does not count as right by the first (`Task.correct`), a mean over the other views.
    """
    of_task = {name: usable_views(own, mirror) for name, own in views_by_task(views, tasks, (AS_IT_IS,)).items()}
    means = {name: _Mean(task, keep=disagreement is not None) for name, task in tasks.items()}
    for view in dict.fromkeys(view for chosen in of_task.values() for view in chosen):
        zoom, mirrored = view
        seen = enlarge(image_B3HW.flip(-1) if mirrored else image_B3HW, zoom)
        outputs: dict[str, TaskOutput] = teacher(seen)
        for name, chosen in of_task.items():
            if view in chosen:
                means[name].add(outputs[name], image_B3HW, seen, mirrored)
    if disagreement is not None:
        disagreement |= {name: each.disagreement() for name, each in means.items() if len(each.kept) > 1}
    return {name: each.output() for name, each in means.items()}


class _Mean:
    """The mean of one task's outputs over its views, brought back to the images as they are.

    Args:
        keep: also the logits of each view, to compare them.
    """

    def __init__(self, task: Task, keep: bool = False) -> None:
        self.task, self.keep = task, keep
        self.kept: list[Tensor] = []
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.sizes: dict[str, list[int]] = {}

    def add(self, output: TaskOutput, image_B3HW: Tensor, seen_B3HW: Tensor, mirrored: bool) -> None:
        """One view's output."""
        whole, seen = image_B3HW.shape[-2:], seen_B3HW.shape[-2:]

        def back(name: str, x: Tensor) -> None:
            size = [math.ceil(side * a / b - 1e-6) for side, a, b in zip(x.shape[-2:], whole, seen, strict=True)]
            same_size = upsample(x, self.sizes.setdefault(name, size))
            if self.keep and name == "logits":
                self.kept.append(same_size)
            self._add(name, same_size)

        def turned(x: Tensor) -> Tensor:
            return x.flip(-1) if mirrored else x

        logits = self.task.flip_logits(output.logits) if mirrored else output.logits
        if whole != seen:
            logits = self.task.zoom_logits(logits, math.sqrt(seen.numel() / whole.numel()))
        back("logits", logits)
        if not (mirrored and self.task.mirror_changes_meaning):
            back("feature", turned(output.feature))
        if output.confidence is not None:
            back("confidence", turned(output.confidence))
        if output.token is not None:
            self._add("token", output.token)

    def _add(self, name: str, value: Tensor) -> None:
        self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.counts[name] = self.counts.get(name, 0) + 1

    def disagreement(self) -> Tensor:
        """See `forward_views`: (B,) in [0, 1]."""
        first, *others = (self.task.decode(logits) for logits in self.kept)
        wrong = torch.stack([~self.task.correct(other, first) for other in others])
        return wrong.float().mean(dim=(0, 2, 3, 4))

    def output(self) -> TaskOutput:
        """The means."""
        mean = {name: x if self.counts[name] == 1 else x / self.counts[name] for name, x in self.sums.items()}
        return TaskOutput(mean["logits"], mean["feature"], mean.get("confidence"), mean.get("token"))


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


def loss_on_discovered(
    task: Task, logits_BKHW: Tensor, teacher_BKHW: Tensor, found: Discovered, targets: str, weighted: bool = True
) -> tuple[Tensor, Tensor]:
    """Sum of a student's loss on what its teacher discovered, and how many pixels were.

    Args:
        logits_BKHW, teacher_BKHW: of the same images, at the size of ``found``.
        targets: ``distribution``, where the task has one, or the teacher's ``value``.
        weighted: whether confidence weighs the pixels.
    """
    soft = task.has_distribution and targets == "distribution"
    by_confidence = weighted and (soft or task.confidence_weighted)
    weight = found.confidence if by_confidence else torch.ones_like(found.confidence)
    if soft:
        return masked_divergence(logits_BKHW, teacher_BKHW, found.valid, weight)
    return masked_loss(task, logits_BKHW, found.value, found.valid, weight)


def inside(pixels_B1HW: Tensor, size: Sequence[int]) -> Tensor:
    """Positions (B, 1, h, w) bool of a coarser grid most of whose pixels are True in a bool map.

    Examples:
        >>> inside(torch.tensor([[[[True, True, True, False], [True, True, False, False]]]]), (1, 2)).tolist()
        [[[[True, False]]]]
    """
    return upsample(pixels_B1HW.float(), size) > 0.5


def pixels_per_cell(pixels_B1HW: Tensor, map_BChw: Tensor) -> float:
    """Pixels per position of a coarser map: terms are counted in pixels, which depend on the batch alone."""
    return pixels_B1HW.shape[-2:].numel() / map_BChw.shape[-2:].numel()


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
