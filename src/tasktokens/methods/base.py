"""How partial labels are used: a method says what its stages are and which loss terms a batch gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from tasktokens.config import MethodSettings
from tasktokens.data.sample import Batch, Labels
from tasktokens.data.sharding import WHOLE_BATCH, BatchShard
from tasktokens.data.transforms import photometric
from tasktokens.errors import ConfigError
from tasktokens.losses import Term, masked_loss
from tasktokens.metrics import Reliability
from tasktokens.models import TaskOutput
from tasktokens.registry import Registry, View
from tasktokens.tasks import Task


@dataclass(frozen=True)
class Stage:
    """A part of training with its own optimiser and schedule."""

    name: str
    steps: int
    student: str = "fresh"
    """What the student starts from: ``fresh``, or ``teacher``: the network of the stage before."""
    teacher: bool = False
    """Whether the network of the stage before, frozen, is the teacher."""
    ema: float | None = None
    """If set, the teacher is the moving average of the student with this decay instead."""


@dataclass(frozen=True)
class StepOptions:
    """What a step draws at random, from a generator that depends on (seed, stage, step) alone.

    Each part of a step's batch gets a fresh generator.
    """

    generator: torch.Generator
    step: int = 0
    photometric: float = 0.0
    loss_stride: int = 1
    part: BatchShard = WHOLE_BATCH


class Calibrator(Protocol):
    """What a method measures of a teacher, against visible labels of held-out images."""

    def due(self, stage: Stage, step: int) -> bool:
        """Whether to measure before step number ``step`` (from 0) of a stage; must depend on nothing else."""

    def start(self) -> dict[str, Reliability]:
        """Empty sums by task."""

    def add(self, sums: Mapping[str, Reliability], batch: Batch, teacher: nn.Module) -> None:
        """Add a batch, whose labels are visible ones."""

    def finish(self, sums: Mapping[str, Reliability]) -> None:
        """Take in the sums over all images and ranks."""


class Method(ABC):
    """A way to learn from partial labels.

    A subclass is registered in `METHODS` and built with (tasks, settings). ``settings_class`` is the class of its
    settings; ``network`` names the network that it needs (`tasktokens.models.NETWORKS`).
    """

    settings_class: ClassVar[type[MethodSettings]]
    network: ClassVar[str]

    def __init__(self, tasks: Mapping[str, Task], settings: Any = None) -> None:
        self.tasks = dict(tasks)

    @abstractmethod
    def stages(self) -> tuple[Stage, ...]:
        """The stages in order."""

    @property
    def steps(self) -> int:
        """Optimiser steps of all stages together."""
        return sum(stage.steps for stage in self.stages())

    def state(self) -> nn.Module | None:
        """What the method itself has learned and a checkpoint must hold: buffers of a module, or None."""
        return None

    def calibrator(self) -> Calibrator | None:
        """What has to be measured on held-out images now and then, or None."""
        return None

    def observe(self, means: Mapping[str, Tensor]) -> None:  # noqa: B027, most methods learn nothing themselves
        """Take in the means of a step's terms, which are those over all ranks. Must not wait for the device."""

    @abstractmethod
    def terms(self, batch: Batch, student: nn.Module, teacher: nn.Module | None, options: StepOptions) -> list[Term]:
        """Loss terms of a batch; ``student`` is in training mode, ``teacher`` in evaluation mode."""

    def counts(self, batch: Batch, teacher: nn.Module | None, options: StepOptions) -> dict[str, Tensor]:
        """The count of each term of `terms` that has a weight, by name, from the batch alone; there may be more.

        A step in several parts divides each part's sums by the counts of all, before the others are computed. A method
        without this raises `ConfigError` where ``optim.accumulate`` is above 1.
        """
        raise ConfigError(f"{type(self).__name__} cannot take a batch in parts; leave optim.accumulate at 1")


METHODS: Registry[type[Method]] = Registry("method", "tasktokens.methods")
METHOD_SETTINGS = View(METHODS, lambda method: method.settings_class)
"""The class of the ``method`` section by name."""


class PixelSampler:
    """The pixels of a step's losses: every n-th row and column, at a random offset.

    Neighbouring pixels say nearly the same; a stride of 2 costs a quarter at full-size losses, and since the offset is
    drawn anew each step all pixels are seen in the end.
    """

    def __init__(self, image_B3HW: Tensor, options: StepOptions) -> None:
        stride = options.loss_stride
        self._stride = stride
        self._top, self._left = (int(v) for v in torch.randint(stride, (2,), generator=options.generator))
        height, width = image_B3HW.shape[-2:]
        self.size = (len(range(self._top, height, stride)), len(range(self._left, width, stride)))

    def take(self, x_BCHW: Tensor) -> Tensor:
        """Those pixels of a map at image size."""
        return x_BCHW[..., self._top :: self._stride, self._left :: self._stride]

    def logits(self, output: TaskOutput) -> Tensor:
        """A head's logits at the grid's size."""
        return output.logits_at(self.size)


def student_view(batch: Batch, options: StepOptions) -> Tensor:
    """The batch's images with colour changes; a teacher reads them as they are."""
    return photometric(batch.image, options.photometric, options.generator, part=options.part)


def label_counts(batch: Batch, grid: PixelSampler) -> dict[str, Tensor]:
    """The count of `supervised_term` for each task: labelled pixels."""
    return {name: grid.take(labels.valid).sum().float() for name, labels in batch.labels.items()}


def supervised_term(
    task: Task, output: TaskOutput, labels: Labels, grid: PixelSampler, valid_n1hw: Tensor | None = None
) -> Term:
    """Loss of the given labels.

    Args:
        output: of the labelled images of the task, in order; with none of them, of any image.
        valid_n1hw: which pixels of the grid count; default: those that the labels call valid.
    """
    logits = grid.logits(output)[: len(labels.rows)]
    valid = grid.take(labels.valid) if valid_n1hw is None else valid_n1hw
    total, count = masked_loss(task, logits, grid.take(labels.value), valid)
    # What no term learns from stays in the graph: ranks wait for the gradient of every parameter.
    idle = [x.float().sum() for x in (output.confidence, output.token) if x is not None]
    return Term(f"loss/{task.name}", task.weight, total + sum(0.0 * x for x in idle), count)
