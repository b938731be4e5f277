"""Single-task learning: a network per task, all in one run; the reference of Δ_MTL."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import nn

from tasktokens.config import MethodSettings
from tasktokens.losses import Term
from tasktokens.methods.base import METHODS, PreparedBatch, rows_to_learn
from tasktokens.methods.mtl import Supervised
from tasktokens.models import head_rows


class StlMethod(MethodSettings):
    """A backbone and a head per task, losses of given labels only: single-task networks in one run."""

    name: Literal["stl"] = "stl"
    steps: int = Field(1000, ge=1, description="updates of the weights")


@METHODS.register("stl")
class SingleTask(Supervised):
    """Every task learns with a network of its own from the images that have its label.

    Deviations from as many runs of ``mtl`` with one task each: a step's batch is drawn from all images, so a network
    sees as many images per step as have its label (in runs of one task, a whole batch of images with any label, too);
    the gradient is clipped by the norm over all networks; the loss of a task with a weight other than 1 is weighted.
    """

    settings_class: ClassVar[type[MethodSettings]] = StlMethod
    weighs_discovered: bool = True
    network: str = "stl"

    def terms(self, prepared: PreparedBatch, student: nn.Module, teacher: nn.Module | None = None) -> list[Term]:
        """The supervised term of each task; ``teacher`` is not used."""
        batch = prepared.batch
        rows = {name: head_rows(rows_to_learn(batch, name), batch.unlabelled(name)) for name in batch.labels}
        return self.learned_terms(prepared, student(prepared.image, rows))
