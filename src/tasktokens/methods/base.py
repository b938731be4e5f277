"""How partial labels are used: a method says what its stages are and which loss terms a batch gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from tasktokens.config import MethodSettings, components
from tasktokens.data.sample import Batch, Labels
from tasktokens.data.sharding import WHOLE_BATCH, BatchShard
from tasktokens.data.transforms import photometric
from tasktokens.discovery.views import ImageView
from tasktokens.errors import ConfigError
from tasktokens.losses import Term, masked_loss
from tasktokens.metrics import Reliability
from tasktokens.models import TaskOutput
from tasktokens.registry import Registry
from tasktokens.tasks import Task


@dataclass(frozen=True)
class Stage:
    """A part of training with its own optimiser and schedule.

    Attributes:
        name: as in the log and in checkpoints.
        steps: updates of the weights.

    Examples:
        >>> Stage("online", 1000, ema=0.99).has_teacher
        True
    """

    name: str
    steps: int
    student: str = "fresh"
    """What the student starts from: ``fresh``, or ``teacher``: the network of the stage before."""
    teacher: bool = False
    """Whether the network of the stage before, frozen, is the teacher of every step."""
    discovered: bool = False
    """Whether the network of the stage before discovers labels once, before the first step, which are then learned
    from: the steps have no teacher, and their batches have `Batch.discovered`."""
    ema: float | None = None
    """If set, the teacher is the moving average of the student with this decay instead."""

    @property
    def has_teacher(self) -> bool:
        """Whether each step has a teacher, of either kind."""
        return self.teacher or self.ema is not None


@dataclass(frozen=True)
class StepOptions:
    """What a method knows of a step besides its batch.

    Attributes:
        step: number of the step within its stage, from 0.
        teacher: whether the student has a teacher.
        photometric: strength of colour changes, 0 to 1.
        loss_stride: losses use every n-th row and column.
        shard: which images of the step's whole batch these are.
        discovered: whether the batch has discovered labels in place of a teacher.

    Examples:
        >>> StepOptions(step=20, photometric=0.3).shard == WHOLE_BATCH
        True
    """

    step: int = 0
    teacher: bool = False
    photometric: float = 0.0
    loss_stride: int = 1
    shard: BatchShard = WHOLE_BATCH
    discovered: bool = False


FIRST_STEP = StepOptions()
"""The first step on a whole batch without a teacher."""


@dataclass(frozen=True)
class PixelSampler:
    """The pixels of a step's losses: every n-th row and column, from an offset on.

    Neighbouring pixels are nearly redundant: a stride of 2 makes full-size losses four times cheaper, and the offset is
    redrawn in each step, so all pixels are used over time.

    Attributes:
        image_size: (height, width).
        stride: n.
        top, left: the first row and column.

    Examples:
        >>> sampler = PixelSampler((5, 6), stride=2, top=1, left=0)
        >>> sampler.size, sampler.subsample(torch.zeros(1, 3, 5, 6)).shape
        ((2, 3), torch.Size([1, 3, 2, 3]))
    """

    image_size: tuple[int, int]
    stride: int = 1
    top: int = 0
    left: int = 0

    @classmethod
    def draw(cls, image_B3HW: Tensor, stride: int, generator: torch.Generator) -> PixelSampler:
        """A sampler with a random offset for images of this size."""
        top, left = (int(v) for v in torch.randint(stride, (2,), generator=generator))
        return cls((image_B3HW.shape[-2], image_B3HW.shape[-1]), stride, top, left)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the sampled grid."""
        height, width = self.image_size
        return len(range(self.top, height, self.stride)), len(range(self.left, width, self.stride))

    def subsample(self, x_BCHW: Tensor) -> Tensor:
        """The sampled pixels of a map (B, C, H, W) at image size: (B, C, h, w)."""
        return x_BCHW[..., self.top :: self.stride, self.left :: self.stride]

    def logits(self, output: TaskOutput) -> Tensor:
        """A head's logits at `size`."""
        return output.logits_at(self.size)


@dataclass(frozen=True)
class PreparedBatch:
    """A batch with everything that a step draws at random.

    Attributes:
        batch: as it was loaded; a teacher reads its images.
        image: (B, 3, H, W) uint8, the images as the student sees them.
        sampler: chooses the pixels that the losses use.
        options: of the step.
        seed: for what the networks draw themselves, such as dropout; differs between the shards of a batch.

    Examples:
        >>> import tasktokens
        >>> from tasktokens.methods import MtlMethod, Supervised
        >>> train = tasktokens.open_dataset("folder", root="mydata").train_dataset((32, 48))
        >>> method = Supervised(train.tasks, MtlMethod())
        >>> prepared = method.prepare(train.collate([train[0], train[1]]), torch.Generator().manual_seed(0))
        >>> prepared.image.shape, prepared.sampler.stride
        (torch.Size([2, 3, 32, 48]), 1)
    """

    batch: Batch
    image: Tensor
    sampler: PixelSampler
    options: StepOptions
    seed: int


