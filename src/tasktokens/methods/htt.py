"""HTT: label discovery by a teacher, at the levels of pixels, features and tokens (arXiv 2411.18823, section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasktokens.config import MethodSettings
from tasktokens.discovery.calibration import AccuracyCalibrator
from tasktokens.discovery.pseudo_labels import (
    discover_labels,
    feature_weights,
    forward_views,
    inside,
    loss_on_discovered,
    pixels_per_cell,
)
from tasktokens.discovery.thresholds import Thresholds
from tasktokens.discovery.views import ImageView
from tasktokens.errors import ConfigError, did_you_mean
from tasktokens.losses import Term, masked_distance, masked_mse
from tasktokens.methods.base import (
    METHODS,
    Calibrator,
    Method,
    PreparedBatch,
    Stage,
    StepOptions,
    label_counts,
    rows_to_learn,
    supervised_term,
    weighted_counts,
    weighted_output,
    weighted_terms,
)
from tasktokens.methods.htt_settings import HttMethod
from tasktokens.methods.strong_view import strong_view
from tasktokens.models import NETWORKS, TaskOutput, head_rows
from tasktokens.models.layers import upsample
from tasktokens.tasks import Task


@METHODS.register("htt")
class Htt(Method):
    """Two stages: a network learns from the given labels; frozen, it is the teacher of a student that learns from the
    given labels, and from the teacher's predictions, features and tokens where labels are missing. In further rounds
    the student is the teacher of the next. Online: one stage, whose teacher is the moving average of the student.

    Examples:
        >>> [stage.name for stage in Htt({}, HttMethod(rounds=2)).stages()]
        ['supervised', 'discovery', 'discovery2']
    """

    settings_class: ClassVar[type[MethodSettings]] = HttMethod
    network: str = "htt"
    weighs_discovered: bool = True

    def __init__(self, tasks: Mapping[str, Task], settings: HttMethod) -> None:
        super().__init__(tasks)
        self.settings = settings
        if settings.network not in NETWORKS:
            known = ", ".join(NETWORKS)
            raise ConfigError(
                f"no network '{settings.network}'{did_you_mean(settings.network, NETWORKS)}; known: {known}"
            )
        self.network = settings.network
        self.delivers_better = settings.deliver == "better" and settings.schedule == "two-stage"
        self.learns_tokens = settings.token_level > 0
        if isinstance(settings.views, dict) and tasks:
            for name in settings.views.keys() - tasks.keys():
                raise ConfigError(f"method.views has no task '{name}'{did_you_mean(name, tasks)}; found: {list(tasks)}")
        self.thresholds = Thresholds(tasks, settings.thresholds == "adaptive")

    def stages(self) -> tuple[Stage, ...]:
        """Supervised and discovery stages, one discovery stage per round; ``online``: a single stage."""
        settings = self.settings
        if settings.schedule == "online":
            return (Stage("online", settings.stage1_steps + settings.stage2_steps, ema=settings.ema),)
        first = Stage("supervised", settings.stage1_steps)
        if settings.stage2_steps == 0:
            return (first,)
        names = ["discovery", *(f"discovery{number}" for number in range(2, settings.rounds + 1))]
        live = settings.teacher == "live"
        steps, student = settings.stage2_steps, settings.student
        return first, *(Stage(name, steps, student, teacher=live, discovered=not live) for name in names)

    def views(self) -> Mapping[str, tuple[ImageView, ...]]:
        """As the settings say, by task."""
        return self.settings.views_of(self.tasks)

    def state(self) -> nn.Module:
        """The thresholds, so that a resumed run continues with the learned or measured ones."""
        return self.thresholds

    def calibrator(self) -> Calibrator | None:
        """Measures thresholds where they are ``calibrated``; else None."""
        if self.settings.thresholds != "calibrated":
            return None
        return AccuracyCalibrator(self.tasks, self.settings, self.thresholds, self.mirrored)

    def observe(self, means: Mapping[str, Tensor]) -> None:
        """Update adaptive thresholds by the teacher's mean confidences."""
        self.thresholds.observe(means)

    def student_view(self, image_B3HW: Tensor, generator: torch.Generator, options: StepOptions) -> Tensor:
        """With stronger changes once discovery has begun."""
        if self._strength(options) == 0:
            return super().student_view(image_B3HW, generator, options)
        return strong_view(image_B3HW, self.settings.strong, generator, options.shard)

    def terms(self, prepared: PreparedBatch, student: nn.Module, teacher: nn.Module | None = None) -> list[Term]:
        """Supervised terms of each task; with a teacher also those of pixels, features and tokens, with discovered
        labels those of pixels and tokens.

        Raises `ValueError` where ``teacher`` or the batch is not what ``prepared.options`` says.
        """
        if prepared.options.teacher != (teacher is not None):
            raise ValueError(f"the batch was prepared with teacher={prepared.options.teacher} in its options")
        strength, batch = self._strength(prepared.options), prepared.batch
        if prepared.options.discovered:
            return self._of_discovered(prepared, student(prepared.image))
        if teacher is None or strength == 0:
            rows = {name: head_rows(rows_to_learn(batch, name), batch.unlabelled(name)) for name in batch.labels}
            outputs, terms = student(prepared.image, rows), []
            for name, task in self.tasks.items():
                terms += self._labelled(task, outputs[name], prepared)
                if name in batch.weighted:
                    terms += self._weighted(task, weighted_output(outputs[name], batch, name), prepared)
            return terms

        teacher_outputs = forward_views(self.tasks, teacher, batch.image, self.views(), self.mirrored)
        outputs = student(prepared.image)
        terms = []
        for name, task in self.tasks.items():
            output, teacher_output = outputs[name], teacher_outputs[name]
            terms += self._labelled(task, output.select(batch.labels[name].rows), prepared)
            if name in batch.weighted:
                terms += self._weighted(task, output.select(batch.weighted[name].rows), prepared)
            absent = batch.unlabelled(name)
            found = self._pixels(task, output, absent, teacher_output.logits[absent], prepared)
            found += self._features(task, output, teacher_output, prepared)
            token = teacher_output.token
            found += self._tokens(task, output, absent, None if token is None else token[absent])
            terms += [replace(term, weight=term.weight * strength) for term in found]
        return terms

    def _of_discovered(self, prepared: PreparedBatch, outputs: Mapping[str, TaskOutput]) -> list[Term]:
        """The terms of given labels and of those that were discovered before."""
        batch = prepared.batch
        if self.tasks.keys() not in (batch.discovered.keys(), batch.weighted.keys()):
            raise ValueError("the batch was prepared with discovered=True in its options, and has no discovered labels")
        terms = []
        for name, task in self.tasks.items():
            output, soft = outputs[name], batch.discovered.get(name)
            terms += self._labelled(task, output.select(batch.labels[name].rows), prepared)
            if soft is not None:
                terms += self._pixels(task, output, soft.rows, soft.logits.float(), prepared)
                terms += self._tokens(task, output, soft.rows, soft.token)
            if name in batch.weighted:
                terms += self._weighted(task, output.select(batch.weighted[name].rows), prepared)
        return terms

    def _weighted(self, task: Task, output: TaskOutput, prepared: PreparedBatch) -> list[Term]:
        """Labels that were discovered before; like what a teacher says now they are of the prediction level."""
        return weighted_terms(task, output, prepared, self.settings.prediction_level)

    def counts(self, prepared: PreparedBatch) -> dict[str, Tensor]:
        """Pixels per term, and images per term of tokens."""
        pixels, counts = prepared.batch.pixels, {}
        labelled = label_counts(prepared)
        for name, labels in prepared.batch.labels.items():
            counts[f"loss/{name}"] = counts[f"confidence/{name}"] = labelled[name]
            counts[f"discovered_loss/{name}"] = self._discovered_pixels(prepared, name).sum().float()
            counts[f"feature/{name}"] = pixels.sum().float()
            soft = prepared.batch.discovered.get(name)
            rows = labels.absent if soft is None else soft.rows
            counts[f"token/{name}"] = torch.ones(len(rows), device=pixels.device).sum()
        return counts | weighted_counts(prepared)

    def _discovered_pixels(self, prepared: PreparedBatch, task: str) -> Tensor:
        """Pixels over which the mean of the loss on discovered labels is taken."""
        batch = prepared.batch
        soft = batch.discovered.get(task)
        return batch.pixels[batch.unlabelled(task) if soft is None else soft.rows]

    def _strength(self, options: StepOptions) -> float:
        """Factor of the discovery losses. Online: 0 for the first ``stage1_steps`` steps, then growing to 1."""
        if not (options.teacher or options.discovered):
            return 0.0
        if self.settings.schedule == "two-stage":
            return 1.0
        return min(1.0, max(0.0, (options.step - self.settings.stage1_steps) / self.settings.ramp))

    def _labelled(self, task: Task, output: TaskOutput, prepared: PreparedBatch) -> list[Term]:
        labels, sampler = prepared.batch.labels[task.name], prepared.sampler
        logits = sampler.logits(output)
        supervised = supervised_term(task, output, labels, sampler, logits)
        if self.settings.confidence_loss == 0 or output.confidence is None:
            return [supervised]
        count, valid = len(labels.rows), sampler.subsample(labels.valid)
        with torch.no_grad():
            prediction = task.decode(logits[:count].detach())
            right = task.correct(prediction, sampler.subsample(labels.value)).float()
        confidence = upsample(output.confidence, sampler.size)[:count]
        loss = F.binary_cross_entropy_with_logits(confidence, right, reduction="none")
        total = torch.where(valid, loss, 0.0).sum() if count else confidence.sum()
        return [supervised, Term(f"confidence/{task.name}", self.settings.confidence_loss, total, valid.sum().float())]

    def _pixels(
        self, task: Task, output: TaskOutput, rows: Tensor, teacher_logits: Tensor, prepared: PreparedBatch
    ) -> list[Term]:
        """Prediction level, at the head's own resolution, which is the finest that the teacher has, or at the image's.

        The mean is over all pixels of the images of ``rows``, which have no label, so that a few confident pixels weigh
        little. ``teacher_logits`` are of these images.
        """
        image_pixels = prepared.batch.pixels
        logits = output.logits[rows]
        if self.settings.compared_at == "image":
            logits = upsample(logits, prepared.sampler.size)
            pixels = prepared.sampler.subsample(image_pixels[rows])
        else:
            pixels = inside(image_pixels[rows], logits.shape[-2:])
        teacher_logits = upsample(teacher_logits, logits.shape[-2:])
        found = discover_labels(task, teacher_logits, pixels, self.settings.confidence, self.thresholds)
        targets, weighted = self.settings.targets, self.settings.confidence_weighting
        total, discovered = loss_on_discovered(task, logits, teacher_logits, found, targets, weighted)
        total = total * pixels_per_cell(image_pixels, logits)
        weight_of = task.weight * task.discovered_weight * self.settings.prediction_level
        return [
            Term(f"discovered_loss/{task.name}", weight_of, total, image_pixels[rows].sum().float()),
            Term(f"discovered/{task.name}", 0.0, discovered, pixels.sum().float()),
            *self.thresholds.statistics(task, found.value, found.confidence, pixels),
        ]

    def _features(
        self, task: Task, output: TaskOutput, teacher_output: TaskOutput, prepared: PreparedBatch
    ) -> list[Term]:
        """Feature level: distillation of the feature, to which no dropout is applied."""
        if self.settings.feature_level == 0:
            return []
        batch, weighted = prepared.batch, self.settings.confidence_weighting
        weights = feature_weights(teacher_output, batch.labels[task.name].rows, batch.pixels, weighted)
        total, _ = masked_mse(output.feature, teacher_output.feature, weights)
        total = total * pixels_per_cell(batch.pixels, output.feature)
        weight = self.settings.feature_level * (task.weight if self.settings.feature_task_weight else 1.0)
        return [Term(f"feature/{task.name}", weight, total, batch.pixels.sum().float())]

    def _tokens(self, task: Task, output: TaskOutput, rows: Tensor, teacher_token: Tensor | None) -> list[Term]:
        """Token level: one vector per image of ``rows``, which have no label; ``teacher_token`` (n, D) is of these."""
        if self.settings.token_level == 0 or output.token is None or teacher_token is None:
            return []
        ones = torch.ones(len(rows), device=rows.device)
        total, count = masked_distance(output.token[rows], teacher_token, ones)
        return [Term(f"token/{task.name}", task.weight * self.settings.token_level, total, count)]
