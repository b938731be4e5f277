"""MTL baseline, and single-task learning when there is one task: only the losses of the given labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from tasktokens.config import MethodSettings
from tasktokens.losses import Term
from tasktokens.methods.base import (
    METHODS,
    Method,
    PreparedBatch,
    Stage,
    label_counts,
    rows_to_learn,
    supervised_term,
    weighted_counts,
    weighted_output,
    weighted_terms,
)
from tasktokens.models import TaskOutput, at_least_one, head_rows
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
    weighs_discovered: bool = True

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
            rows = {name: head_rows(rows_to_learn(batch, name), batch.unlabelled(name)) for name in labels}
        else:
            # Images without any label, the majority for a single-task network, are not forwarded: they add no loss.
            useful = at_least_one(batch.labelled)
            place = torch.zeros(len(image), dtype=torch.int64, device=image.device)
            place[useful] = torch.arange(len(useful), device=image.device)
            image, rows = image[useful], {name: place[at_least_one(rows_to_learn(batch, name))] for name in labels}
        return self.learned_terms(prepared, student(image, rows))

    def learned_terms(self, prepared: PreparedBatch, outputs: Mapping[str, TaskOutput]) -> list[Term]:
        """Terms of given labels and of those that were discovered before, from outputs for `rows_to_learn`."""
        batch, terms = prepared.batch, []
        for name, task in self.tasks.items():
            terms.append(supervised_term(task, outputs[name], batch.labels[name], prepared.sampler))
            if name in batch.weighted:
                terms += weighted_terms(task, weighted_output(outputs[name], batch, name), prepared)
        return terms

    def counts(self, prepared: PreparedBatch) -> dict[str, Tensor]:
        """Labelled pixels per task, given and discovered before."""
        return {f"loss/{name}": n for name, n in label_counts(prepared).items()} | weighted_counts(prepared)
