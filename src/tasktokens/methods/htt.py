"""HTT: label discovery by a teacher, at the levels of features and predictions (arXiv 2411.18823, section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasktokens.config import HttMethod
from tasktokens.data.sample import Batch
from tasktokens.discovery import discover_labels, feature_weights, teach
from tasktokens.losses import masked_divergence, masked_loss, masked_mse
from tasktokens.methods.base import Grid, Method, Stage, StepOptions, Term, student_view, supervised_term
from tasktokens.models import TaskOutput, at_least_one
from tasktokens.models.layers import upsample
from tasktokens.tasks import Task


class Htt(Method):
    """Two stages: a network learns from the given labels; frozen, it is the teacher of a student that learns from the
    given labels, and from the teacher's predictions and features where labels are missing. Online: one stage, whose
    teacher is the moving average of the student.
    """

    network: ClassVar[str] = "htt"

    def __init__(self, tasks: Mapping[str, Task], settings: HttMethod) -> None:
        super().__init__(tasks)
        self.settings = settings

    def stages(self) -> tuple[Stage, ...]:
        settings = self.settings
        if settings.schedule == "online":
            return (Stage("online", settings.stage1_steps + settings.stage2_steps, ema=settings.ema),)
        first = Stage("supervised", settings.stage1_steps)
        if settings.stage2_steps == 0:
            return (first,)
        return first, Stage("discovery", settings.stage2_steps, settings.student, teacher=True)

    def terms(self, batch: Batch, student: nn.Module, teacher: nn.Module | None, options: StepOptions) -> list[Term]:
        grid = Grid(batch.image, options)
        image = student_view(batch, options)
        strength = self._strength(options.step)
        if teacher is None or strength == 0:
            rows = {name: at_least_one(labels.rows) for name, labels in batch.labels.items()}
            outputs = student(image, rows)
            return [t for task in self.tasks.values() for t in self._labelled(task, outputs[task.name], batch, grid)]

        taught = teach(self.tasks, teacher, batch.image, self.settings.teacher_views)
        # Labelled images first, as `supervised_term` expects; the rest in the order of `absent`.
        order = {name: torch.cat([labels.rows, labels.absent]) for name, labels in batch.labels.items()}
        outputs = student(image, order)
        terms = []
        for name, task in self.tasks.items():
            terms += self._labelled(task, outputs[name], batch, grid)
            found = self._discovered(task, outputs[name], taught[name], batch, grid)
            found.append(self._features(task, outputs[name], taught[name], order[name], batch))
            terms += [replace(term, weight=term.weight * strength) for term in found]
        return terms

    def _strength(self, step: int) -> float:
        """Factor of the discovery losses: online it is 0 for the first stage's steps, then grows to 1."""
        if self.settings.schedule == "two-stage":
            return 1.0
        return min(1.0, max(0.0, (step - self.settings.stage1_steps) / self.settings.ramp))

    def _labelled(self, task: Task, output: TaskOutput, batch: Batch, grid: Grid) -> list[Term]:
        supervised = supervised_term(task, output, batch, grid)
        if self.settings.confidence_loss == 0 or output.confidence is None:
            return [supervised]
        labels = batch.labels[task.name]
        count = len(labels.rows)
        valid, target = grid.take(labels.valid), grid.take(labels.value)
        with torch.no_grad():
            right = task.correct(task.decode(grid.logits(output)[:count].detach()), target).float()
        logits = upsample(output.confidence, grid.size)[:count].float()
        loss = F.binary_cross_entropy_with_logits(logits, right, reduction="none")
        total = torch.where(valid, loss, 0.0).sum() if count else logits.sum()
        return [supervised, Term(f"confidence/{task.name}", self.settings.confidence_loss, total, valid.sum().float())]

    def _discovered(self, task: Task, output: TaskOutput, taught: TaskOutput, batch: Batch, grid: Grid) -> list[Term]:
        """Prediction level: the mean is over all pixels of unlabelled images, so that few sure pixels weigh little."""
        labels = batch.labels[task.name]
        pixels = grid.take(batch.pixels[labels.absent])
        teacher_logits = upsample(taught.logits[labels.absent], grid.size)
        found = discover_labels(task, teacher_logits, pixels, self.settings.confidence)
        logits = grid.logits(output)[len(labels.rows) :]
        weighted = task.confidence_weighted and self.settings.confidence_weighting
        weight: Tensor = found.confidence if weighted else torch.ones_like(found.confidence)
        if task.confidence_weighted and self.settings.targets == "distribution":
            total, sure = masked_divergence(logits, teacher_logits, found.valid, weight)
        else:
            total, sure = masked_loss(task, logits, found.value, found.valid, weight)
        possible = pixels.sum().float()
        return [
            Term(f"discovered_loss/{task.name}", task.weight * self.settings.prediction_level, total, possible),
            Term(f"discovered/{task.name}", 0.0, sure, possible),
        ]

    def _features(self, task: Task, output: TaskOutput, taught: TaskOutput, order: Tensor, batch: Batch) -> Term:
        """Feature level: nothing random, such as dropout, lies between the student's feature and the teacher's."""
        weighted = self.settings.confidence_weighting
        weights = feature_weights(taught, batch.labels[task.name].rows, batch.pixels, weighted)
        total, count = masked_mse(output.feature, taught.feature[order], weights[order])
        return Term(f"feature/{task.name}", task.weight * self.settings.feature_level, total, count)
