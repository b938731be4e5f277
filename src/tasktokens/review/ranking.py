"""Which images to review first: those whose correction is worth most, with the reason in words."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tasktokens.datasets.folder import open_folder
from tasktokens.errors import ConfigError, DataError, did_you_mean
from tasktokens.review.criteria import CRITERIA, Measured, measure
from tasktokens.review.order import RANKING
from tasktokens.utils.atomic import atomically

WEIGHTS: Mapping[str, float] = {"uncertain": 1.0, "disagreement": 1.0, "rare": 0.5, "unlike": 0.5}
"""What each criterion counts where several are used."""
DEFAULT = ("uncertain", "disagreement")
"""The criteria that put labels with larger errors first; by ``rare`` or ``unlike`` alone the errors of the first tenth
are smaller than those of a random one (``benchmarks/review.py``)."""


@dataclass(frozen=True)
class RankedImage:
    """An image in its place.

    Attributes:
        id: of the image.
        score: 0 to 1; 1 would be first by every criterion and for every task.
        reason: in words.
        tasks: whose labels of it are discovered.
        criteria: place of the image by each criterion, 0 (last) to 1 (first), a mean over its tasks.
    """

    id: str
    score: float
    reason: str
    tasks: tuple[str, ...] = ()
    criteria: Mapping[str, float] = field(default_factory=dict)


def rank_images(
    folder: str | Path, by: Sequence[str] = DEFAULT, write: bool = True, quiet: bool = True
) -> list[RankedImage]:
    """Rank the images of a folder with discovered labels by what their correction is worth, the first first.

    Each label gets its place among the labels of its task, by each criterion; an image the mean of its labels' places.
    Labels that were given, accepted or corrected need no correction and do not count.

    Args:
        folder: a data folder such as ``discover`` writes.
        by: criteria to use, of `tasktokens.review.criteria.CRITERIA`.
        write: also write ``review.csv`` into the folder: a row per image with score, reason and criteria.
        quiet: do not show progress.

    Raises:
        ConfigError: an unknown criterion. DataError: no data folder, one without discovered labels, or a damaged file.

    Examples:
        >>> first = rank_images("filled")[0]
        >>> 0 <= first.score <= 1, Path("filled/review.csv").is_file()
        (True, True)
    """
    for name in by:
        if name not in CRITERIA:
            raise ConfigError(f"no criterion '{name}'{did_you_mean(name, CRITERIA)}; known: {', '.join(CRITERIA)}")
    root = Path(folder)
    index = open_folder(root)
    if not any(row.source != "given" for rows in index.provenance.values() for row in rows.values()):
        raise DataError(
            f"no label of {root} was discovered, so that there is nothing to review; see tasktokens discover"
        )
    ranked = ranking(measure(index, by, quiet), by)
    if write:
        write_ranking(root, ranked, by)
    return ranked


def ranking(measured: Sequence[Measured], by: Sequence[str]) -> list[RankedImage]:
    """Images in the order of their scores, then of their ids."""
    places = {name: _places(measured, name) for name in by}
    of_image: dict[str, list[int]] = {}
    for number, each in enumerate(measured):
        of_image.setdefault(each.id, []).append(number)
    ranked = []
    for id, numbers in of_image.items():
        means = {name: _mean([places[name][number] for number in numbers]) for name in by}
        known = {name: place for name, place in means.items() if place is not None}
        weights = sum(WEIGHTS[name] for name in known)
        score = sum(WEIGHTS[name] * place for name, place in known.items()) / weights if weights else 0.0
        reason = _reason([measured[number] for number in numbers], [{n: places[n][k] for n in by} for k in numbers])
        tasks = tuple(measured[number].task for number in numbers)
        ranked.append(RankedImage(id, round(score, 4), reason, tasks, {n: round(p, 4) for n, p in known.items()}))
    return sorted(ranked, key=lambda image: (-image.score, image.id))


def _places(measured: Sequence[Measured], name: str) -> list[float | None]:
    """The place of each label among those of its task, 0 to 1, equal values alike; None where nothing is known."""
    places: list[float | None] = [None] * len(measured)
    for task in dict.fromkeys(each.task for each in measured):
        known = [
            (number, value)
            for number, each in enumerate(measured)
            if each.task == task and (value := each.values.get(name)) is not None
        ]
        values = np.sort([value for _, value in known])
        for number, value in known:
            below, not_above = np.searchsorted(values, value), np.searchsorted(values, value, "right")
            places[number] = float(below + not_above - 1) / (2 * max(1, len(values) - 1))
    return places


def _mean(places: Sequence[float | None]) -> float | None:
    known = [place for place in places if place is not None]
    return sum(known) / len(known) if known else None


def _reason(labels: Sequence[Measured], places: Sequence[Mapping[str, float | None]]) -> str:
    """The two facts that bring the image furthest to the front, with their task where the image has several."""
    facts = [
        (place, each.task, each.facts[name])
        for each, of_label in zip(labels, places, strict=True)
        for name, place in of_label.items()
        if place is not None and name in each.facts
    ]
    strongest = sorted(facts, key=lambda fact: -fact[0])[:2]
    named = len(labels) > 1
    return "; ".join(f"{task}: {text}" if named else text for _, task, text in strongest)


def write_ranking(root: Path, ranked: Sequence[RankedImage], by: Sequence[str]) -> None:
    """Write ``review.csv``, the first image first."""
    with atomically(root / RANKING) as new, new.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "score", "tasks", "reason", *by])
        for image in ranked:
            cells = [image.criteria.get(name, "") for name in by]
            writer.writerow([image.id, image.score, ";".join(image.tasks), image.reason, *cells])
