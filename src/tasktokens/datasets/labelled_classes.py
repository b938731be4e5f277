"""Which classes were labelled in which images: ``labelled.csv`` of a data folder, or a column of its manifest.

    id,task,labelled
    kitchen/0001,semseg,cat
    garden/,semseg,dog;bird

An id that ends in a slash stands for all images below it, a later row before an earlier one. Images that are not listed
are labelled as the task itself says (``labelled: [cat]``), by default for all classes, which an empty cell says too.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tasktokens.data.ids import match_id, nearest_id
from tasktokens.errors import DataError, did_you_mean
from tasktokens.tasks import Task
from tasktokens.utils.atomic import atomically
from tasktokens.utils.csv_table import read_csv

LABELLED = "labelled.csv"
"""The table's name in folders that this package writes."""

LabelledClasses = Mapping[str, Mapping[str, tuple[str, ...]]]
"""By task and id, the names of the classes that were labelled; none: all of them."""


class LabelledRow(NamedTuple):
    """One line of the table.

    Attributes:
        id: of the image.
        task: its name.
        labelled: names of classes.
    """

    id: str
    task: str
    labelled: tuple[str, ...]


def read_labelled(path: Path, images: Iterable[str], tasks: Iterable[str]) -> dict[str, dict[str, tuple[str, ...]]]:
    """The table. Raises `DataError` for an image or task that there is not, naming the row."""
    images, tasks = tuple(images), tuple(tasks)
    known, found = frozenset(images), dict[str, dict[str, tuple[str, ...]]]()
    for number, row in read_csv(path, "the table of labelled classes", ["id", "task", "labelled"]).items():
        name, text = row["task"].strip(), row["id"].strip()
        if name not in tasks:
            raise DataError(f"{path} row {number}: no task '{name}'{did_you_mean(name, tasks)}; correct it")
        if text.endswith("/"):
            ids = [id for id in images if id.startswith(text)]
        else:
            ids = [id for id in (match_id(row["id"], known),) if id is not None]
        if not ids:
            raise DataError(f"{path} row {number}: no image has the id '{text}'{nearest_id(text, images)}; correct it")
        found.setdefault(name, {}).update(dict.fromkeys(ids, names_of(row["labelled"])))
    return found


def names_of(cell: str) -> tuple[str, ...]:
    """Names of classes that semicolons separate.

    Examples:
        >>> names_of("cat; dog"), names_of("")
        (('cat', 'dog'), ())
    """
    return tuple(name.strip() for name in cell.split(";") if name.strip())


def write_labelled(path: Path, rows: Iterable[LabelledRow]) -> bool:
    """Write the table; returns whether there was a row, and writes nothing without one."""
    rows = list(rows)
    if rows:
        with atomically(path) as new, new.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(LabelledRow._fields)
            writer.writerows([row.id, row.task, ";".join(row.labelled)] for row in rows)
    return bool(rows)


def reading_tasks(task: Task, of_images: Mapping[str, tuple[str, ...]]) -> tuple[Task, dict[str, Task]]:
    """The task for all sets of labelled classes, and by id the one that reads the label files of that image."""
    whole = task.for_labelled([names for names in dict.fromkeys(of_images.values()) if names])
    by_names = {names: whole.reading(names) for names in dict.fromkeys(of_images.values())}
    return whole, {id: by_names[names] for id, names in of_images.items()}


def labelled_rows(labels: Mapping[str, Mapping[str, tuple[str, ...]]], ids: Iterable[str]) -> Iterator[LabelledRow]:
    """Rows of the images whose labels leave classes open, in the order of the images."""
    for id in ids:
        for task, of_images in labels.items():
            if names := of_images.get(id):
                yield LabelledRow(id, task, names)
