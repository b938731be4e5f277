"""HTT: label discovery by a teacher, at the levels of pixels, features and tokens (arXiv 2411.18823, section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from tasktokens.config import MethodSettings
from tasktokens.config.base import Removed
from tasktokens.discovery.calibration import AccuracyCalibrator
from tasktokens.discovery.pseudo_labels import VIEW_ZOOM, discover_labels, feature_weights, forward_views, inside
from tasktokens.discovery.thresholds import Thresholds
from tasktokens.losses import Term, masked_distance, masked_divergence, masked_loss, masked_mse
from tasktokens.methods.base import (
    METHODS,
    Calibrator,
    Method,
    PreparedBatch,
    Stage,
    StepOptions,
    label_counts,
    supervised_term,
)
from tasktokens.methods.strong_view import StrongView, strong_view
from tasktokens.models import TaskOutput, head_rows
from tasktokens.models.layers import upsample
from tasktokens.tasks import Task


class HttMethod(MethodSettings):
    """Hierarchical Task Tokens with label discovery (arXiv 2411.18823).

    Examples:
        >>> HttMethod(schedule="online", stage1_steps=100).uses_holdout
        False
    """

    removed: ClassVar[Mapping[str, Removed]] = {
        "geometry": Removed("the geometric check", off=False), "focal": Removed("the geometric check"),
    }  # fmt: skip
    as_published: ClassVar[Mapping[str, Any]] = {"student": "fresh", "thresholds": "fixed", "feature_level": 1.0}

    name: Literal["htt"] = "htt"
    schedule: Literal["two-stage", "online"] = Field(
        "two-stage",
        description="two-stage: a frozen teacher, as released; "
        "online: one run, whose teacher, and result, is the student's moving average",
    )
    stage1_steps: int = Field(
        500, ge=0, description="steps of the supervised stage, whose network becomes the teacher; 0: see --init-from"
    )
    stage2_steps: int = Field(500, ge=0, description="steps of the student on given and discovered labels")
    rounds: int = Field(
        1,
        ge=1,
        le=100,
        description="two-stage: number of students, each trained for stage2_steps by the one before",
    )
    student: Literal["fresh", "teacher"] = Field(
        "teacher", description="what the student starts from; the paper: fresh"
    )
    prediction_level: float = Field(1.0, ge=0, description="weight of the loss on discovered labels; 0 turns it off")
    feature_level: float = Field(0.1, ge=0, description="weight of feature distillation; 0 turns it off")
    token_level: float = Field(0.0, ge=0, description="weight of token distillation; 0 turns it off")
    targets: Literal["distribution", "value"] = Field(
        "distribution",
        description="the student learns the teacher's distribution over classes, bins or centres, or, as published, "
        "its value",
    )
    thresholds: Literal["fixed", "adaptive", "calibrated"] = Field(
        "adaptive",
        description="fixed: each task's own, as published; adaptive: the teacher's mean confidence so far, for each "
        "task and class; calibrated: reaches target_accuracy on visible labels of the held-out images",
    )
    target_accuracy: float = Field(
        0.8, gt=0, le=1, description="calibrated: share of discovered pixels that should be correct"
    )
    calibrate_every: int = Field(500, ge=1, description="calibrated, online: steps between two calibrations")
    strong: StrongView = StrongView()
    """How the student's images differ from the teacher's."""
    ramp: int = Field(100, ge=1, description="online: steps over which the discovery losses grow to their weights")
    ema: float = Field(0.99, ge=0, lt=1, description="online: decay of the moving average that is the teacher")
    teacher_views: Literal[1, 2] = Field(
        2,
        description="2: the teacher averages each image and its mirror image; itself, enlarged, where flip is false",
    )
    teacher_zoom: float = Field(
        VIEW_ZOOM, gt=0, le=4, description="two views: the mirror image is enlarged by this, to multiples of 32 pixels"
    )
    confidence: Literal["ours", "paper"] = Field("ours", description="what the thresholds apply to")
    confidence_weighting: bool = Field(True, description="false: every discovered pixel weighs the same")
    confidence_loss: float = Field(0.1, ge=0, description="weight of the loss that trains the confidence map")

    @field_validator("stage2_steps")
    @classmethod
    def _some_steps(cls, value: int, info: ValidationInfo) -> int:
        if value == 0 and info.data.get("stage1_steps") == 0:
            raise ValueError("stage1_steps is 0 too, so there is nothing to train; give one of them some steps")
        return value

    @property
    def uses_holdout(self) -> bool:
        """True for calibrated thresholds, which are measured on held-out images."""
        return self.thresholds == "calibrated"


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
    network: ClassVar[str] = "htt"

    def __init__(self, tasks: Mapping[str, Task], settings: HttMethod) -> None:
        super().__init__(tasks)
        self.settings = settings
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
        return first, *(Stage(name, settings.stage2_steps, settings.student, teacher=True) for name in names)

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
        """Supervised terms of each task; with a teacher also those of pixels, features and tokens.

        Raises `ValueError` where ``teacher`` is not what ``prepared.options`` says.
        """
        if prepared.options.teacher != (teacher is not None):
            raise ValueError(f"the batch was prepared with teacher={prepared.options.teacher} in its options")
        strength, batch, settings = self._strength(prepared.options), prepared.batch, self.settings
        if teacher is None or strength == 0:
            rows = {name: head_rows(labels.rows, labels.absent) for name, labels in batch.labels.items()}
            outputs = student(prepared.image, rows)
            return [t for task in self.tasks.values() for t in self._labelled(task, outputs[task.name], prepared)]

        views, zoom = settings.teacher_views, settings.teacher_zoom
        teacher_outputs = forward_views(self.tasks, teacher, batch.image, views, zoom, self.mirrored)
        outputs = student(prepared.image)
        terms = []
        for name, task in self.tasks.items():
            output, teacher_output = outputs[name], teacher_outputs[name]
            terms += self._labelled(task, output.select(batch.labels[name].rows), prepared)
            found = self._pixels(task, output, teacher_output, prepared)
            found += self._features(task, output, teacher_output, prepared)
            found += self._tokens(task, output, teacher_output, prepared)
            terms += [replace(term, weight=term.weight * strength) for term in found]
        return terms

    def counts(self, prepared: PreparedBatch) -> dict[str, Tensor]:
        """Pixels per term, and images per term of tokens."""
        pixels, counts = prepared.batch.pixels, {}
        labelled = label_counts(prepared)
        for name, labels in prepared.batch.labels.items():
            counts[f"loss/{name}"] = counts[f"confidence/{name}"] = labelled[name]
            counts[f"discovered_loss/{name}"] = pixels[labels.absent].sum().float()
            counts[f"feature/{name}"] = pixels.sum().float()
            counts[f"token/{name}"] = torch.ones(len(labels.absent), device=pixels.device).sum()
        return counts

    def _strength(self, options: StepOptions) -> float:
        """Factor of the discovery losses. Online: 0 for the first ``stage1_steps`` steps, then growing to 1."""
        if not options.teacher:
            return 0.0
        if self.settings.schedule == "two-stage":
            return 1.0
        return min(1.0, max(0.0, (options.step - self.settings.stage1_steps) / self.settings.ramp))

    def _labelled(self, task: Task, output: TaskOutput, prepared: PreparedBatch) -> list[Term]:
        labels, sampler = prepared.batch.labels[task.name], prepared.sampler
        supervised = supervised_term(task, output, labels, sampler)
        if self.settings.confidence_loss == 0 or output.confidence is None:
            return [supervised]
        count, valid = len(labels.rows), sampler.subsample(labels.valid)
        with torch.no_grad():
            prediction = task.decode(sampler.logits(output)[:count].detach())
            right = task.correct(prediction, sampler.subsample(labels.value)).float()
        logits = upsample(output.confidence, sampler.size)[:count]
        loss = F.binary_cross_entropy_with_logits(logits, right, reduction="none")
        total = torch.where(valid, loss, 0.0).sum() if count else logits.sum()
        return [supervised, Term(f"confidence/{task.name}", self.settings.confidence_loss, total, valid.sum().float())]

    def _pixels(
        self, task: Task, output: TaskOutput, teacher_output: TaskOutput, prepared: PreparedBatch
    ) -> list[Term]:
        """Prediction level, at the head's own resolution, which is the finest that the teacher has.

        The mean is over all pixels whose image has no label, so that a few confident pixels weigh little.
        """
        absent, image_pixels = prepared.batch.labels[task.name].absent, prepared.batch.pixels
        logits, teacher_logits = output.logits[absent], teacher_output.logits[absent]
        pixels = inside(image_pixels[absent], output.logits.shape[-2:])
        found = discover_labels(task, teacher_logits, pixels, self.settings.confidence, self.thresholds)
        soft = task.has_distribution and self.settings.targets == "distribution"
        weighted = self.settings.confidence_weighting and (soft or task.confidence_weighted)
        weight = found.confidence if weighted else torch.ones_like(found.confidence)
        if soft:
            total, discovered = masked_divergence(logits, teacher_logits, found.valid, weight)
        else:
            total, discovered = masked_loss(task, logits, found.value, found.valid, weight)
        total = total * _pixels_per_cell(image_pixels, logits)
        weight_of = task.weight * task.discovered_weight * self.settings.prediction_level
        return [
            Term(f"discovered_loss/{task.name}", weight_of, total, image_pixels[absent].sum().float()),
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
        total = total * _pixels_per_cell(batch.pixels, output.feature)
        weight = task.weight * self.settings.feature_level
        return [Term(f"feature/{task.name}", weight, total, batch.pixels.sum().float())]

    def _tokens(
        self, task: Task, output: TaskOutput, teacher_output: TaskOutput, prepared: PreparedBatch
    ) -> list[Term]:
        """Token level: one vector per image and task, of the images without a label."""
        if self.settings.token_level == 0 or output.token is None or teacher_output.token is None:
            return []
        absent = prepared.batch.labels[task.name].absent
        ones = torch.ones(len(absent), device=absent.device)
        total, count = masked_distance(output.token[absent], teacher_output.token[absent], ones)
        return [Term(f"token/{task.name}", task.weight * self.settings.token_level, total, count)]


def _pixels_per_cell(pixels_B1HW: Tensor, map_BChw: Tensor) -> float:
    """Pixels per cell of a coarser map: terms are counted in pixels, which depend on the batch alone."""
    return pixels_B1HW.shape[-2:].numel() / map_BChw.shape[-2:].numel()
