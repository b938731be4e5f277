"""Discovered labels as files: what a teacher says of whole images, once, for a student to learn from.

A store is a folder. ``TASK/ID.npy`` is float16 (K, h, w): logits at the size of the heads, log-probabilities less the
largest of each cell, for every training image in which the task has no visible label. ``TASK/ID.token``, where tokens
are learned from, is the teacher's token of the image, float32 (D,). ``store.json`` says whose they are and is written
last: without it a store is not complete, and ``writing.json`` in its place says what was begun. ``discovered.csv``
lists the labels with their mean confidence. Files are read through the page cache (memory-mapped), a window at a time.
"""

from __future__ import annotations

import csv
import hashlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasktokens.data.soft_labels import SoftLabel, to_half
from tasktokens.data.visibility import VisibleLabels
from tasktokens.discovery.views import ImageView
from tasktokens.errors import CheckpointError, DataError
from tasktokens.tasks import Task
from tasktokens.utils import strict_json
from tasktokens.utils.atomic import atomically, write_atomically
from tasktokens.utils.safe_io import load_json, read_json

FORMAT = 1
"""Version of the files of a store."""
COMPLETE, WRITING, TABLE = "store.json", "writing.json", "discovered.csv"

Row = list[Any]
"""Of `TABLE`: id, task, source, mean confidence, bytes."""


@dataclass(frozen=True)
class Provenance:
    """What decides the content of a store.

    Attributes:
        teacher: SHA-256 of the teacher's weights file.
        tasks: for each task what it means (`Task.spec`).
        views: for each task.
        mirror: whether any view is mirrored.
        size: (height, width) of the training images; each image has about as many pixels (`working_size`).
        head: (height, width) of a head's map of such an image.
        labels: digest of the images and of which labels they show.
        token_width: length of the token of each label; None where they have none.
    """

    teacher: str
    tasks: Mapping[str, Mapping[str, Any]]
    views: Mapping[str, Sequence[ImageView]]
    mirror: bool
    size: tuple[int, int]
    head: tuple[int, int]
    labels: str
    token_width: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values, as `COMPLETE` holds them."""
        return {
            **({} if self.token_width is None else {"token_width": self.token_width}),
            "format": FORMAT,
            "teacher": self.teacher,
            "tasks": {name: dict(spec) for name, spec in self.tasks.items()},
            "views": {name: [[zoom, mirrored] for zoom, mirrored in views] for name, views in self.views.items()},
            "mirror": self.mirror,
            "size": list(self.size),
            "head": list(self.head),
            "labels": self.labels,
        }

    def difference(self, found: Mapping[str, Any]) -> str | None:
        """The first thing in which what a document says is another, by a name that a user understands."""
        names = {"format": "version of the format", "mirror": "use of mirror images", "head": "size of the heads",
                 "labels": "set of images or visible labels", "token_width": "kind of tokens"}  # fmt: skip
        own = load_json(strict_json.dumps(self.to_json()))
        return next((names.get(key, key) for key, value in own.items() if found.get(key) != value), None)


def labels_digest(visible: VisibleLabels) -> str:
    """Of images, in order, and the tasks whose labels they show."""
    return hashlib.sha256(strict_json.dumps(list(visible.items())).encode()).hexdigest()


def missing_labels(visible: VisibleLabels, tasks: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The tasks without a visible label, of the images that have such."""
    tasks = tuple(tasks)
    found = {id: tuple(name for name in tasks if name not in seen) for id, seen in visible.items()}
    return {id: names for id, names in found.items() if names}


class Store:
    """The labels of a complete store, a `tasktokens.data.soft_labels.SoftSource`."""

    def __init__(
        self, folder: Path, tasks: Mapping[str, Task], head: tuple[int, int], left_out: Iterable[str],
        token_width: int | None = None,
    ) -> None:  # fmt: skip
        self.folder, self.tasks, self._head, self._left_out = folder, dict(tasks), head, frozenset(left_out)
        self._token_width = token_width

    @property
    def head(self) -> tuple[int, int]:
        """(height, width) of the maps of a sample."""
        return self._head

    @property
    def token_width(self) -> int | None:
        """Length of the token that each label has; None where labels have none."""
        return self._token_width

    def find(self, id: str, task: str) -> SoftLabel | None:
        """The label of the whole image; None where the image could not be read while it was discovered.

        Raises `DataError` for a file that is missing or damaged.
        """
        path = label_path(self.folder, task, id)
        if id in self._left_out and not path.is_file():
            return None
        width = self._token_width
        token = None if width is None else read_token(token_path(self.folder, task, id), width)
        return SoftLabel(read_logits(path, self.tasks[task]), token=token)


def open_store(folder: Path, provenance: Provenance, tasks: Mapping[str, Task]) -> Store:
    """Open a complete store. Raises `CheckpointError` where it is not complete, or of something else."""
    document = read_document(folder / COMPLETE)
    advice = "put the folder back as the run had written it, or start the run anew"
    if document is None:
        raise CheckpointError(f"the discovered labels in {folder} are not complete (no {COMPLETE}); {advice}")
    if (other := provenance.difference(document)) is not None:
        raise CheckpointError(f"the discovered labels in {folder} are not of this run: another {other}; {advice}")
    return Store(folder, tasks, provenance.head, document.get("left_out", ()), provenance.token_width)


