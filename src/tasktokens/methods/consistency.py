"""Consistency regularisation: two views of an image must give the same prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from tasktokens.config import MethodSettings
from tasktokens.data.sample import Batch
from tasktokens.losses import Term
from tasktokens.methods.base import (
    FIRST_STEP,
    METHODS,
    PreparedBatch,
    Stage,
    StepOptions,
    label_terms,
)
from tasktokens.methods.mean_teacher import Distance, consistency_term, sigmoid_ramp
from tasktokens.methods.mtl import Supervised
from tasktokens.methods.self_training import absent_counts
from tasktokens.methods.strong_view import StrongView, strong_view
from tasktokens.models import TaskOutput
from tasktokens.tasks import Task


class ConsistencyMethod(MethodSettings):
    """The predictions of two views of an image must agree where labels are missing (Π-model, ICLR 2017)."""

    name: Literal["consistency"] = "consistency"
    steps: int = Field(1000, ge=1, description="updates of the weights")
    consistency: float = Field(1.0, ge=0, description="weight of the consistency loss")
    ramp: float = Field(0.2, ge=0, le=1, description="share of the steps over which it grows to its weight")
    distance: Distance = Field(
        "divergence", description="between distributions: Kullback-Leibler, or as published the squared difference"
    )
    strong: StrongView = StrongView()
    """How the student's images differ from the teacher's."""


@dataclass(frozen=True)
class TwoViews(PreparedBatch):
    """A prepared batch with a second view of the images: other colours, mirrored where training images are."""

    second: Tensor


@METHODS.register("consistency")
class Consistency(Supervised):
    """Both views go through the student in one batch; each must predict, brought back, what the other does.

    Sources: Laine, Aila, *Temporal Ensembling for Semi-Supervised Learning* (ICLR 2017,
    https://arxiv.org/abs/1610.02242), the Π-model; as a baseline of partially labelled tasks (two augmented copies of
    an image) in Li et al. (CVPR 2022, https://arxiv.org/abs/2111.14893).

    Deviations: as in `MeanTeacher`; each view is in turn the target, without a gradient (published: one squared
    difference that both sides receive, which has the same gradient but for a factor of 2).
    """

    settings_class: ClassVar[type[MethodSettings]] = ConsistencyMethod
    weighs_discovered: bool = True

    def __init__(self, tasks: Mapping[str, Task], settings: ConsistencyMethod) -> None:
        super().__init__(tasks, settings)
        self.settings: ConsistencyMethod = settings

    def stages(self) -> tuple[Stage, ...]:
        """A single stage."""
        return (Stage("consistency", self.settings.steps),)

    def prepare(self, batch: Batch, generator: torch.Generator, options: StepOptions = FIRST_STEP) -> TwoViews:
        """Draw the second view too."""
        first = super().prepare(batch, generator, options)
        second = strong_view(batch.image, self.settings.strong, generator, options.shard)
        return TwoViews(**vars(first), second=second.flip(-1) if self.mirrored else second)

    def terms(self, prepared: PreparedBatch, student: nn.Module, teacher: nn.Module | None = None) -> list[Term]:
        """Supervised terms of the first view, and a consistency term of each task."""
        assert isinstance(prepared, TwoViews)
        batch, settings, count = prepared.batch, self.settings, len(prepared.image)
        both, terms = student(torch.cat([prepared.image, prepared.second])), []
        weight = settings.consistency * sigmoid_ramp(prepared.options.step, settings.ramp * settings.steps)
        for name, task in self.tasks.items():
            absent, second = batch.unlabelled(name), self._straight(task, both[name], count)
            terms += label_terms(task, both[name], prepared)
            one, other = both[name].select(absent), second.select(absent)
            pixels = batch.pixels[absent]
            there = consistency_term(task, one, other, pixels, weight / 2, settings.distance)
            back = consistency_term(task, other, one, pixels, weight / 2, settings.distance)
            terms.append(replace(there, total=there.total + back.total))
        return terms

    def _straight(self, task: Task, both: TaskOutput, count: int) -> TaskOutput:
        """The output for the second view as one for the image itself."""
        logits, feature = both.logits[count:], both.feature[count:]
        return TaskOutput(task.flip_logits(logits) if self.mirrored else logits, feature)

    def counts(self, prepared: PreparedBatch) -> dict[str, Tensor]:
        """Labelled pixels, and pixels of the images without a label."""
        return super().counts(prepared) | absent_counts(prepared, "consistency")
