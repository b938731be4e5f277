"""What a discovery has filled in, task by task, and which thresholds would fill more."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tasktokens.tasks.base import Array
from tasktokens.utils import strict_json
from tasktokens.utils.safe_io import read_json

SUMMARY = "summary.json"
"""The table of what was filled, in the folder that `discover` writes."""

SHARES = (0.2, 0.5, 0.8)
"""Shares of pixels for which a threshold is proposed."""
WARN_BELOW = 0.01
"""A task is warned of if a smaller share of its pixels was filled."""
BINS = 100

Row = list[Any]
"""Of a discovered label: image id, task, share of pixels filled, mean confidence, `histogram`, source, disagreement."""


@dataclass(frozen=True)
class TaskSummary:
    """One task over all images.

    Attributes:
        task: its name.
        images: how many got a discovered label.
        filled: share of the pixels of these labels that are not void; None without images.
        confidence: mean over these pixels; None without images.
        threshold: the confidence that a pixel had to exceed.
        fills: for each of `SHARES`, as text, the largest threshold (in steps of 0.01) that would fill as much; left out
            where none would.
    """

    task: str
    images: int
    filled: float | None
    confidence: float | None
    threshold: float
    fills: Mapping[str, float]

    @property
    def warning(self) -> str | None:
        """A sentence where hardly any pixel was filled."""
        if self.filled is None or self.filled >= WARN_BELOW:
            return None
        found = (
            f"hardly any pixel of '{self.task}' was filled ({self.filled:.1%}, mean confidence "
            f"{self.confidence:.2f}, threshold {self.threshold:g})"
        )
        others = ", ".join(
            f"{self.task}={value:g} would fill {float(share):.0%}" for share, value in self.fills.items()
        )
        return f"{found}; " + (
            f"--threshold {others}" if others else "no threshold would: train longer, or see its labels"
        )


@dataclass(frozen=True)
class Discovery(os.PathLike[str]):
    """A completed folder, and what was filled in; usable wherever a path is.

    Attributes:
        folder: where it lies.
        tasks: a summary of each task.
        notes: what else should be known, such as labels that were added since the training.
    """

    folder: Path
    tasks: tuple[TaskSummary, ...]
    notes: tuple[str, ...] = ()

    def __fspath__(self) -> str:
        return str(self.folder)

    def __str__(self) -> str:
        return str(self.folder)

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence per task of which hardly any pixel was filled."""
        return tuple(task.warning for task in self.tasks if task.warning is not None)

    def to_json(self) -> str:
        """What `read_discovery` reads."""
        return strict_json.dumps(self.to_dict(), indent=1)

    def to_dict(self) -> dict[str, Any]:
        """The tasks and the notes as plain values."""
        return {"tasks": [asdict(task) for task in self.tasks], "notes": list(self.notes)}


def read_discovery(folder: Path) -> Discovery:
    """The summary that lies in a completed folder."""
    values = read_json(folder / SUMMARY)
    return Discovery(folder, tuple(TaskSummary(**task) for task in values["tasks"]), tuple(values["notes"]))


def histogram(confidence_HW: Array) -> list[int]:
    """Pixels with a confidence of 0, then with one above k / 100 and at most (k + 1) / 100, for k = 0..99.

    Examples:
        >>> counts = histogram(np.array([[0.0, 0.005, 1.0]]))
        >>> len(counts), counts[:2], counts[-1]
        (101, [1, 1], 1)
    """
    bins = np.ceil(confidence_HW.ravel() * BINS).astype(np.int64)
    counts: list[int] = np.bincount(bins.clip(0, BINS), minlength=BINS + 1).tolist()
    return counts


def summarise(rows: Iterable[Row], thresholds: Mapping[str, float]) -> tuple[TaskSummary, ...]:
    """The rows of all discovered labels as one summary per task, in the order of ``thresholds``."""
    totals = {name: Totals() for name in thresholds}
    for row in rows:
        totals[row[1]].add(row)
    return tuple(totals[name].summary(name, threshold) for name, threshold in thresholds.items())


@dataclass
class Totals:
    """Sums over the discovered labels of one task, in whole numbers: their order and grouping do not matter.

    Attributes:
        images: labels.
        filled, confidence: sums over pixels, in units of 1e-4.
        counts: the histograms, added.

    Examples:
        >>> one = Totals()
        >>> one.add(["a", "depth", 0.5, 0.75, histogram(np.full((2, 2), 0.75)), "network", None])
        >>> one.merge(one.to_list()), one.summary("depth", 0.2).confidence, one.images
        (None, 0.75, 2)
    """

    images: int = 0
    filled: int = 0
    confidence: int = 0
    counts: list[int] = field(default_factory=lambda: [0] * (BINS + 1))

    def add(self, row: Row) -> None:
        """One more label."""
        pixels = sum(row[4])
        self.merge([1, pixels * round(row[2] * 10_000), pixels * round(row[3] * 10_000), row[4]])

    def merge(self, other: Sequence[Any]) -> None:
        """What another process has summed up, as `to_list` gives it."""
        self.images += other[0]
        self.filled += other[1]
        self.confidence += other[2]
        self.counts = [a + b for a, b in zip(self.counts, other[3], strict=True)]

    def to_list(self) -> list[Any]:
        """As plain values."""
        return [self.images, self.filled, self.confidence, self.counts]

    def summary(self, task: str, threshold: float) -> TaskSummary:
        """Of all labels so far."""
        if not self.images:
            return TaskSummary(task, 0, None, None, threshold, {})
        counts = np.array(self.counts, dtype=np.int64)
        pixels = int(counts.sum())
        above = counts[:0:-1].cumsum()[::-1] / pixels  # share above k / 100
        steps = {share: np.flatnonzero(above >= share) for share in SHARES}
        fills = {str(share): int(reached[-1]) / BINS for share, reached in steps.items() if len(reached)}
        filled, confidence = (round(total / (10_000 * pixels), 4) for total in (self.filled, self.confidence))
        return TaskSummary(task, self.images, filled, confidence, threshold, fills)