class StoreWriter:
    """Writes a store; what is there already of the same provenance is kept, so an interrupted one goes on."""

    def __init__(self, folder: Path, provenance: Provenance, tasks: Mapping[str, Task]) -> None:
        self.folder, self.provenance, self.tasks = folder, provenance, dict(tasks)

    def begin(self) -> bool:
        """Make the folder ready, by one process before any writes; returns whether the store is complete already.

        What another teacher discovered is deleted.
        """
        if self._is_ours(COMPLETE):
            return True
        if not self._is_ours(WRITING):
            if self.folder.exists():
                shutil.rmtree(self.folder)
            write_atomically(self.folder / WRITING, self._document({}))
        for half in self.folder.rglob(".*.partial*"):  # of a killed process
            half.unlink()
        return False

    def has(self, id: str, tasks: Iterable[str]) -> bool:
        """Whether all of an image's labels are there."""
        return all(path.is_file() for name in tasks for path in self._paths(id, name))

    def expected_bytes(self, wanted: Mapping[str, Iterable[str]]) -> int:
        """What the labels of images will take, if all images have the shape of the training size."""
        height, width = self.provenance.head
        of_task = {
            name: 2 * task.num_tokens * height * width + 4 * (self.provenance.token_width or 0)
            for name, task in self.tasks.items()
        }
        return sum(of_task[name] for names in wanted.values() for name in names)

    def write(self, id: str, task: str, logits_Khw: Tensor, token_D: Tensor | None = None) -> None:
        """One label, each of its files in one piece; ``token_D`` is kept where the store has tokens."""
        if self.provenance.token_width is not None:
            if token_D is None:
                raise ValueError(f"the teacher has no token for task '{task}'")
            _write_array(token_path(self.folder, task, id), token_D.cpu().numpy().astype(np.float32))
        _write_array(label_path(self.folder, task, id), quantised(self.tasks[task], logits_Khw).cpu().numpy())

    def row(self, id: str, task: str, source: str) -> Row:
        """What the table says of a label that is there."""
        path = label_path(self.folder, task, id)
        confidence = self.tasks[task].confidence(read_logits(path, self.tasks[task]).float()[None]).mean().item()
        return [id, task, source, round(confidence, 4), sum(each.stat().st_size for each in self._paths(id, task))]

    def end(self, rows: Sequence[Row], left_out: Sequence[str]) -> None:
        """All labels are there: write the table, then the document that makes the store complete."""
        with atomically(self.folder / TABLE) as new, new.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "task", "source", "confidence", "bytes"])
            writer.writerows(rows)
        facts = {"count": len(rows), "bytes": sum(row[4] for row in rows), "left_out": list(left_out)}
        write_atomically(self.folder / COMPLETE, self._document(facts))
        (self.folder / WRITING).unlink(missing_ok=True)

    def _paths(self, id: str, task: str) -> list[Path]:
        """The files of a label."""
        label, token = label_path(self.folder, task, id), token_path(self.folder, task, id)
        return [label] if self.provenance.token_width is None else [label, token]

    def _is_ours(self, name: str) -> bool:
        document = read_document(self.folder / name)
        return document is not None and self.provenance.difference(document) is None

    def _document(self, facts: Mapping[str, Any]) -> bytes:
        return f"{strict_json.dumps(self.provenance.to_json() | dict(facts), indent=1)}\n".encode()


def label_path(folder: Path, task: str, id: str) -> Path:
    """Where a label lies."""
    return folder / task / f"{id}.npy"


def token_path(folder: Path, task: str, id: str) -> Path:
    """Where the teacher's token of an image lies."""
    return folder / task / f"{id}.token"


def _write_array(path: Path, array: NDArray[Any]) -> None:
    with atomically(path) as new, new.open("wb") as file:
        np.lib.format.write_array(file, array, allow_pickle=False)


def quantised(task: Task, logits_Khw: Tensor) -> Tensor:
    """As float16. Of a distribution the largest log-probability is moved to 0, where float16 is finest.

    A constant that is added to all logits of a cell changes nothing of their softmax, nor of a mean of neighbours.

    Examples:
        >>> from tasktokens.tasks import Segmentation
        >>> quantised(Segmentation("semseg", classes=("a", "b")), torch.tensor([[[100.0]], [[97.0]]])).flatten()
        tensor([ 0., -3.], dtype=torch.float16)
    """
    logits = logits_Khw.float()
    return to_half(logits - logits.amax(dim=0, keepdim=True) if task.has_distribution else logits)


def read_logits(path: Path, task: Task) -> Tensor:
    """A label's map (K, h, w) float16, memory-mapped. Raises `DataError` for a file that is missing or damaged."""
    array = _read_array(path)
    if array.dtype != np.float16 or array.ndim != 3 or array.shape[0] != task.num_tokens or 0 in array.shape:
        raise DataError(
            f"the discovered label {path} is damaged: expected float16 ({task.num_tokens}, h, w), found {array.dtype} "
            f"{array.shape}; start the run anew"
        )
    return torch.from_numpy(array)


def read_token(path: Path, width: int) -> Tensor:
    """The teacher's token of an image, (D,) float32. Raises `DataError` for a file that is missing or damaged."""
    array = _read_array(path)
    if array.dtype != np.float32 or array.shape != (width,):
        raise DataError(
            f"the token of a discovered label {path} is damaged: expected float32 ({width},), found {array.dtype} "
            f"{array.shape}; start the run anew"
        )
    return torch.from_numpy(array)


def _read_array(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)  # "c": torch wants memory to write to
    except FileNotFoundError as error:
        raise DataError(f"the discovered label {path} is gone; put it back, or start the run anew") from error
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"the discovered label {path} is damaged ({error}); start the run anew") from error
    return array


def read_document(path: Path) -> Mapping[str, Any] | None:
    """A store's document; None where there is none that can be read."""
    try:
        values = read_json(path)
    except (OSError, ValueError):
        return None
    return values if isinstance(values, Mapping) else None
