"""HTT: label discovery by a teacher, at the levels of pixels, features and tokens (arXiv 2411.18823, section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from tasktokens.config import MethodSettings
from tasktokens.data.sample import Batch, Labels
from tasktokens.discovery.calibration import AccuracyCalibrator
from tasktokens.discovery.pseudo_labels import (
    VIEW_ZOOM,
    discover_labels,
    feature_weights,
    forward_views,
    geometric_agreement,
    inside,
)
from tasktokens.discovery.thresholds import Thresholds
from tasktokens.losses import Term, masked_distance, masked_divergence, masked_loss, masked_mse
from tasktokens.methods.base import (
    METHODS,
    Calibrator,
    Method,
    PixelSampler,
    Stage,
    StepOptions,
    student_view,
    supervised_term,
)
from tasktokens.methods.strong_view import Mix, StrongView, draw_mix, strong_view
from tasktokens.models import TaskOutput, head_rows
from tasktokens.models.layers import upsample
from tasktokens.tasks import Task


class HttMethod(MethodSettings):
    """Hierarchical Task Tokens with label discovery (arXiv 2411.18823)."""

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
        description="two-stage: how many students, of stage2_steps each; the teacher of each is the one before",
    )
    student: Literal["fresh", "teacher"] = Field("fresh", description="what the student starts from; the paper: fresh")
    prediction_level: float = Field(1.0, ge=0, description="weight of the loss on discovered labels; 0 turns it off")
    feature_level: float = Field(1.0, ge=0, description="weight of feature distillation; 0 turns it off")
    token_level: float = Field(0.0, ge=0, description="weight of token distillation; 0 turns it off")
    targets: Literal["distribution", "value"] = Field(
        "distribution",
        description="the student learns the teacher's distribution over classes, bins or centres, or, as published, "
        "its value",
    )
    thresholds: Literal["fixed", "adaptive", "calibrated"] = Field(
        "fixed",
        description="fixed: each task's own, as published; adaptive: the teacher's mean confidence so far, for each "
        "task and class; calibrated: what makes it right often enough on visible labels of the held-out images",
    )
    target_accuracy: float = Field(0.8, gt=0, le=1, description="calibrated: share of pixels that are to be right")
    calibrate_every: int = Field(500, ge=1, description="calibrated, online: steps between two calibrations")
    geometry: bool = Field(False, description="confidence of depth and normals is multiplied by how well the two agree")
    focal: float = Field(
        0.9, gt=0, le=100, description="geometry: the camera's focal length as a share of the image's width"
    )
    strong: StrongView = StrongView()
    ramp: int = Field(100, ge=1, description="online: steps over which the discovery losses grow to their weights")
    ema: float = Field(0.99, ge=0, lt=1, description="online: decay of the moving average that is the teacher")
    teacher_views: Literal[1, 2] = Field(2, description="2: the teacher averages each image and its mirror image")
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
            raise ValueError("it is 0 and so is stage1_steps: there would be nothing to train")
        return value

    @property
    def uses_holdout(self) -> bool:
        return self.thresholds == "calibrated"


@dataclass(frozen=True)
class _View:
    """What the student saw of a batch, and the pixels that its losses look at."""

    batch: Batch
    grid: PixelSampler
    mix: Mix | None

    def own(self, valid_B1hw: Tensor, rows: Tensor) -> Tensor:
        """``valid`` of these rows on the grid, less what another image's patch covers."""
        return valid_B1hw if self.mix is None else valid_B1hw & ~self.grid.take(self.mix.box[rows])

    def pixels(self) -> Tensor:
        """What is no padding, (B, 1, H, W) bool."""
        return self.batch.pixels if self.mix is None else self.mix.image(self.batch.pixels)

    def missing(self, labels: Labels, pixels_B1hw: Tensor) -> Tensor:
        """Which of the batch's pixels, at any size, the student sees of images without such a label."""
        own = torch.zeros_like(pixels_B1hw).index_fill(0, labels.absent, True) & pixels_B1hw
        return own if self.mix is None else self.mix.image(own)

    def discoverable(self, map_BChw: Tensor, labels: Labels) -> Tensor:
        """What the teacher says, of images that have something to discover: those without a label; mixed, all."""
        return map_BChw[labels.absent] if self.mix is None else self.mix.image(map_BChw)

    def whole(self, rows: Tensor) -> Tensor:
        """1 for those of these images (n,) that show no patch of another, else 0."""
        if self.mix is None:
            return torch.ones(len(rows), device=rows.device)
        return 1 - self.mix.box[rows].flatten(1).any(dim=1).float()

    def covered(self, map_BChw: Tensor) -> float:
        """How many pixels a position of a coarser map stands for: what is counted is pixels, known from the batch."""
        return self.batch.pixels.shape[-2:].numel() / map_BChw.shape[-2:].numel()


