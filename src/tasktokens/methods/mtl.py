"""MTL baseline, and single-task learning when there is one task: only the losses of the given labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from tasktokens.config import MethodSettings
from tasktokens.losses import Term
from tasktokens.methods.base import METHODS, Method, PreparedBatch, Stage, label_counts, supervised_term
from tasktokens.models import at_least_one, head_rows
from tasktokens.tasks import Task


class MtlMethod(MethodSettings):
    """Shared backbone and one head per task, losses of given labels only; with one task, the single-task network.

    Examples:
        >>> MtlMethod(steps=200).name
        'mtl'
    """

    name: Literal["mtl"] = "mtl"
    steps: int = Field(1000, ge=1, description="updates of the weights")


@METHODS.register("mtl")
class Supervised(Method):
    """Skips the heads and losses of missing labels.

    Examples:
        >>> Supervised({}, MtlMethod(steps=200)).stages()[0].steps
        200
    """

    settings_class: ClassVar[type[MethodSettings]] = MtlMethod
    network: str = "mtl"

    def __init__(self, tasks: Mapping[str, Task], settings: MethodSettings) -> None:
        super().__init__(tasks)
        self.settings: Any = settings

    def stages(self) -> tuple[Stage, ...]:
        """A single stage."""
        return (Stage("supervised", self.settings.steps),)

    def terms(self, prepared: PreparedBatch, student: nn.Module, teacher: nn.Module | None = None) -> list[Term]:
        """The supervised term of each task; ``teacher`` is not used."""
        image, batch = prepared.image, prepared.batch
        labels = batch.labels
        if batch.labelled is None:
            rows = {name: head_rows(item.rows, item.absent) for name, item in labels.items()}
        else:
            # Images without any label, the majority for a single-task network, are not forwarded: they add no loss.
            useful = at_least_one(batch.labelled)
            place = torch.zeros(len(image), dtype=torch.int64, device=image.device)
            place[useful] = torch.arange(len(useful), device=image.device)
            image, rows = image[useful], {name: place[at_least_one(item.rows)] for name, item in labels.items()}
        outputs = student(image, rows)
        return [supervised_term(task, outputs[n], labels[n], prepared.sampler) for n, task in self.tasks.items()]

    def counts(self, prepared: PreparedBatch) -> dict[str, Tensor]:
        """Labelled pixels per task."""
        return {f"loss/{name}": count for name, count in label_counts(prepared).items()}
