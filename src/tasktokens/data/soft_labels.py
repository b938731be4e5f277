"""Soft labels: a distribution per cell of a coarse map, and how it moves with the image that it belongs to.

What is stored covers the whole image. A sample shows a window of it, perhaps mirrored and zoomed. The window is
followed through the sample's geometry, and the map is resampled once, straight to the size that the loss reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasktokens.tasks import Task

_ON_THE_CELL = 1e-6
"""A sampling position this near to a cell's centre is the cell: what is not moved stays as it is, bit for bit."""


class Window(NamedTuple):
    """A rectangle in shares of the whole image; it may reach beyond the image, into padding.

    Attributes:
        top: of its first row, 0 to 1 within the image.
        left: of its first column.
        height: share of the image's height.
        width: share of its width.
    """

    top: float = 0.0
    left: float = 0.0
    height: float = 1.0
    width: float = 1.0


WHOLE = Window()
"""The window of a sample that shows the whole image."""


@dataclass(frozen=True)
class SoftLabel:
    """One task's label of a sample.

    Attributes:
        logits: (K, h, w), float16 or float32; their softmax (a sigmoid for K = 1) is what is known of each cell.
        window: which part of the map the sample shows, before it is mirrored.
        mirrored: whether the sample is the mirror image of that part.
        zoom: by how much the sample is magnified.
        token: (D,) float32, the teacher's token of the whole image, which no crop changes; None where none is learned.
    """

    logits: Tensor
    window: Window = WHOLE
    mirrored: bool = False
    zoom: float = 1.0
    token: Tensor | None = None

    def crop(self, top: float, left: float, height: float, width: float, size: Sequence[int]) -> SoftLabel:
        """For a part of a sample of (height, width) ``size``; negative offsets and larger parts are padding.

        Examples:
            >>> SoftLabel(torch.zeros(1, 4, 4)).crop(5, 0, 5, 10, (10, 10)).window
            Window(top=0.5, left=0.0, height=0.5, width=1.0)
        """
        if self.mirrored:
            left = size[1] - left - width
        window, down, across = self.window, self.window.height / size[0], self.window.width / size[1]
        moved = Window(window.top + top * down, window.left + left * across, height * down, width * across)
        return replace(self, window=moved)

    def flip(self) -> SoftLabel:
        """For the mirrored sample."""
        return replace(self, mirrored=not self.mirrored)

    def zoomed(self, scale: float) -> SoftLabel:
        """For a sample that is magnified by ``scale``: only the meaning of the logits changes, as distances do."""
        return replace(self, zoom=self.zoom * scale)

    def at(self, task: Task, size: tuple[int, int]) -> SoftLabel:
        """The sample's own map at (height, width) ``size``, float16, bilinear; padding continues the border."""
        logits = _resample(self.logits, self.window, size)[None]
        if self.zoom != 1:
            logits = task.zoom_logits(logits.float(), 1 / self.zoom)
        if self.mirrored:
            logits = task.flip_logits(logits)
        return SoftLabel(to_half(logits[0]), token=self.token)


class SoftSource(Protocol):
    """Where a data set finds soft labels."""

    @property
    def head(self) -> tuple[int, int]:
        """(height, width) of the maps of a sample."""

    @property
    def token_width(self) -> int | None:
        """Length of the token that each label has; None where labels have none."""

    def find(self, id: str, task: str) -> SoftLabel | None:
        """The label of a task for the whole image, or None where there is none. Raises `DataError` for a bad file."""


@dataclass(frozen=True)
class SoftLabels:
    """The soft labels of one task in a batch.

    Attributes:
        rows: (n,) int64, positions in the batch, increasing; n may be 0. None of these images has a given label.
        logits: (n, K, h, w) float16.
        token: (n, D) float32, of the whole images, or None.
    """

    rows: Tensor
    logits: Tensor
    token: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> SoftLabels:
        """Apply a function to each tensor."""
        token = None if self.token is None else function(self.token)
        return SoftLabels(function(self.rows), function(self.logits), token)


def stack_soft(
    labels: Sequence[SoftLabel | None], shape: tuple[int, int, int], token_width: int | None = None
) -> SoftLabels:
    """Stack the labels of a batch's samples, None for those that have none; ``shape`` is (K, h, w)."""
    rows = [row for row, label in enumerate(labels) if label is not None]
    maps = [label.logits for label in labels if label is not None]
    logits = torch.stack(maps) if maps else torch.zeros(0, *shape, dtype=torch.float16)
    token = None
    if token_width is not None:
        vectors = [label.token for label in labels if label is not None and label.token is not None]
        token = torch.stack(vectors) if vectors else torch.zeros(0, token_width)
    return SoftLabels(torch.tensor(rows, dtype=torch.int64), logits, token)


def to_half(logits: Tensor) -> Tensor:
    """As float16, within its range."""
    largest = torch.finfo(torch.float16).max
    return logits.clamp(-largest, largest).to(torch.float16)


def _resample(logits_Khw: Tensor, window: Window, size: tuple[int, int]) -> Tensor:
    """The window of a map at (height, width), by bilinear interpolation between the centres of its cells."""
    for dim, start, length, cells in ((1, window.top, window.height, size[0]), (2, window.left, window.width, size[1])):
        count = logits_Khw.shape[dim]
        position = _positions(start, length, cells, count)
        below = np.floor(position).astype(np.int64)
        share = torch.from_numpy((position - below).astype(np.float32))
        first, last = int(below.min()), int(np.minimum(below + 1, count - 1).max())
        part, below = logits_Khw.narrow(dim, first, last - first + 1), below - first
        lower = part.index_select(dim, torch.from_numpy(below))
        if bool((share == 0).all()):
            logits_Khw = lower
            continue
        upper = part.index_select(dim, torch.from_numpy(np.minimum(below + 1, last - first)))
        logits_Khw = lower.float()
        logits_Khw = logits_Khw.lerp(upper.float(), (share[:, None] if dim == 1 else share).to(logits_Khw))
    return logits_Khw


def _positions(start: float, length: float, cells: int, count: int) -> NDArray[np.float64]:
    """Where the centres of ``cells`` cells of a window lie among those of a map of ``count`` cells, within the map."""
    centres = start + length * (np.arange(cells) + 0.5) / cells
    position = (centres * count - 0.5).clip(0, count - 1)
    nearest = np.rint(position)
    return np.where(np.abs(position - nearest) < _ON_THE_CELL, nearest, position)
