"""Infer the description of a data folder from its files; each proposal says what was seen."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from tasktokens.datasets.files_by_id import list_files
from tasktokens.datasets.manifest import label_columns, read_manifest
from tasktokens.datasets.upright import UPRIGHT
from tasktokens.errors import DataError, TaskTokensError
from tasktokens.inspection.class_names import ClassNames, read_class_names
from tasktokens.inspection.infer_images import IMAGES, images_folder
from tasktokens.inspection.infer_kind import infer_kind
from tasktokens.inspection.infer_splits import FOLDERS, infer_splits
from tasktokens.inspection.pairing import Pairing, pair
from tasktokens.inspection.scan import FolderScan, evenly_spread_files, scan_files
from tasktokens.tasks import Task, build_task
from tasktokens.tasks.names import RESERVED
from tasktokens.utils.file_kinds import LABEL_ENDINGS
from tasktokens.utils.listing import walk_files

_WRITTEN = ("confidence", "pictures")
"""Folders that predict and discover write beside labels."""


@dataclass(frozen=True)
class InferredTask:
    """A task: its name, its settings in ``dataset.yaml``, its label files by their image's id, and what was seen.

    Attributes:
        name: of the folder.
        spec: its settings in ``dataset.yaml``.
        labels: label file by its image's id.
        saw: what was seen in the files, for the comment.
    """

    name: str
    spec: dict[str, Any]
    labels: Mapping[str, Path]
    saw: str
    exact: bool = True
    """Whether the files have the names of their images; else a manifest has to name them."""

    @property
    def files(self) -> int:
        """The number of its files that belong to an image."""
        return len(self.labels)


@dataclass
class InferredFolder:
    """What a folder seems to hold.

    Attributes:
        images: the folder of the images, or the table that names them.
        image_files: image files by id.
        tasks: what can be learned.
        splits: the value of ``splits`` in a ``dataset.yaml``; ``members`` are their ids.
        left_out: by folder or file, why it is not used.
        is_table: whether the files are those that a table names.
    """

    images: str
    image_files: Mapping[str, Path]
    tasks: list[InferredTask] = field(default_factory=list)
    splits: dict[str, str] = field(default_factory=dict)
    members: dict[str, tuple[str, ...]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    is_table: bool = False

    @property
    def count(self) -> int:
        """The number of images."""
        return len(self.image_files)

    @property
    def needs_manifest(self) -> bool:
        """Whether a table has to say which label belongs to which image."""
        return not self.is_table and not all(task.exact for task in self.tasks)


def infer_folder(root: Path) -> InferredFolder:
    """Scan a folder and up to 20 files of each folder in it. Raises `DataError` where there are no images."""
    folders = [path.name for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    reasons: dict[str, str] = {}
    try:
        inferred = _of_folders(root, folders)
    except DataError as error:
        if table := _of_table(root, reasons):
            return table
        tables = "".join(f"; {reason}" for reason in reasons.values())
        raise DataError(f"{error}{tables}") from error
    return inferred if inferred.tasks else _of_table(root, inferred.left_out) or inferred


def _of_folders(root: Path, folders: Sequence[str]) -> InferredFolder:
    where = images_folder(root, folders)
    inferred = InferredFolder(where, list_files(root / where, IMAGES))
    _count_unread(inferred, root, where, IMAGES)
    for folder in folders:
        if folder not in (where, *_WRITTEN):
            _add_tasks(inferred, root, folder)
    other_names = {
        name: id for task in inferred.tasks if not task.exact for id in task.labels for name in _names(id, task)
    }
    inferred.splits, inferred.members, unused = infer_splits(root, inferred.image_files, other_names)
    inferred.left_out |= unused
    return inferred


def _names(id: str, task: InferredTask) -> tuple[str, ...]:
    """Other names of an image in lists: with its label's name, and with what the two names share."""
    stem = task.labels[id].stem
    shared = next((stem[:end] for end in range(len(stem), 0, -1) if Path(id).name.startswith(stem[:end])), "")
    folder = id.rpartition("/")[0]
    return tuple(f"{folder}/{name}" if folder else name for name in {stem, shared.rstrip("_-. ")} - {""})


def _count_unread(inferred: InferredFolder, root: Path, folder: str, endings: Collection[str]) -> str:
    """Note the files that are passed over because of their ending; returns the words."""
    found = Counter(os.path.splitext(parts[-1])[1].lower() for parts in walk_files(root / folder))
    unread = {ending: count for ending, count in found.items() if ending not in endings and ending not in _TEXT}
    if not unread:
        return ""
    words = ", ".join(f"{count} of '{ending or 'no ending'}'" for ending, count in sorted(unread.items()))
    reason = f"files with endings that are not read: {words}; convert them to one of {' '.join(endings)}"
    inferred.left_out[f"{folder}: other files"] = reason
    return reason


_TEXT = (".txt", ".csv", ".tsv", ".json", ".xml", ".md", ".yaml", ".yml", ".names", ".parquet", ".db", ".ini", ".pdf")


