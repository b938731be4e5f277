"""Thresholds by accuracy: the confidence above which enough of the teacher's pixels are correct.

Where labels are visible but not trained on, the teacher's predictions are compared with them, at the head's size and
with the same views and confidence as in discovery: the confidences are those that the thresholds will apply to. A label
comes to that size by its task's own rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from tasktokens.data.sample import Batch
from tasktokens.data.transforms import resize_labels
from tasktokens.discovery.pseudo_labels import discover_labels, forward_views, inside
from tasktokens.discovery.thresholds import Thresholds
from tasktokens.metrics import Reliability
from tasktokens.tasks import Task

if TYPE_CHECKING:
    from tasktokens.methods.base import Stage
    from tasktokens.methods.htt_settings import HttMethod


class AccuracyCalibrator:
    """Sets ``thresholds`` to the lowest confidence above which ``target_accuracy`` of the pixels are correct.

    One threshold per task and group. A group that never reaches this accuracy, or was not predicted, gets 1: none of
    its pixels are discovered. ``mirror`` is as for `forward_views`.
    """

    def __init__(
        self, tasks: Mapping[str, Task], settings: HttMethod, thresholds: Thresholds, mirror: bool = True
    ) -> None:
        self.tasks, self.settings, self.thresholds, self.mirror = tasks, settings, thresholds, mirror

    def due(self, stage: Stage, step: int) -> bool:
        """Before the first step with discovery; online also every ``calibrate_every`` steps after it."""
        if stage.teacher or stage.discovered:
            return step == 0
        since = step - self.settings.stage1_steps
        return stage.ema is not None and since >= 0 and since % self.settings.calibrate_every == 0

    def start(self) -> dict[str, Reliability]:
        """Empty reliability sums per task."""
        return {name: Reliability(task.num_groups) for name, task in self.tasks.items()}

    @torch.no_grad()
    def add(self, sums: Mapping[str, Reliability], batch: Batch, teacher: nn.Module) -> None:
        """Compare the teacher's predictions with the labels of a batch, at the size of the heads."""
        settings = self.settings
        outputs = forward_views(self.tasks, teacher, batch.image, settings.views_of(self.tasks), self.mirror)
        for name, task in self.tasks.items():
            labels = batch.labels[name]
            if len(labels.rows) == 0:
                continue
            logits = outputs[name].logits[labels.rows]
            size = (logits.shape[-2], logits.shape[-1])
            pixels = inside(batch.pixels[labels.rows], size)
            found = discover_labels(task, logits, pixels, settings.confidence)
            target, valid = resize_labels(task, labels, size)
            right = task.correct(found.value, target)
            sums[name].update(found.confidence, right, valid & pixels, task.group(found.value))

    def finish(self, sums: Mapping[str, Reliability]) -> None:
        """Set the thresholds that reach ``target_accuracy`` according to the sums."""
        for name, task in self.tasks.items():
            self.thresholds.set(task, sums[name].thresholds(self.settings.target_accuracy))