class Calibrator(Protocol):
    """Measures a teacher against visible labels of held-out images."""

    def due(self, stage: Stage, step: int) -> bool:
        """Whether to measure before step number ``step`` (from 0) of a stage; must depend on nothing else."""

    def start(self) -> dict[str, Reliability]:
        """Empty sums by task."""

    def add(self, sums: Mapping[str, Reliability], batch: Batch, teacher: nn.Module) -> None:
        """Add a batch; all its labels are visible ones."""

    def finish(self, sums: Mapping[str, Reliability]) -> None:
        """Use the sums over all images and ranks."""


class Method(ABC):
    """A way to learn from partial labels.

    A step is ``prepared = method.prepare(batch, generator)`` and ``method.terms(prepared, student, teacher)``.
    A subclass is registered in `METHODS` and built with (tasks, settings). ``settings_class`` is the class of its
    settings; ``network`` names the network that it needs (`tasktokens.models.NETWORKS`).

    Examples:
        >>> class Plain(Method):
        ...     network = "mtl"
        ...     def stages(self):
        ...         return (Stage("supervised", 100),)
        ...     def terms(self, prepared, student, teacher=None):
        ...         labels, outputs = prepared.batch.labels, student(prepared.image)
        ...         outputs = {name: output.select(labels[name].rows) for name, output in outputs.items()}
        ...         return [supervised_term(self.tasks[n], outputs[n], labels[n], prepared.sampler) for n in labels]
        >>> Plain({}).steps
        100
    """

    settings_class: ClassVar[type[MethodSettings]]
    network: str
    delivers_better: bool = False
    """Whether a run delivers the teacher of its last stage where that is better than the student on held-out labels."""
    learns_tokens: bool = False
    """Whether discovered labels must have the teacher's tokens beside them."""
    mirrored: bool = True
    """Whether training images are mirrored (``data.augmentation.flip``); else a teacher's second view is not."""

    weighs_discovered: bool = False
    """Whether `terms` has the `weighted_terms` of labels that the data set itself calls discovered. Not inherited: a
    subclass with terms of its own has to say it again."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "weighs_discovered" not in vars(cls):
            cls.weighs_discovered = False

    def __init__(self, tasks: Mapping[str, Task], settings: Any = None) -> None:
        self.tasks = dict(tasks)

    @abstractmethod
    def stages(self) -> tuple[Stage, ...]:
        """The stages in order."""

    @property
    def steps(self) -> int:
        """Optimiser steps of all stages."""
        return sum(stage.steps for stage in self.stages())

    def begin(self, student: nn.Module) -> None:  # noqa: B027, most methods train nothing besides
        """Make afresh what the method trains beside the student, such as discriminators; it belongs to `state`.

        Called at the start of every stage, with torch's generator seeded for it: all ranks make the same.
        """

    def state(self) -> nn.Module | None:
        """What a checkpoint must hold besides the networks: a module, or None.

        Its parameters, if it has some, are trained with the student: they are in the optimiser, their gradients are
        averaged over ranks and clipped by a norm of their own, and a step that is not finite leaves them as they were.
        """
        return None

    def views(self) -> Mapping[str, Sequence[ImageView]]:
        """How the network of a stage sees images while it discovers labels, by task; empty: the method does not say."""
        return {}

    @property
    def state_lr(self) -> float:
        """Factor of ``optim.lr`` for the parameters of `state`."""
        return 1.0

    def calibrator(self) -> Calibrator | None:
        """What measures the teacher on held-out images, or None."""
        return None

    def observe(self, means: Mapping[str, Tensor]) -> None:  # noqa: B027, most methods learn nothing themselves
        """Use the mean of each term of a step, over all ranks. Must not wait for the device."""

    def prepare(self, batch: Batch, generator: torch.Generator, options: StepOptions = FIRST_STEP) -> PreparedBatch:
        """Draw all that is random in a step: the pixels of its losses, then the student's view of the images.

        Args:
            generator: on the CPU, seeded for this step. Shards of one batch get generators of the same seed, and each
                draws the numbers of the whole batch, so that the result does not depend on the number of shards.
            options: number of the step, strength of augmentation and so on.
        """
        seed = (generator.initial_seed() + (options.shard.number << 44)) % 2**63
        sampler = PixelSampler.draw(batch.image, options.loss_stride, generator)
        return PreparedBatch(batch, self.student_view(batch.image, generator, options), sampler, options, seed)

    def student_view(self, image_B3HW: Tensor, generator: torch.Generator, options: StepOptions) -> Tensor:
        """The images (B, 3, H, W) uint8 as the student sees them: with colour changes."""
        return photometric(image_B3HW, options.photometric, generator, part=options.shard)

    @abstractmethod
    def terms(self, prepared: PreparedBatch, student: nn.Module, teacher: nn.Module | None = None) -> list[Term]:
        """Loss terms of a batch.

        Args:
            prepared: by `prepare`.
            student: in training mode.
            teacher: in evaluation mode; None where there is none, as ``prepared.options`` says.
        """

    def counts(self, prepared: PreparedBatch) -> dict[str, Tensor]:
        """The count of each term of `terms` that has a weight, by name, from the batch alone; there may be more.

        A step with several parts divides the sums of each part by the counts of all parts. A method
        without this raises `ConfigError` where ``optim.accumulate`` is above 1.
        """
        raise ConfigError(f"{type(self).__name__} cannot accumulate gradients; set optim.accumulate=1")


METHODS: Registry[type[Method]] = components.METHODS
"""Methods by name."""


def label_counts(prepared: PreparedBatch) -> dict[str, Tensor]:
    """The count of `supervised_term` for each task: labelled pixels."""
    labels = prepared.batch.labels
    return {name: prepared.sampler.subsample(item.valid).sum().float() for name, item in labels.items()}


def supervised_term(
    task: Task, output: TaskOutput, labels: Labels, sampler: PixelSampler, logits: Tensor | None = None
) -> Term:
    """Loss of the given labels.

    Args:
        output: of the labelled images of the task, in order; with none of them, of any image.
        logits: ``sampler.logits(output)`` where it is known already.
    """
    logits = (sampler.logits(output) if logits is None else logits)[: len(labels.rows)]
    total, count = masked_loss(task, logits, sampler.subsample(labels.value), sampler.subsample(labels.valid))
    # Unused outputs stay in the graph, since ranks wait for the gradient of every parameter.
    idle = [x.float().sum() for x in (output.confidence, output.token) if x is not None]
    return Term(f"loss/{task.name}", task.weight, total + sum(0.0 * x for x in idle), count)


def rows_to_learn(batch: Batch, task: str) -> Tensor:
    """Positions whose output the losses of a task need: those with a given label, then those of `weighted_terms`."""
    given = batch.labels[task].rows
    return torch.cat([given, batch.weighted[task].rows]) if task in batch.weighted else given


def weighted_terms(task: Task, output: TaskOutput, prepared: PreparedBatch, factor: float = 1.0) -> list[Term]:
    """Loss of the labels that were discovered before, each pixel by its weight; nothing where the data has no such.

    The mean is over all pixels of their images, so that a few confident pixels weigh little.

    Args:
        output: of the images with such a label, in order.
        factor: of the loss, beside the task's ``weight`` and ``discovered_weight``.
    """
    labels, sampler = prepared.batch.weighted.get(task.name), prepared.sampler
    if labels is None:
        return []
    if labels.weight is None:
        raise ValueError(f"labels of task '{task.name}' that were discovered before must have a weight")
    value, valid, weight = map(sampler.subsample, (labels.value, labels.valid, labels.weight))
    total, counted = masked_loss(task, sampler.logits(output), value, valid, weight)
    pixels = weighted_pixels(prepared, task.name)
    return [
        Term(f"weighted_loss/{task.name}", task.weight * task.discovered_weight * factor, total, pixels),
        Term(f"weighted/{task.name}", 0.0, counted, pixels),
    ]


def weighted_pixels(prepared: PreparedBatch, task: str) -> Tensor:
    """Pixels, without padding, of the images whose label was discovered before."""
    batch = prepared.batch
    return prepared.sampler.subsample(batch.pixels[batch.weighted[task].rows]).sum().float()


def weighted_counts(prepared: PreparedBatch) -> dict[str, Tensor]:
    """The counts of `weighted_terms`."""
    return {f"weighted_loss/{name}": weighted_pixels(prepared, name) for name in prepared.batch.weighted}


def label_terms(task: Task, output: TaskOutput, prepared: PreparedBatch) -> list[Term]:
    """`supervised_term` and `weighted_terms` of a task, from its output for the whole batch."""
    labels, weighted = prepared.batch.labels[task.name], prepared.batch.weighted.get(task.name)
    terms = [supervised_term(task, output.select(labels.rows), labels, prepared.sampler)]
    return terms if weighted is None else terms + weighted_terms(task, output.select(weighted.rows), prepared)


def weighted_output(output: TaskOutput, batch: Batch, task: str) -> TaskOutput:
    """The part for `weighted_terms` of an output that was computed for `rows_to_learn`."""
    first, count = len(batch.labels[task].rows), len(batch.weighted[task].rows)
    return output.select(torch.arange(first, first + count, device=output.logits.device))
