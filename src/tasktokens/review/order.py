"""In which order labels are reviewed: as the ranking of the folder says, else the least confident first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tasktokens.review.folder import Key, ReviewFolder
from tasktokens.utils.csv_table import read_csv

RANKING = "review.csv"
"""The ranking in a folder: ``id``, ``task`` where it is of one task, ``reason``; the first row is to be seen first."""


class Ranked(NamedTuple):
    """A label in its place.

    Attributes:
        key: which label.
        reason: why it is worth a look; may be empty.
    """

    key: Key
    reason: str


def in_order(folder: ReviewFolder, keys: Iterable[Key]) -> list[Ranked]:
    """Labels, the most doubtful first: by ``review.csv`` where the folder has it, then by mean confidence.

    Tasks differ in how confident they are, so a label's mean confidence counts relative to that of its task.
    """
    keys = list(keys)
    ranks, reasons = _ranking(folder)
    doubts = _relative_confidence(folder, keys)

    def place(key: Key) -> tuple[float, float, str, str]:
        rank = ranks.get(key, ranks.get(Key(key.id, ""), math.inf))
        return rank, doubts[key], key.id, key.task

    return [Ranked(key, _reason(folder, key, reasons)) for key in sorted(keys, key=place)]


def first_images(ranked: Sequence[Ranked], top: int | None) -> list[Ranked]:
    """The labels of the first ``top`` images; None: all."""
    images = list(dict.fromkeys(each.key.id for each in ranked))[:top]
    kept = set(images)
    return [each for each in ranked if each.key.id in kept]


def _ranking(folder: ReviewFolder) -> tuple[dict[Key, float], dict[Key, str]]:
    """Place and reason by label, or by image with an empty task."""
    path = folder.root / RANKING
    if not path.is_file():
        return {}, {}
    ranks: dict[Key, float] = {}
    reasons: dict[Key, str] = {}
    for number, row in read_csv(path, "the ranking", ["id"]).items():
        key = Key(row["id"], row.get("task", ""))
        ranks.setdefault(key, float(number))
        reasons.setdefault(key, row.get("reason", ""))
    return ranks, reasons


def _relative_confidence(folder: ReviewFolder, keys: Sequence[Key]) -> dict[Key, float]:
    """Mean confidence as the table has it, over the mean of its task; unknown ones come last."""
    known: dict[Key, float] = {}
    for key in keys:
        row = folder.table.get(key)
        if row is not None and row.confidence is not None:
            known[key] = row.confidence
    by_task: dict[str, list[float]] = {}
    for key, value in known.items():
        by_task.setdefault(key.task, []).append(value)
    means = {task: sum(values) / len(values) or 1.0 for task, values in by_task.items()}
    return {key: known[key] / means[key.task] if key in known else math.inf for key in keys}


def _reason(folder: ReviewFolder, key: Key, reasons: dict[Key, str]) -> str:
    given = reasons.get(key) or reasons.get(Key(key.id, ""), "")
    row = folder.table.get(key)
    if given or row is None or row.confidence is None:
        return given
    return f"mean confidence {row.confidence:.2f}"
