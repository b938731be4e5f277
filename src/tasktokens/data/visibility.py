"""Which labels a run may see: one-label, random-label, a fraction, all, or a given CSV; seeded and saved with the run.

The rules are those of MTPSL (Li et al., CVPR 2022): *one*: every image has exactly one labelled task; *random*: between
one and all but one. Only labels whose files exist can be drawn.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from tasktokens.data.ids import check_id, match_id, nearest_id
from tasktokens.errors import DataError
from tasktokens.utils.csv_table import read_csv

VisibleLabels = dict[str, tuple[str, ...]]
"""For each image id the tasks whose labels may be seen."""

VISIBLE, HIDDEN = ("1", "accepted", "corrected"), ("0", "discovered")
"""Cells of such a table: a label that is seen in full, given or decided of by a person; and one that is not, be it that
it is discovered and counts by its confidence alone."""

AVAILABLE = "labels-available.csv"
"""In a run: label files that its training images, held-out ones included, had at the start, visible or hidden."""


def check_rule(labels: str) -> None:
    """Raise `DataError` for a value of ``data.labels`` that is no known rule, or names a missing file."""
    if labels.lower().endswith(".csv"):
        if not Path(labels).is_file():
            raise DataError(f"data.labels={labels}: there is no such file (working directory {Path.cwd()})")
    elif labels not in ("auto", "one", "random", "full"):
        _share(labels)


def draw_visible(
    ids: Sequence[str],
    available: Mapping[str, Mapping[str, object]],
    labels: str,
    seed: int,
    complete: bool = True,
    known: Collection[str] | None = None,
) -> VisibleLabels:
    """Choose the visible labels.

    Args:
        ids: the training images.
        available: for each task, the ids that have a label file (as keys).
        labels: ``one``, ``random``, ``full``, a fraction in (0, 1], or the path of a CSV that `save_visible` wrote.
        seed: decides the draw; the same seed and ids give the same split everywhere.
        complete: whether every task must get a label.
        known: all images of the data set, for a CSV; see `load_visible`.

    Raises:
        DataError: the rule is unknown, the CSV does not fit, or a task ends up without any label.
    """
    rng = np.random.RandomState(seed)
    has = {id: [task for task in available if id in available[task]] for id in ids}
    if labels == "full":
        split = {id: tuple(tasks) for id, tasks in has.items()}
    elif labels == "one":
        split = _one(ids, has, list(available), rng)
    elif labels == "random":
        split = {}
        for id in ids:
            most = max(1, min(len(has[id]), len(available) - 1))
            chosen = rng.permutation(len(has[id]))[: rng.randint(1, most + 1)]
            split[id] = tuple(has[id][i] for i in sorted(chosen))
    elif labels.lower().endswith(".csv"):
        split = load_visible(Path(labels), ids, available, known)
    else:
        split = _fraction(ids, has, list(available), labels, rng)
    if complete:
        _require_labels(split, available, labels)
    return split


def published_visible(
    ids: Sequence[str],
    available: Mapping[str, Mapping[str, object]],
    published: VisibleLabels,
    labels: str,
    complete: bool = True,
) -> VisibleLabels:
    """The part of a published split that concerns these images and tasks, in the order of ``ids``.

    Where it must be ``complete``, raises `DataError` if a task ends up without labels or a listed file does not exist.
    """
    split = {id: tuple(task for task in available if task in published.get(id, ())) for id in ids}
    if not complete:
        return {id: tuple(task for task in tasks if id in available[task]) for id, tasks in split.items()}
    for id, tasks in split.items():
        for task in tasks:
            if id not in available[task]:
                raise DataError(
                    f"the published split '{labels}' shows the label of task '{task}' for '{id}', which has no file; "
                    f"complete the data set, or draw a split of your own with data.label_seed=0"
                )
    _require_labels(split, available, labels)
    return split


def _require_labels(split: VisibleLabels, available: Mapping[str, Mapping[str, object]], labels: str) -> None:
    for task in available:
        if not any(task in tasks for tasks in split.values()):
            raise DataError(
                f"no labelled image for task '{task}' among {len(split)} training images (labels={labels}); "
                f"add label files or leave the task out with the 'tasks' setting"
            )


def _one(
    ids: Sequence[str], has: Mapping[str, list[str]], tasks: list[str], rng: np.random.RandomState
) -> VisibleLabels:
    """One task per image, as even over the tasks as the existing files allow."""
    drawn = dict.fromkeys(tasks, 0)
    split: VisibleLabels = {}
    # Images with few kinds of labels first, so that the others can even things out.
    for i in sorted(rng.permutation(len(ids)), key=lambda i: len(has[ids[i]])):
        if not has[ids[i]]:
            split[ids[i]] = ()
            continue
        order = rng.permutation(len(has[ids[i]]))
        task = min((has[ids[i]][j] for j in order), key=lambda task: drawn[task])
        drawn[task] += 1
        split[ids[i]] = (task,)
    return {id: split[id] for id in ids}


def _fraction(
    ids: Sequence[str], has: Mapping[str, list[str]], tasks: list[str], labels: str, rng: np.random.RandomState
) -> VisibleLabels:
    """For each task, that share of its labels."""
    share = _share(labels)
    chosen: dict[str, set[str]] = {id: set() for id in ids}
    for task in tasks:
        candidates = [id for id in ids if task in has[id]]
        for i in rng.permutation(len(candidates))[: round(share * len(candidates))]:
            chosen[candidates[i]].add(task)
    return {id: tuple(task for task in tasks if task in chosen[id]) for id in ids}


def _share(labels: str) -> float:
    try:
        share = float(labels)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise DataError(
            f"labels={labels!r} is unknown; expected one, random, full, a fraction in (0, 1] or a .csv file"
        )
    return share


def save_visible(
    path: Path, split: VisibleLabels, tasks: Sequence[str], words: Mapping[tuple[str, str], str] | None = None
) -> None:
    """Write a split as CSV: a column ``id`` and one per task, of 0 and 1, or of ``words`` by (id, task): see `VISIBLE`.

    Raises `DataError` for an id with a mark.
    """
    words = words or {}
    for id in split:
        check_id(id)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *tasks])
        for id, seen in split.items():
            writer.writerow([id, *(words.get((id, task), str(int(task in seen))) for task in tasks)])


def load_visible(
    path: Path,
    ids: Sequence[str],
    available: Mapping[str, Mapping[str, object]],
    known: Collection[str] | None = None,
) -> VisibleLabels:
    """Read such a CSV, also as spreadsheets save it (`tasktokens.utils.csv_table.read_csv`).

    Args:
        path: the file.
        ids: the images of a split; those that the file does not list have no visible label.
        available: for each task, the ids that have a label file (as keys).
        known: all images of the data set: the file may list others than ``ids``, but none that does not exist. None:
            it may list anything.

    Raises:
        DataError: the file cannot be read or does not fit.
    """
    rows = read_csv(path, "the split", ["id", *available])
    if not rows:
        raise DataError(f"the split {path} must have rows")
    split: VisibleLabels = dict.fromkeys(ids, ())
    row_of: dict[str, int] = {}
    known = split if known is None else known
    for number, row in rows.items():
        id = match_id(row["id"], known)
        if id is None and known is not split:
            raise DataError(
                f"{path} line {number}: no image has the id '{row['id']}'{nearest_id(row['id'], known)}; correct it, "
                f"or remove the row"
            )
        if id is None or id not in split:
            continue  # a held-out image, or another split of the data
        if row_of.setdefault(id, number) != number:
            raise DataError(f"{path} lines {row_of[id]} and {number} both have the id '{id}'; keep one of them")
        cells = {task: row.get(task, "").strip() for task in available}
        for task, cell in cells.items():
            if cell not in (*VISIBLE, *HIDDEN):
                raise DataError(f"{path} line {number}: column '{task}' must hold 0 or 1, found {cell!r}")
        split[id] = tuple(task for task, cell in cells.items() if cell in VISIBLE)
        for task in split[id]:
            if id not in available[task]:
                raise DataError(f"{path} line {number}: '{id}' has no label file for task '{task}'")
    return split


def load_flags(path: Path) -> VisibleLabels:
    """Read such a CSV as it was written, whatever has become of the label files since."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {
            row["id"]: tuple(task for task, flag in row.items() if task != "id" and flag in VISIBLE) for row in rows
        }
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def count_labels(path: Path) -> tuple[dict[str, Counter[str]], int]:
    """For each task of such a CSV how many labels are ``given``, ``accepted``, ``corrected`` and ``discovered``; and
    the number of images. Raises `DataError` where it cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = [*csv.reader(file)] or [[]]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    names = {"1": "given"}
    counts = {
        task: Counter(names.get(row[place], row[place]) for row in rows if row[place] != "0")
        for place, task in enumerate(header[1:], start=1)
    }
    return counts, len(rows)
