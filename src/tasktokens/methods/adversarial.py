"""Adversarial learning: a discriminator per task must not tell predictions of unlabelled images from labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from tasktokens.config import MethodSettings
from tasktokens.losses import Term, without_invalid
from tasktokens.methods.base import METHODS, PreparedBatch, Stage, label_counts, supervised_term
from tasktokens.methods.mtl import Supervised
from tasktokens.methods.self_training import absent_counts
from tasktokens.models import TaskOutput
from tasktokens.models.joint import MapDiscriminator
from tasktokens.tasks import Task


class AdversarialMethod(MethodSettings):
    """A discriminator per task on predicted maps (Hung et al., BMVC 2018)."""

    name: Literal["adversarial"] = "adversarial"
    steps: int = Field(1000, ge=1, description="updates of the weights")
    adversarial: float = Field(0.001, ge=0, description="weight of the loss that makes predictions look like labels")
    ramp: float = Field(0.1, ge=0, le=1, description="share of the steps over which it grows to its weight")
    discriminator_lr: float = Field(0.4, gt=0, description="factor of optim.lr for the discriminators")
    discriminator_width: int = Field(64, ge=8, le=1024, description="channels of the discriminators' first layer")


@METHODS.register("adversarial")
class Adversarial(Supervised):
    """Discriminators learn to tell labels from predictions for images without one; the student learns to fool them.

    Both are losses of one step: the discriminators see predictions without gradient, and the student's loss goes
    through discriminators whose weights get none of it. Loss and discriminator are fully convolutional.

    Sources: Hung et al., *Adversarial Learning for Semi-Supervised Semantic Segmentation* (BMVC 2018,
    https://arxiv.org/abs/1802.07934): architecture of the discriminators, weight of the loss on unlabelled images,
    the ratio of the learning rates (1e-4 to 2.5e-4); Luc et al. (https://arxiv.org/abs/1611.08408) for the idea.

    Deviations: one discriminator for every task of any kind, on its maps in [0, 1] (`Task.label_map`); the adversarial
    loss is on unlabelled images alone (published: also on labelled ones), grows at first, and there are no
    pseudo-labels by the discriminator's confidence (`self_training` has those); where a label is void, the prediction
    stands in the label's map and does not count, or void alone would give labels away.
    """

    settings_class: ClassVar[type[MethodSettings]] = AdversarialMethod

    def __init__(self, tasks: Mapping[str, Task], settings: AdversarialMethod) -> None:
        super().__init__(tasks, settings)
        self.settings: AdversarialMethod = settings
        self.discriminators: nn.ModuleList | None = None

    def stages(self) -> tuple[Stage, ...]:
        """A single stage."""
        return (Stage("adversarial", self.settings.steps),)

    def begin(self, student: nn.Module) -> None:
        """Make the discriminators, in the order of the tasks."""
        width = self.settings.discriminator_width
        self.discriminators = nn.ModuleList([MapDiscriminator(x.map_channels, width) for x in self.tasks.values()])

    def state(self) -> nn.Module | None:
        """The discriminators."""
        return self.discriminators

    @property
    def state_lr(self) -> float:
        """``discriminator_lr``."""
        return self.settings.discriminator_lr

    def terms(self, prepared: PreparedBatch, student: nn.Module, teacher: nn.Module | None = None) -> list[Term]:
        """Supervised terms; of each task the discriminator's losses on labels and predictions, and the student's."""
        assert self.discriminators is not None
        outputs, terms = student(prepared.image), []
        ramp = max(1.0, self.settings.ramp * self.settings.steps)
        weight = self.settings.adversarial * min(1.0, (prepared.options.step + 1) / ramp)
        for (name, task), discriminator in zip(self.tasks.items(), self.discriminators, strict=True):
            output, labels = outputs[name], prepared.batch.labels[name]
            terms.append(supervised_term(task, output.select(labels.rows), labels, prepared.sampler))
            real, valid = self._label_maps(task, output, prepared)
            pixels = prepared.batch.pixels[labels.absent]
            fake = task.prediction_map(output.select(labels.absent).logits_at(prepared.sampler.image_size))
            frozen = {key: p.detach() for key, p in discriminator.named_parameters()}
            terms += [
                _term(f"discriminator_labels/{name}", 1.0, _logits(discriminator, real), valid, 1.0),
                _term(f"discriminator/{name}", 1.0, _logits(discriminator, fake.detach()), pixels, 0.0),
                _term(f"adversarial/{name}", weight, _logits(discriminator, fake, frozen), pixels, 1.0),
            ]
        return terms

    def counts(self, prepared: PreparedBatch) -> dict[str, Tensor]:
        """Pixels with a label, and pixels of the images without one."""
        labels = prepared.batch.labels
        whole = {f"discriminator_labels/{name}": item.valid.sum().float() for name, item in labels.items()}
        absent = absent_counts(prepared, "discriminator") | absent_counts(prepared, "adversarial")
        return {f"loss/{name}": count for name, count in label_counts(prepared).items()} | whole | absent

    def _label_maps(self, task: Task, output: TaskOutput, prepared: PreparedBatch) -> tuple[Tensor, Tensor]:
        """Labels as maps (n, E, H, W), with predictions where they are void, and where they are not (n, 1, H, W)."""
        labels = prepared.batch.labels[task.name]
        given = task.label_map(without_invalid(task, labels.value, labels.valid))
        with torch.no_grad():
            predicted = task.prediction_map(output.select(labels.rows).logits_at(prepared.sampler.image_size))
        return torch.where(labels.valid, given.to(predicted.dtype), predicted), labels.valid


def _logits(discriminator: nn.Module, maps: Tensor, parameters: dict[str, Tensor] | None = None) -> Tensor:
    """What a discriminator, or one with other weights, says of n maps; n may be 0."""
    if len(maps) == 0:
        return maps.float().sum(dim=1, keepdim=True)
    found: Tensor = discriminator(maps) if parameters is None else functional_call(discriminator, parameters, (maps,))
    return found


def _term(name: str, weight: float, logits_B1HW: Tensor, pixels_B1HW: Tensor, target: float) -> Term:
    """Binary cross-entropy to "label" (1) or "prediction" (0), averaged over the pixels that count."""
    loss = F.binary_cross_entropy_with_logits(logits_B1HW, torch.full_like(logits_B1HW, target), reduction="none")
    return Term(name, weight, torch.where(pixels_B1HW, loss, 0.0).sum(), pixels_B1HW.sum().float())