@METHODS.register("htt")
class Htt(Method):
    """Two stages: a network learns from the given labels; frozen, it is the teacher of a student that learns from the
    given labels, and from the teacher's predictions, features and tokens where labels are missing. In further rounds
    the student is the teacher of the next. Online: one stage, whose teacher is the moving average of the student.
    """

    settings_class: ClassVar[type[MethodSettings]] = HttMethod
    network: ClassVar[str] = "htt"

    def __init__(self, tasks: Mapping[str, Task], settings: HttMethod) -> None:
        super().__init__(tasks)
        self.settings = settings
        self.thresholds = Thresholds(tasks, settings.thresholds == "adaptive")

    def stages(self) -> tuple[Stage, ...]:
        settings = self.settings
        if settings.schedule == "online":
            return (Stage("online", settings.stage1_steps + settings.stage2_steps, ema=settings.ema),)
        first = Stage("supervised", settings.stage1_steps)
        if settings.stage2_steps == 0:
            return (first,)
        names = ["discovery", *(f"discovery{number}" for number in range(2, settings.rounds + 1))]
        return first, *(Stage(name, settings.stage2_steps, settings.student, teacher=True) for name in names)

    def state(self) -> nn.Module:
        return self.thresholds

    def calibrator(self) -> Calibrator | None:
        if self.settings.thresholds != "calibrated":
            return None
        return AccuracyCalibrator(self.tasks, self.settings, self.thresholds)

    def observe(self, means: Mapping[str, Tensor]) -> None:
        self.thresholds.observe(means)

    def terms(self, batch: Batch, student: nn.Module, teacher: nn.Module | None, options: StepOptions) -> list[Term]:
        strength = self._strength(options.step)
        view = self._view(batch, self._taught(teacher, options), options)
        if teacher is None or strength == 0:
            rows = {name: head_rows(labels.rows, labels.absent) for name, labels in batch.labels.items()}
            outputs = student(student_view(batch, options), rows)
            return [t for task in self.tasks.values() for t in self._labelled(task, outputs[task.name], view)]

        taught = forward_views(
            self.tasks, teacher, batch.image, self.settings.teacher_views, self.settings.teacher_zoom
        )
        agreement = geometric_agreement(self.tasks, taught, self.settings.focal) if self.settings.geometry else {}
        image = strong_view(batch.image, self.settings.strong, options.generator, options.part)
        outputs = student(image if view.mix is None else view.mix.image(image))
        terms = []
        for name, task in self.tasks.items():
            output, teacher_output = outputs[name], taught[name]
            terms += self._labelled(task, output.take(batch.labels[name].rows), view)
            found = self._pixels(task, output, teacher_output, view, agreement.get(name))
            found += self._features(task, output, teacher_output, view)
            found += self._tokens(task, output, teacher_output, view)
            terms += [replace(term, weight=term.weight * strength) for term in found]
        return terms

    def counts(self, batch: Batch, teacher: nn.Module | None, options: StepOptions) -> dict[str, Tensor]:
        view = self._view(batch, self._taught(teacher, options), options)
        counts = {}
        for name, labels in batch.labels.items():
            labelled = view.own(view.grid.take(labels.valid), labels.rows).sum().float()
            counts[f"loss/{name}"] = counts[f"confidence/{name}"] = labelled
            counts[f"discovered_loss/{name}"] = view.missing(labels, batch.pixels).sum().float()
            counts[f"feature/{name}"] = view.pixels().sum().float()
            counts[f"token/{name}"] = view.whole(labels.absent).sum()
        return counts

    def _taught(self, teacher: nn.Module | None, options: StepOptions) -> bool:
        return teacher is not None and self._strength(options.step) > 0

    def _view(self, batch: Batch, taught: bool, options: StepOptions) -> _View:
        """The first draws of a step's generator, so that counts and terms speak of the same pixels."""
        grid, cutmix = PixelSampler(batch.image, options), self.settings.strong.cutmix if taught else 0.0
        return _View(batch, grid, draw_mix(batch.image, cutmix, options.generator))

    def _strength(self, step: int) -> float:
        """Factor of the discovery losses: online it is 0 for the first stage's steps, then grows to 1."""
        if self.settings.schedule == "two-stage":
            return 1.0
        return min(1.0, max(0.0, (step - self.settings.stage1_steps) / self.settings.ramp))

    def _labelled(self, task: Task, output: TaskOutput, view: _View) -> list[Term]:
        labels, grid = view.batch.labels[task.name], view.grid
        valid = view.own(grid.take(labels.valid), labels.rows)
        supervised = supervised_term(task, output, labels, grid, valid)
        if self.settings.confidence_loss == 0 or output.confidence is None:
            return [supervised]
        count = len(labels.rows)
        with torch.no_grad():
            right = task.correct(task.decode(grid.logits(output)[:count].detach()), grid.take(labels.value)).float()
        logits = upsample(output.confidence, grid.size)[:count]
        loss = F.binary_cross_entropy_with_logits(logits, right, reduction="none")
        total = torch.where(valid, loss, 0.0).sum() if count else logits.sum()
        return [supervised, Term(f"confidence/{task.name}", self.settings.confidence_loss, total, valid.sum().float())]

    def _pixels(
        self, task: Task, output: TaskOutput, teacher_output: TaskOutput, view: _View, agreement_B1hw: Tensor | None
    ) -> list[Term]:
        """Prediction level, at the head's own size: the teacher says nothing finer.

        The mean is over all pixels whose image has no label, so that few sure pixels weigh little.
        """
        labels = view.batch.labels[task.name]
        logits, taught, pixels = _unlabelled(labels, output.logits, teacher_output.logits, view)
        agreement = None if agreement_B1hw is None else view.discoverable(agreement_B1hw, labels)
        found = discover_labels(task, taught, pixels, self.settings.confidence, self.thresholds, agreement)
        soft = task.has_distribution and self.settings.targets == "distribution"
        weighted = self.settings.confidence_weighting and (soft or task.confidence_weighted)
        weight = found.confidence if weighted else torch.ones_like(found.confidence)
        if soft:
            total, sure = masked_divergence(logits, taught, found.valid, weight)
        else:
            total, sure = masked_loss(task, logits, found.value, found.valid, weight)
        weight_of = task.weight * task.discovered_weight * self.settings.prediction_level
        possible = view.missing(labels, view.batch.pixels)
        return [
            Term(f"discovered_loss/{task.name}", weight_of, total * view.covered(logits), possible.sum().float()),
            Term(f"discovered/{task.name}", 0.0, sure, pixels.sum().float()),
            *self.thresholds.statistics(task, found.value, found.confidence, pixels),
        ]

    def _features(self, task: Task, output: TaskOutput, teacher_output: TaskOutput, view: _View) -> list[Term]:
        """Feature level: nothing random, such as dropout, lies between the student's feature and the teacher's."""
        if self.settings.feature_level == 0:
            return []
        batch, weighted = view.batch, self.settings.confidence_weighting
        weights, feature = (
            feature_weights(teacher_output, batch.labels[task.name].rows, batch.pixels, weighted),
            teacher_output.feature,
        )
        if view.mix is not None:
            weights, feature = view.mix.image(weights), view.mix.image(feature)
        total, _ = masked_mse(output.feature, feature, weights)
        weight, count = task.weight * self.settings.feature_level, view.pixels().sum().float()
        return [Term(f"feature/{task.name}", weight, total * view.covered(feature), count)]

    def _tokens(self, task: Task, output: TaskOutput, teacher_output: TaskOutput, view: _View) -> list[Term]:
        """Token level: one vector an image and task, of unlabelled images that show no patch of another."""
        if self.settings.token_level == 0 or output.token is None or teacher_output.token is None:
            return []
        rows = view.batch.labels[task.name].absent
        total, count = masked_distance(output.token[rows], teacher_output.token[rows], view.whole(rows))
        return [Term(f"token/{task.name}", task.weight * self.settings.token_level, total, count)]


def _unlabelled(labels: Labels, logits_BKhw: Tensor, taught_BKhw: Tensor, view: _View) -> tuple[Tensor, Tensor, Tensor]:
    """The student's and the teacher's logits of images that have something to discover, and its pixels (n, 1, h, w).

    A pixel may be discovered where the image that it comes from has no label of the task. Without a mix these are the
    images without a label; with one, any image can have a patch of such an image.
    """
    size, absent = (logits_BKhw.shape[-2], logits_BKhw.shape[-1]), labels.absent
    taught = view.discoverable(taught_BKhw, labels)
    if view.mix is None:
        return logits_BKhw[absent], taught, inside(view.batch.pixels[absent], size)
    return logits_BKhw, taught, view.missing(labels, inside(view.batch.pixels, size))
