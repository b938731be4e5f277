"""A data folder as a review sees it: every label with its origin and its confidence, rejected ones too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tasktokens.data.ids import match_id, nearest_id
from tasktokens.datasets.discovered_folders import read_confidence
from tasktokens.datasets.files_by_id import list_files
from tasktokens.datasets.folder import open_folder
from tasktokens.datasets.formats.base import VOID, Vocabulary
from tasktokens.datasets.index import LabelFile
from tasktokens.datasets.provenance import DECIDED, ProvenanceRow, Source, read_provenance
from tasktokens.errors import DataError, did_you_mean
from tasktokens.tasks import Task
from tasktokens.tasks.base import Array
from tasktokens.utils.file_kinds import CONFIDENCE, LABEL_ENDINGS


class Key(NamedTuple):
    """Which label: of which image, of which task.

    Attributes:
        id: the image's.
        task: the task's name.
    """

    id: str
    task: str


class ReviewFolder:
    """The labels of a data folder.

    Attributes:
        root: the folder.
        table: its provenance by (id, task); a label that it does not list is given.
        labels: the file of each label, discovered and rejected ones included.

    Raises:
        DataError, ConfigError: it is no data folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.index = open_folder(root)
        self.tasks: Mapping[str, Task] = self.index.tasks
        self.table: dict[tuple[str, str], ProvenanceRow] = {}
        for row in read_provenance(root).values():
            id = match_id(row.id, self.index.images) or row.id
            self.table[id, row.task] = replace(row, id=id)
        self.labels = self._label_files()  # now: the table changes, and with it what counts as rejected

    def _label_files(self) -> dict[Key, LabelFile]:
        """The file of each label, discovered and rejected ones included."""
        found = {Key(id, task): file for task, files in self.index.labels.items() for id, file in files.items()}
        for task, labels in self.index.discovered.items():
            found |= {Key(id, task): each.label for id, each in labels.items()}
        rejected: dict[str, set[str]] = {}
        for (id, task), row in self.table.items():
            if row.source == "rejected" and task in self.tasks and id in self.index.images:
                rejected.setdefault(task, set()).add(id)
        for task, ids in rejected.items():  # readers of folders pass over them
            for id, path in list_files(self.root / task, LABEL_ENDINGS).items():
                if id in ids:
                    found[Key(id, task)] = LabelFile(path, self.tasks[task].read, plain=True)
        return found

    def source(self, key: Key) -> Source:
        """Where a label comes from."""
        row = self.table.get(key)
        return "given" if row is None else row.source

    def discovered(self, tasks: Iterable[str]) -> list[Key]:
        """Labels of tasks that nobody gave: discovered, or decided on before."""
        wanted = set(tasks)
        return [
            key for key in self.labels if key.task in wanted and self.source(key) in ("discovered", *DECIDED)
        ]  # fmt: skip

    def to_review(self, tasks: Iterable[str]) -> list[Key]:
        """Discovered labels of tasks that nobody has decided on yet."""
        wanted = set(tasks)
        return [key for key in self.labels if key.task in wanted and self.source(key) == "discovered"]

    def completed(self) -> list[Key]:
        """Labels that were given for some classes only, and whose other pixels were discovered."""
        return [Key(id, task) for task, labels in self.index.completions.items() for id in labels]

    def is_completed(self, key: Key) -> bool:
        """Whether a label is one of these."""
        return key.id in self.index.completions.get(key.task, {})

    def shown(self, key: Key) -> tuple[Array, Array]:
        """As `read`; what was discovered of a label that was given for some classes lies in the pixels it left open."""
        value, valid = self.read(key)
        if not self.is_completed(key):
            return value, valid
        found, is_found = self.index.completions[key.task][key.id].label.read()
        return np.where(is_found, found, value), valid | is_found

    def read(self, key: Key) -> tuple[Array, Array]:
        """Value (C, H, W) and valid (H, W). Raises `LabelError` naming the file."""
        return self.labels[key].read()

    def confidence(self, key: Key, size: tuple[int, int]) -> Array | None:
        """The confidence (H, W) float32 of a discovered label; None where there is none. Raises `LabelError`."""
        for ending in (".png", ".npy"):
            path = self.root / CONFIDENCE / key.task / f"{key.id}{ending}"
            if path.is_file():
                return read_confidence(path, size)
        return None

    def class_task(self, name: str | None) -> str:
        """The task with classes of that name, or the only one.

        Raises `DataError` where there is none, or several and no name.
        """
        with_classes = [task for task, of in self.tasks.items() if of.class_names()]
        if name is None and len(with_classes) == 1:
            return with_classes[0]
        if name is None:
            found = f"has the tasks with classes {', '.join(with_classes)}" if with_classes else "has no classes"
            advice = "name one with --task" if with_classes else "the format maps takes every task"
            raise DataError(f"{self.root} {found}; {advice}")
        self.check_task(name)
        if name not in with_classes:
            raise DataError(f"the task '{name}' of {self.root} has no classes; the format maps takes it")
        return name

    def check_task(self, name: str) -> None:
        """Raise `DataError` for a task that the folder does not have."""
        if name not in self.tasks:
            near = did_you_mean(name, self.tasks)
            raise DataError(f"{self.root} has no task '{name}'{near}; found: {', '.join(self.tasks)}")

    def match(self, name: str, where: str) -> str:
        """The id that a file of annotations means by an image's name. Raises `DataError` for an image of others."""
        text = name.replace("\\", "/").lstrip("/")
        stem, dot, _ = text.rpartition(".")
        for id in (text, stem if dot else text, text.removeprefix("images/"), stem.removeprefix("images/")):
            if id in self.index.images:
                return id
        raise DataError(
            f"{where} names the image '{name}', which {self.root} does not have{nearest_id(text, self.index.images)}; "
            f"is it of another folder?"
        )


def vocabulary(task: Task) -> Vocabulary:
    """The classes of a task and their colours."""
    classes = task.stored_classes()
    return Vocabulary(task.name, tuple(name for _, name, _ in classes), tuple(colour for _, _, colour in classes))


def class_map(value_CHW: Array, valid_HW: Array) -> Array:
    """A label of classes as one map (H, W) int16 with `VOID`."""
    return np.where(valid_HW, value_CHW[0].astype(np.int16), np.int16(VOID))
