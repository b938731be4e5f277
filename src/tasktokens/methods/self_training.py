"""Self-training: pseudo-labels of a teacher where labels are missing, with the network of the MTL baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from tasktokens.config import MethodSettings
from tasktokens.discovery.pseudo_labels import (
    discover_labels,
    forward_views,
    inside,
    loss_on_discovered,
    pixels_per_cell,
)
from tasktokens.discovery.thresholds import Thresholds
from tasktokens.discovery.views import ImageView, parse_views, second_view
from tasktokens.losses import Term
from tasktokens.methods.base import (
    METHODS,
    PreparedBatch,
    Stage,
    StepOptions,
    label_terms,
)
from tasktokens.methods.mtl import Supervised
from tasktokens.methods.strong_view import StrongView, strong_view
from tasktokens.models import TaskOutput
from tasktokens.tasks import Task


class SelfTrainingMethod(MethodSettings):
    """Pseudo-labels of an MTL network supervise a second one (Lee 2013; Noisy Student, CVPR 2020)."""

    name: Literal["self_training"] = "self_training"
    stage1_steps: int = Field(500, ge=0, description="steps of the teacher on given labels; 0: see --init-from")
    stage2_steps: int = Field(500, ge=1, description="steps of each student on given labels and pseudo-labels")
    rounds: int = Field(1, ge=1, le=100, description="number of students, each taught by the one before")
    student: Literal["fresh", "teacher"] = Field("teacher", description="what a student starts from; published: fresh")
    pseudo: float = Field(1.0, ge=0, description="weight of the loss on pseudo-labels")
    targets: Literal["distribution", "value"] = Field(
        "distribution", description="soft pseudo-labels (the teacher's distribution) or hard ones (its value)"
    )
    thresholds: Literal["fixed", "adaptive"] = Field(
        "adaptive", description="fixed: each task's own; adaptive: the teacher's mean confidence, per task and class"
    )
    views: list[ImageView] = Field(
        list(second_view()), description="how the teacher sees each image, whose results are averaged: [zoom, mirrored]"
    )
    strong: StrongView = StrongView()
    """How the student's images differ from the teacher's."""

    @field_validator("views", mode="before")
    @classmethod
    def _list_of_views(cls, value: Any) -> Any:
        return parse_views(value)


@METHODS.register("self_training")
class SelfTraining(Supervised):
    """A network learns from the given labels; frozen, it labels what has none for a student, and so on in rounds.

    Sources: Lee, *Pseudo-Label* (ICML workshop 2013); Xie et al., *Self-training with Noisy Student improves ImageNet
    classification* (CVPR 2020, https://arxiv.org/abs/1911.04252); for several tasks Ghiasi et al., *Multi-Task
    Self-Training for Learning General Representations* (ICCV 2021, https://arxiv.org/abs/2108.11353).

    Deviations: network, thresholds, views of the teacher and colour changes of the student are those of our HTT, so
    that what is left between the two is HTT itself; the student keeps the teacher's size and starts from its weights;
    its noise is the colour changes alone (Noisy Student has dropout and stochastic depth too); one teacher for all
    tasks, where MuST has a specialist for each.
    """

    settings_class: ClassVar[type[MethodSettings]] = SelfTrainingMethod
    weighs_discovered: bool = True

    def __init__(self, tasks: Mapping[str, Task], settings: SelfTrainingMethod) -> None:
        super().__init__(tasks, settings)
        self.settings: SelfTrainingMethod = settings
        self.thresholds = Thresholds(tasks, settings.thresholds == "adaptive")

    def stages(self) -> tuple[Stage, ...]:
        """The teacher's stage, then one per round."""
        settings = self.settings
        names = ["students", *(f"students{number}" for number in range(2, settings.rounds + 1))]
        students = [Stage(name, settings.stage2_steps, settings.student, teacher=True) for name in names]
        return Stage("supervised", settings.stage1_steps), *students

    def state(self) -> nn.Module:
        """The thresholds."""
        return self.thresholds

    def observe(self, means: Mapping[str, Tensor]) -> None:
        """Update adaptive thresholds by the teacher's mean confidences."""
        self.thresholds.observe(means)

    def student_view(self, image_B3HW: Tensor, generator: torch.Generator, options: StepOptions) -> Tensor:
        """With stronger changes once there is a teacher."""
        if not options.teacher:
            return super().student_view(image_B3HW, generator, options)
        return strong_view(image_B3HW, self.settings.strong, generator, options.shard)

    def terms(self, prepared: PreparedBatch, student: nn.Module, teacher: nn.Module | None = None) -> list[Term]:
        """Supervised terms; with a teacher also those of pseudo-labels."""
        if teacher is None:
            return super().terms(prepared, student)
        batch, settings = prepared.batch, self.settings
        taught = forward_views(self.tasks, teacher, batch.image, settings.views, self.mirrored)
        outputs, terms = student(prepared.image), []
        for name, task in self.tasks.items():
            terms += label_terms(task, outputs[name], prepared)
            terms += pseudo_terms(task, outputs[name], taught[name], prepared, self.thresholds, settings.targets)
        return [replace(t, weight=t.weight * settings.pseudo) if t.name.startswith("pseudo/") else t for t in terms]

    def counts(self, prepared: PreparedBatch) -> dict[str, Tensor]:
        """Labelled pixels, and pixels of the images without a label."""
        return super().counts(prepared) | absent_counts(prepared)


def pseudo_terms(
    task: Task, output: TaskOutput, taught: TaskOutput, prepared: PreparedBatch, thresholds: Thresholds, targets: str
) -> list[Term]:
    """The loss on what a teacher says with confidence of the images without a label, at the head's own size.

    The mean is over all pixels of these images, so that a few confident pixels weigh little.

    Args:
        output, taught: of student and teacher, for the whole batch.
        targets: ``distribution`` or ``value``.
    """
    absent, image_pixels = prepared.batch.unlabelled(task.name), prepared.batch.pixels
    logits, teacher_logits = output.logits[absent], taught.logits[absent]
    pixels = inside(image_pixels[absent], logits.shape[-2:])
    found = discover_labels(task, teacher_logits, pixels, thresholds=thresholds)
    total, kept = loss_on_discovered(task, logits, teacher_logits, found, targets)
    total = total * pixels_per_cell(image_pixels, logits)
    return [
        Term(f"pseudo/{task.name}", task.weight * task.discovered_weight, total, image_pixels[absent].sum().float()),
        Term(f"kept/{task.name}", 0.0, kept, pixels.sum().float()),
        *thresholds.statistics(task, found.value, found.confidence, pixels),
    ]


def absent_counts(prepared: PreparedBatch, kind: str = "pseudo") -> dict[str, Tensor]:
    """Pixels, without padding, of the images that have no label of a task: the count of ``{kind}/{task}``."""
    batch = prepared.batch
    return {f"{kind}/{name}": batch.pixels[batch.unlabelled(name)].sum().float() for name in batch.labels}
