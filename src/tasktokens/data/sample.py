"""An image with the labels that it has, and a batch of them.

Two masks, never confused: which images have a label for a task (a batch's ``rows``, the "present" mask), and which
pixels are usable (``valid`` of a label; ``pixels`` of an image, False on padding).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from tasktokens.data.soft_labels import SoftLabel, SoftLabels, stack_soft


@dataclass(frozen=True)
class Label:
    """A label map: value (C, H, W) in the task's units and valid (1, H, W) bool; stacked, a leading dimension.

    ``weight`` (1, H, W) in [0, 1] says what each pixel of a discovered label is worth; None: the label is a given one.
    """

    value: Tensor
    valid: Tensor
    weight: Tensor | None = None

    @property
    def given(self) -> bool:
        """Whether it is a given label."""
        return self.weight is None

    def moved(self, value: Tensor, function: Callable[[Tensor], Tensor]) -> Label:
        """With other values; what says where they are usable, and what they are worth, by the function."""
        return Label(value, function(self.valid), None if self.weight is None else function(self.weight))


@dataclass(frozen=True)
class Sample:
    """An image (3, H, W) uint8, its pixels that are no padding (1, H, W) bool, and labels of present tasks only.

    Labels have the image's size, but for evaluation at full size, where they keep their own. ``left_out`` says what
    could not be read, where that is no error. ``discovered``: soft labels of tasks that have no label here. Labels with
    a weight are discovered ones too, and pass for given ones nowhere.
    """

    id: str
    """Of the image: a path without ending, such as ``kitchen/0001``."""
    image: Tensor
    pixels: Tensor
    labels: Mapping[str, Label]
    left_out: tuple[str, ...] = ()
    discovered: Mapping[str, SoftLabel] = field(default_factory=dict)


@dataclass(frozen=True)
class Labels:
    """The labels of one task in a batch: the n images that have one, and nothing in place of those that do not.

    Attributes:
        rows: (n,) int64, positions in the batch, increasing; n may be 0.
        absent: (B - n,) int64, the other positions, known on the host so that no device has to be asked.
        value: (n, C, H, W).
        valid: (n, 1, H, W) bool.
        weight: (n, 1, H, W) in [0, 1] of labels that were discovered; None: they are given.
    """

    rows: Tensor
    absent: Tensor
    value: Tensor
    valid: Tensor
    weight: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Labels:
        """Apply a function to each tensor."""
        weight = None if self.weight is None else function(self.weight)
        return Labels(function(self.rows), function(self.absent), function(self.value), function(self.valid), weight)


@dataclass(frozen=True)
class Batch:
    """Images (B, 3, H, W) uint8, ``pixels`` (B, 1, H, W) bool that are no padding, and labels by task name.

    ``left_out``: a message for each image and label that could not be read. ``labelled``: (m,) int64, positions with a
    label of any task, given or discovered before, known on the host; None stands for all. ``discovered``: soft labels
    by task name; empty where the data set has none. ``weighted``: labels that were discovered before, the same.
    """

    ids: tuple[str, ...]
    """B, of the images."""
    image: Tensor
    pixels: Tensor
    labels: Mapping[str, Labels]
    left_out: tuple[str, ...] = ()
    labelled: Tensor | None = None
    discovered: Mapping[str, SoftLabels] = field(default_factory=dict)
    weighted: Mapping[str, Labels] = field(default_factory=dict)

    def unlabelled(self, task: str) -> Tensor:
        """(m,) int64, increasing: positions without a label of the task, given or discovered before."""
        absent = self.labels[task].absent
        if task not in self.weighted:
            return absent
        return absent[~torch.isin(absent, self.weighted[task].rows)]

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """Apply a function to each tensor."""
        labels = {name: item.map(function) for name, item in self.labels.items()}
        labelled = None if self.labelled is None else function(self.labelled)
        discovered = {name: item.map(function) for name, item in self.discovered.items()}
        weighted = {name: item.map(function) for name, item in self.weighted.items()}
        return replace(
            self, image=function(self.image), pixels=function(self.pixels), labels=labels, labelled=labelled,
            discovered=discovered, weighted=weighted,
        )  # fmt: skip

    def to(self, device: torch.device) -> Batch:
        """The batch on another device; host copies do not wait where memory is pinned."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Called by the data loader when the device is a GPU."""
        return self.map(Tensor.pin_memory)


def collate(
    samples: Sequence[Sample],
    channels: Mapping[str, int],
    soft: Mapping[str, tuple[int, int, int]] | None = None,
    weighted: bool = False,
    token_width: int | None = None,
) -> Batch:
    """Stack samples of one size.

    Args:
        channels: label channels of every task of the run.
        soft: shape (K, h, w) of the discovered labels of every task, where the data set has such.
        weighted: whether the data set has labels that were discovered elsewhere.
        token_width: length of the token of each discovered label, where they have one.
    """
    labels = {name: _stack(samples, name, count, given=True) for name, count in channels.items()}
    labelled = [row for row, sample in enumerate(samples) if sample.labels]
    return Batch(
        ids=tuple(sample.id for sample in samples),
        # An image as decoded has its channels last, and a stack of such would too.
        image=torch.stack([sample.image for sample in samples]).contiguous(),
        pixels=torch.stack([sample.pixels for sample in samples]),
        labels=labels,
        left_out=tuple(message for sample in samples for message in sample.left_out),
        labelled=None if len(labelled) == len(samples) else torch.tensor(labelled, dtype=torch.int64),
        discovered={
            name: stack_soft([sample.discovered.get(name) for sample in samples], shape, token_width)
            for name, shape in (soft or {}).items()
        },
        weighted={name: _stack(samples, name, count, given=False) for name, count in channels.items()}
        if weighted
        else {},
    )


def _stack(samples: Sequence[Sample], task: str, channels: int, given: bool) -> Labels:
    """The given labels of a task, or those that were discovered."""
    size = samples[0].image.shape[-2:]
    rows = [row for row, x in enumerate(samples) if task in x.labels and x.labels[task].given == given]
    items = [samples[row].labels[task] for row in rows]
    weights = [item.weight for item in items if item.weight is not None]
    no_weight = None if given else torch.zeros(0, 1, *size)
    return Labels(
        rows=torch.tensor(rows, dtype=torch.int64),
        absent=torch.tensor(sorted(set(range(len(samples))) - set(rows)), dtype=torch.int64),
        value=torch.stack([item.value for item in items]) if items else torch.zeros(0, channels, *size),
        valid=torch.stack([item.valid for item in items]) if items else torch.zeros(0, 1, *size, dtype=torch.bool),
        weight=torch.stack(weights) if weights else no_weight,
    )


def collate_by_size(samples: Sequence[Sample], channels: Mapping[str, int]) -> list[Batch]:
    """Like `collate`, one batch for each combination of image and label size among the samples, in order."""
    groups: dict[tuple[torch.Size, ...], list[Sample]] = {}
    for sample in samples:
        sizes = (sample.image.shape, *{label.valid.shape for label in sample.labels.values()})
        groups.setdefault(sizes, []).append(sample)
    return [collate(group, channels) for group in groups.values()]