# -- the tasks ---------------------------------------------------------------------------------------------------------
def _add_tasks(inferred: InferredFolder, root: Path, folder: str) -> None:
    """The tasks of a folder, or of the folders in it: ``labels/depth``."""
    try:
        files = list_files(root / folder, LABEL_ENDINGS)
    except DataError as error:
        inferred.left_out[folder] = str(error)
        return
    pairings = pair(inferred.image_files, files)
    inner = [path.name for path in sorted((root / folder).iterdir()) if path.is_dir() and path.name[0] != "."]
    if not pairings and inner and "/" not in folder:
        for name in inner:
            _add_tasks(inferred, root, f"{folder}/{name}")
        return
    unread = _count_unread(inferred, root, folder, LABEL_ENDINGS)
    if not files:
        if not unread and folder not in {above.split("/")[0] for above in FOLDERS} and folder not in FOLDERS:
            inferred.left_out[folder] = "it has no label files"
        return
    if not pairings:
        inferred.left_out[folder] = _no_names(inferred, folder, files)
        return
    known = read_class_names(root, root / folder)
    for each in pairings:
        wanted = folder.split("/")[-1] + (f"_{each.words.strip('*_-. ')}" if len(pairings) > 1 else "")
        name = task_name(wanted, [task.name for task in inferred.tasks])
        where = {} if name == folder else {"folder": folder}
        _add_task(inferred, folder if len(pairings) == 1 else f"{folder} ({each.words})", name, each, known, where)


def _no_names(inferred: InferredFolder, folder: str, files: Mapping[str, Path]) -> str:
    shown = next(iter(files))
    return (
        f"none of its {len(files)} label files has the name of an image: there is '{shown}', and images are called "
        f"'{next(iter(inferred.image_files))}'; name each label as its image, or write a CSV with the columns image,"
        f"{task_name(folder.split('/')[-1], [])} that pairs them, and manifest: with its name into dataset.yaml"
    )


def _add_task(
    inferred: InferredFolder, label: str, name: str, pairing: Pairing, known: ClassNames, where: Mapping[str, Any]
) -> None:
    """Add a task, or say why there is none. ``where`` are its settings that say where the files lie."""
    chosen = evenly_spread_files(list(pairing.files.values()))
    image_of = {path: inferred.image_files[id] for id, path in pairing.files.items()}
    scan = scan_files([(path, image_of[path]) for path in chosen], name)
    try:
        spec, saw = infer_kind(label, scan, known)
        task = build_task(name, spec)
        saw += _answers(task, chosen, scan)
    except TaskTokensError as error:
        inferred.left_out[label] = str(error)
        return
    if scan.other_size and not scan.other_shape:
        spec["resize"] = True
        saw += f"; {scan.other_size} of them have another size than their image"
    if scan.unread_arrays:
        saw += f"; of the arrays in a file '{name}' is read, not {', '.join(scan.unread_arrays)}"
    if scan.unreadable:
        saw += f"; {len(scan.unreadable)} could not be read: {scan.unreadable[0]}"
    if scan.other_shape:
        saw += f"; {scan.other_shape} of them do not have the shape of their image: crop them"
    if scan.turned:
        saw += (
            f"; {scan.turned} of their images have an EXIF orientation, which is not applied: turn them with {UPRIGHT}"
        )
    if not pairing.exact:
        saw += f"; paired by names of the form {pairing.words}"
    saw = f"{scan.files} of {len(pairing.files)} files: {saw}"
    inferred.tasks.append(InferredTask(name, {**spec, **where}, pairing.files, saw, pairing.exact))


def _answers(task: Task, files: Sequence[Path], scan: FolderScan) -> str:
    """Read files as the task will: how much is void, and whether all the rest says the same."""
    values, void, total = set[float](), 0, 0
    for path in files:
        if path.name in scan.mixed or any(str(path) in text for text in scan.unreadable):
            continue
        value, valid = task.read(path)
        void, total = void + int((~valid).sum()), total + valid.size
        if len(values) < 2:
            values |= {*np.unique(value[:, valid])[:2].tolist()}
    words = f"; {100 * void / total:.3g} % void" if void else ""
    if task.label_channels == 1 and len(values) < 2 and total:
        same = "nothing is labelled" if not values else "all pixels that are not void have the same answer"
        words += f"; {same} in these files, from which nothing can be learned: check void"
    return words


def task_name(folder: str, taken: Sequence[str]) -> str:
    """A name that a task can have: ``1-depth`` becomes ``task_1_depth``."""
    name = re.sub(r"\W", "_", folder, flags=re.ASCII)
    if not re.match(r"[A-Za-z]", name) or hasattr(nn.ModuleDict, name) or name.lower() in RESERVED:
        name = f"task_{name}"
    while name in taken:
        name += "_2"
    return name


# -- a table -----------------------------------------------------------------------------------------------------------
def _of_table(root: Path, left_out: dict[str, str]) -> InferredFolder | None:
    """What a CSV or Parquet in the folder names; None where none can be used, which ``left_out`` then explains."""
    for path in sorted(path for path in root.iterdir() if path.suffix.lower() in (".csv", ".parquet")):
        try:
            columns = label_columns(path, LABEL_ENDINGS)
            manifest = read_manifest(path, columns, IMAGES, LABEL_ENDINGS)
        except DataError as error:
            left_out[path.name] = str(error)
            continue
        inferred = InferredFolder(path.name, manifest.images, left_out=left_out, is_table=True)
        for column in columns:
            if task_name(column, []) != column:
                inferred.left_out[column] = f"no task can be called so; call the column {task_name(column, [])}"
                continue
            files = manifest.labels[column]
            if files:
                _add_task(inferred, column, column, Pairing(files), read_class_names(root), {})
        if manifest.splits:
            inferred.members = manifest.splits
        else:
            inferred.splits, inferred.members, unused = infer_splits(root, manifest.images, {})
            inferred.left_out |= unused
        return inferred
    return None
