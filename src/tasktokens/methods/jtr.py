"""JTR: the predictions of all tasks, and the same with labels in their place, must be close in one latent space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from tasktokens.config import MethodSettings
from tasktokens.data.transforms import resize_labels
from tasktokens.discovery.pseudo_labels import inside, pixels_per_cell
from tasktokens.losses import Term
from tasktokens.methods.base import METHODS, PreparedBatch, Stage, label_counts, supervised_term
from tasktokens.methods.mtl import Supervised
from tasktokens.models import TaskOutput
from tasktokens.models.joint import JointAutoEncoder
from tasktokens.tasks import Task


class JtrMethod(MethodSettings):
    """Joint-task regularisation in a latent space of all tasks (Nishi et al., CVPR 2024)."""

    name: Literal["jtr"] = "jtr"
    steps: int = Field(1000, ge=1, description="updates of the weights")
    distance: float = Field(4.0, ge=0, description="weight of the distance between the two stacks' latents")
    reconstruction: float = Field(2.0, ge=0, description="weight of the auto-encoder's reconstruction loss")
    encoder_lr: float = Field(1.0, gt=0, description="factor of optim.lr for the auto-encoder")
    encoder_width: int = Field(64, ge=8, le=1024, description="channels of the auto-encoder's finest layers")


@METHODS.register("jtr")
class Jtr(Supervised):
    """All predictions are stacked along the channels and encoded; labels in place of predictions must change little.

    The distance, one minus the cosine, between the latents of the two stacks trains the student and the encoder; only
    the predictions' stack has a gradient to the student. The reconstruction loss trains encoder and decoder alone, and
    keeps the encoder from mapping everything to one point. The cost is linear in the number of tasks.

    Source: Nishi, Kim, Li, Pfister, *Joint-Task Regularization for Partially Labeled Multi-Task Learning* (CVPR 2024,
    https://arxiv.org/abs/2404.01976). Written from the paper's description; no code of the authors is used.

    Deviations: the stacks are those of the heads' own size, a quarter of the image's, and the latent is at a quarter of
    that; where a label has void pixels, its prediction stays in the stack; padding does not count; the auto-encoder is
    a small convolutional one and not a SegNet, with a standardised latent; reconstruction is the squared error,
    averaged over channels, of both stacks; the schedule is the run's.
    """

    settings_class: ClassVar[type[MethodSettings]] = JtrMethod

    def __init__(self, tasks: Mapping[str, Task], settings: JtrMethod) -> None:
        super().__init__(tasks, settings)
        self.settings: JtrMethod = settings
        self.joint: JointAutoEncoder | None = None

    def stages(self) -> tuple[Stage, ...]:
        """A single stage."""
        return (Stage("jtr", self.settings.steps),)

    def begin(self, student: nn.Module) -> None:
        """Make the auto-encoder."""
        channels = sum(task.map_channels for task in self.tasks.values())
        self.joint = JointAutoEncoder(channels, self.settings.encoder_width)

    def state(self) -> nn.Module | None:
        """The auto-encoder."""
        return self.joint

    @property
    def state_lr(self) -> float:
        """``encoder_lr``."""
        return self.settings.encoder_lr

    def terms(self, prepared: PreparedBatch, student: nn.Module, teacher: nn.Module | None = None) -> list[Term]:
        """Supervised terms, the distance of the two stacks, and the auto-encoder's reconstruction of both."""
        assert self.joint is not None
        outputs: dict[str, TaskOutput] = student(prepared.image)
        labels, pixels, settings = prepared.batch.labels, prepared.batch.pixels, self.settings
        terms = [
            supervised_term(task, outputs[name].select(labels[name].rows), labels[name], prepared.sampler)
            for name, task in self.tasks.items()
        ]
        predicted, target = self._stacks(prepared, outputs)
        size, count = predicted.shape[-2:], len(predicted)
        # The student's stack twice: its latent is compared, and the copy without a student behind is reconstructed.
        copies = torch.cat([predicted.detach(), target])
        latents = self.joint.encode(torch.cat([predicted, copies]))
        apart = 1 - F.cosine_similarity(latents[:count].float(), latents[2 * count :].float(), dim=1).unsqueeze(1)
        apart = torch.where(inside(pixels, apart.shape[-2:]), apart, 0.0)
        error = (self.joint.decode(latents[count:], size) - copies).float().square().mean(dim=1, keepdim=True)
        error = torch.where(inside(pixels, size).repeat(2, 1, 1, 1), error, 0.0) / 2
        whole = pixels.sum().float()
        return [
            *terms,
            Term("joint_distance", settings.distance, apart.sum() * pixels_per_cell(pixels, apart), whole),
            Term("reconstruction", settings.reconstruction, error.sum() * pixels_per_cell(pixels, error), whole),
        ]

    def counts(self, prepared: PreparedBatch) -> dict[str, Tensor]:
        """Labelled pixels, and all pixels that are no padding."""
        labelled = {f"loss/{name}": count for name, count in label_counts(prepared).items()}
        return labelled | dict.fromkeys(("joint_distance", "reconstruction"), prepared.batch.pixels.sum().float())

    def _stacks(self, prepared: PreparedBatch, outputs: Mapping[str, TaskOutput]) -> tuple[Tensor, Tensor]:
        """All predicted maps (B, E, h, w), and the same without gradient and with labels where they are given."""
        predicted, target = [], []
        for name, task in self.tasks.items():
            labels, of_task = prepared.batch.labels[name], task.prediction_map(outputs[name].logits)
            value, valid = resize_labels(task, labels, (of_task.shape[-2], of_task.shape[-1]))
            other = of_task.detach()
            given = torch.where(valid, task.label_map(value).to(other.dtype), other[labels.rows])
            predicted.append(of_task)
            target.append(other.index_copy(0, labels.rows, given))
        return torch.cat(predicted, dim=1), torch.cat(target, dim=1)
