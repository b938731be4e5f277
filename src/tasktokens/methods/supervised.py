"""MTL baseline, and single-task learning when there is one task: only the losses of the given labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from tasktokens.config import MtlMethod
from tasktokens.data.sample import Batch
from tasktokens.methods.base import Grid, Method, Stage, StepOptions, Term, student_view, supervised_term
from tasktokens.models import at_least_one
from tasktokens.tasks import Task


class Supervised(Method):
    """Skip the missing losses, and the heads that they belong to."""

    network: ClassVar[str] = "mtl"

    def __init__(self, tasks: Mapping[str, Task], settings: MtlMethod) -> None:
        super().__init__(tasks)
        self.settings = settings

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("supervised", self.settings.steps),)

    def terms(self, batch: Batch, student: nn.Module, teacher: nn.Module | None, options: StepOptions) -> list[Term]:
        grid = Grid(batch.image, options)
        rows = {name: at_least_one(labels.rows) for name, labels in batch.labels.items()}
        outputs = student(student_view(batch, options), rows)
        return [supervised_term(task, outputs[name], batch.labels[name], grid) for name, task in self.tasks.items()]
