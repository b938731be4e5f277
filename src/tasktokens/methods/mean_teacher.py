"""Mean Teacher: the student must predict what a moving average of it predicts of another view."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from tasktokens.config import MethodSettings
from tasktokens.discovery.pseudo_labels import inside, pixels_per_cell
from tasktokens.losses import Term, masked_divergence, masked_loss
from tasktokens.methods.base import (
    METHODS,
    PreparedBatch,
    Stage,
    StepOptions,
    label_terms,
)
from tasktokens.methods.mtl import Supervised
from tasktokens.methods.self_training import absent_counts
from tasktokens.methods.strong_view import StrongView, strong_view
from tasktokens.models import TaskOutput
from tasktokens.tasks import Task

Distance = Literal["divergence", "squared"]


class MeanTeacherMethod(MethodSettings):
    """Consistency with a moving average of the student (Tarvainen & Valpola, NeurIPS 2017)."""

    name: Literal["mean_teacher"] = "mean_teacher"
    steps: int = Field(1000, ge=1, description="updates of the weights")
    ema: float = Field(0.99, ge=0, lt=1, description="decay of the moving average")
    consistency: float = Field(1.0, ge=0, description="weight of the consistency loss")
    ramp: float = Field(0.2, ge=0, le=1, description="share of the steps over which it grows to its weight")
    distance: Distance = Field(
        "divergence", description="between distributions: Kullback-Leibler, or as published the squared difference"
    )
    strong: StrongView = StrongView()
    """How the student's images differ from the teacher's."""


@METHODS.register("mean_teacher")
class MeanTeacher(Supervised):
    """The student's prediction of a strongly changed image must agree with its moving average's of the image itself.

    Source: Tarvainen, Valpola, *Mean teachers are better role models* (NeurIPS 2017,
    https://arxiv.org/abs/1703.01780). The average is also the result of the run, as there.

    Deviations: the loss is on unlabelled pairs of image and task alone (published: on all images); the weight grows by
    the published sigmoid, exp(-5 (1 - t)^2), over a share of the steps; the distance of distributions is the
    Kullback-Leibler divergence unless ``distance`` is ``squared``; noise is a change of colours and blur of the
    student's images, not of both and without shifts, which would move the pixels apart.
    """

    settings_class: ClassVar[type[MethodSettings]] = MeanTeacherMethod
    weighs_discovered: bool = True

    def __init__(self, tasks: Mapping[str, Task], settings: MeanTeacherMethod) -> None:
        super().__init__(tasks, settings)
        self.settings: MeanTeacherMethod = settings

    def stages(self) -> tuple[Stage, ...]:
        """One stage, with a moving average."""
        return (Stage("mean_teacher", self.settings.steps, ema=self.settings.ema),)

    def student_view(self, image_B3HW: Tensor, generator: torch.Generator, options: StepOptions) -> Tensor:
        """Colour changes, greys and blur."""
        return strong_view(image_B3HW, self.settings.strong, generator, options.shard)

    def terms(self, prepared: PreparedBatch, student: nn.Module, teacher: nn.Module | None = None) -> list[Term]:
        """Supervised terms, and with a teacher a consistency term of each task."""
        if teacher is None:
            return super().terms(prepared, student)
        batch, settings = prepared.batch, self.settings
        with torch.no_grad():
            taught = teacher(batch.image)
        outputs, terms = student(prepared.image), []
        weight = settings.consistency * sigmoid_ramp(prepared.options.step, settings.ramp * settings.steps)
        for name, task in self.tasks.items():
            absent = batch.unlabelled(name)
            terms += label_terms(task, outputs[name], prepared)
            other = outputs[name].select(absent), taught[name].select(absent)
            terms.append(consistency_term(task, *other, batch.pixels[absent], weight, settings.distance))
        return terms

    def counts(self, prepared: PreparedBatch) -> dict[str, Tensor]:
        """Labelled pixels, and pixels of the images without a label."""
        return super().counts(prepared) | absent_counts(prepared, "consistency")


def sigmoid_ramp(step: int, length: float) -> float:
    """The published growth of the weight, from exp(-5) to 1 over ``length`` steps.

    Examples:
        >>> [round(sigmoid_ramp(step, 10), 3) for step in (0, 5, 10, 99)]
        [0.007, 0.287, 1.0, 1.0]
    """
    return 1.0 if step >= length else math.exp(-5 * (1 - step / length) ** 2)


def consistency_term(
    task: Task, output: TaskOutput, target: TaskOutput, pixels_B1HW: Tensor, weight: float, distance: Distance
) -> Term:
    """How far the predictions for the same images are apart, at the head's size; padding does not count.

    Args:
        output, target: for the same images; no gradient reaches ``target``.
        pixels_B1HW: of these images, bool, False on padding.
    """
    logits, target_logits = output.logits, target.logits.detach()
    pixels = inside(pixels_B1HW, logits.shape[-2:])
    if distance == "squared":
        total = torch.where(pixels, squared_difference(task, logits, target_logits), 0.0).sum()
    elif task.has_distribution:
        total, _ = masked_divergence(logits, target_logits, pixels, torch.ones_like(pixels, dtype=torch.float32))
    else:
        ones = torch.ones_like(pixels, dtype=torch.float32)
        total, _ = masked_loss(task, logits, task.decode(target_logits), pixels, ones)
    total = total * pixels_per_cell(pixels_B1HW, logits)
    return Term(f"consistency/{task.name}", task.weight * weight, total, pixels_B1HW.sum().float())


def squared_difference(task: Task, logits_BKHW: Tensor, target_BKHW: Tensor) -> Tensor:
    """Of the two distributions, or of the two predictions where there is none, summed over channels: (B, 1, H, W)."""
    if task.has_distribution:
        difference = F.softmax(logits_BKHW.float(), dim=1) - F.softmax(target_BKHW.float(), dim=1)
    else:
        difference = task.decode(logits_BKHW) - task.decode(target_BKHW)
    return difference.square().sum(dim=1, keepdim=True)
