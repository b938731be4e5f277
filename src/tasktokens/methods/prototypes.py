"""Task prototypes: tasks help each other through what stands for them, never through predictions without a label."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from tasktokens.config import MethodSettings
from tasktokens.discovery.pseudo_labels import inside, pixels_per_cell
from tasktokens.losses import Term
from tasktokens.methods.base import METHODS, PreparedBatch, Stage, label_counts, supervised_term
from tasktokens.methods.mtl import Supervised
from tasktokens.models import head_rows
from tasktokens.models.layers import upsample


class PrototypesMethod(MethodSettings):
    """Task prototypes and knowledge retrieval (Oh, Kim, Kim, AAAI 2026)."""

    name: Literal["prototypes"] = "prototypes"
    steps: int = Field(1000, ge=1, description="updates of the weights")
    association: float = Field(0.1, ge=0, description="weight of: features are like the prototypes of their own task")
    enhancement: float = Field(0.1, ge=0, description="weight of making the image again of the shared feature")
    commitment: float = Field(0.1, ge=0, description="weight of the distance between features and codebook")


@METHODS.register("prototypes")
class Prototypes(Supervised):
    """Only given labels supervise; tasks share a codebook, and each attends to the prototypes of all tasks.

    The shared feature is the backbone's plus its nearest entry of a learned codebook; the image must be made again of
    it (smooth L1), so that it keeps what any task may need. Every task has prototypes; the association of a position
    with them all is learned by cross-entropy to its own task on labelled pairs, and says how much the attention that
    refines the feature takes of each task's.

    Source: Oh, Kim, Kim, *Task Prototype-Based Knowledge Retrieval for Multi-Task Learning from Partially Annotated
    Data* (AAAI 2026, https://arxiv.org/abs/2601.07474). Written from abstract and summaries: the codebook and its
    reconstruction loss, prototypes, an association loss and a transformer that retrieves by association.

    Deviations, since neither code nor all formulas were at hand: 256 codes and 16 prototypes per task; the
    association is the soft maximum of cosines over 0.1, its loss a cross-entropy; retrieval is one block of
    cross-attention at half the heads' size with the log association as a bias; the codebook has VQ-VAE's losses; the
    weights are ours, chosen so that these losses stay below those of the labels.
    """

    settings_class: ClassVar[type[MethodSettings]] = PrototypesMethod
    network: str = "prototypes"

    def stages(self) -> tuple[Stage, ...]:
        """A single stage."""
        return (Stage("prototypes", self.settings.steps),)

    def terms(self, prepared: PreparedBatch, student: nn.Module, teacher: nn.Module | None = None) -> list[Term]:
        """Supervised and association terms of each task, and two of the shared feature."""
        labels, pixels, settings = prepared.batch.labels, prepared.batch.pixels, self.settings
        outputs = student(prepared.image, {name: head_rows(item.rows, item.absent) for name, item in labels.items()})
        terms = []
        for number, (name, task) in enumerate(self.tasks.items()):
            output, rows = outputs[name], labels[name].rows
            terms.append(supervised_term(task, output, labels[name], prepared.sampler))
            logits = output.association[: len(rows)]
            own = -F.log_softmax(logits, dim=1)[:, number : number + 1]
            total = torch.where(inside(pixels[rows], logits.shape[-2:]), own, 0.0).sum() if len(rows) else logits.sum()
            idle = 0.0 * output.association.sum()
            terms.append(
                Term(f"association/{name}", settings.association * task.weight,
                     total * pixels_per_cell(pixels, logits) + idle, pixels[rows].sum().float())
            )  # fmt: skip
        return [*terms, *self._shared(prepared, outputs[next(iter(self.tasks))].image, outputs)]

    def _shared(self, prepared: PreparedBatch, image: Tensor, outputs: dict[str, object]) -> list[Term]:
        """The image made again, and the distance from the codebook."""
        pixels, settings = prepared.batch.pixels, self.settings
        size, count = image.shape[-2:], pixels.sum().float()
        kept = inside(pixels, size)
        target = upsample(prepared.image.float() / 255, size)
        error = F.smooth_l1_loss(image, target, reduction="none").mean(dim=1, keepdim=True)
        commitment = next(iter(outputs.values())).commitment  # type: ignore[attr-defined]
        return [
            Term(name, weight, torch.where(kept, each, 0.0).sum() * pixels_per_cell(pixels, each), count)
            for name, weight, each in (
                ("enhancement", settings.enhancement, error), ("commitment", settings.commitment, commitment),
            )
        ]  # fmt: skip

    def counts(self, prepared: PreparedBatch) -> dict[str, Tensor]:
        """Labelled pixels, pixels of labelled images, and all pixels that are no padding."""
        labels, pixels = prepared.batch.labels, prepared.batch.pixels
        labelled = {f"loss/{name}": count for name, count in label_counts(prepared).items()}
        own = {f"association/{name}": pixels[item.rows].sum().float() for name, item in labels.items()}
        return labelled | own | dict.fromkeys(("enhancement", "commitment"), pixels.sum().float())
