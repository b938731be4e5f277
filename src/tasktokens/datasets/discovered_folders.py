"""Labels that somebody else discovered: folders of label files with confidences, in the own-folder layout.

``FOLDER/TASK/ID.png`` (or ``.npy`` and so on) are labels as the task's files are, ``FOLDER/confidence/TASK/ID.png``
(0..255 for 0..1) or ``.npy`` (0..1) what each pixel is worth; without a folder ``confidence/TASK`` every pixel that is
not void is worth 1. That is what ``tasktokens discover`` writes; of such a folder the labels are taken that its
``provenance.csv`` calls discovered, for the others were given, or decided of by a person. The labels that a data set
itself calls discovered are read in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tasktokens.data.ids import nearest_id
from tasktokens.data.sample import Label
from tasktokens.data.visibility import VisibleLabels
from tasktokens.datasets.files_by_id import list_files
from tasktokens.datasets.folder_description import described_tasks
from tasktokens.datasets.index import DatasetIndex, DiscoveredLabel, LabelFile
from tasktokens.datasets.provenance import PROVENANCE, read_provenance
from tasktokens.datasets.told_apart import COMPLETED
from tasktokens.errors import DataError, LabelError, did_you_mean
from tasktokens.tasks import Task
from tasktokens.tasks.base import Array
from tasktokens.tasks.same import require_same_tasks
from tasktokens.tasks.stored import read_stored
from tasktokens.utils.file_kinds import CONFIDENCE, LABEL_ENDINGS
from tasktokens.utils.progress import track

_BESIDE = ("images", CONFIDENCE, COMPLETED, "pictures")
"""Folders that are no task's."""

Row = list[Any]
"""Of the table of what is learned: id, task, source, share of pixels, mean confidence of these."""


@dataclass(frozen=True)
class _Source:
    """One label of one folder."""

    name: str
    label: LabelFile
    confidence: Path | None


class DiscoveredFolders:
    """The labels of one folder or several for images and tasks without a visible label.

    Where several have a label of the same image and task, each pixel is that of the most confident one.

    Args:
        folders: in the order in which a tie is decided.
        index: the data set whose images they are of.
        tasks: to be learned.
        visible: for each training image the tasks whose label is given; those are left alone.

    Raises:
        DataError: a folder is missing, has no label of the tasks, a label of an image that is not there or without its
            confidence. ConfigError: its tasks mean something else.
    """

    def __init__(
        self, folders: Sequence[Path], index: DatasetIndex, tasks: Mapping[str, Task], visible: VisibleLabels
    ) -> None:
        self.folders, self.index, self.tasks, self.visible = tuple(folders), index, dict(tasks), visible
        self._sources: dict[tuple[str, str], list[_Source]] = {}
        self._survey: list[Row] | None = None
        self._completions: dict[tuple[str, str], DiscoveredLabel] = {}
        for folder in folders:
            for id, task, source in _list(folder, index, self.tasks):
                if task not in visible.get(id, self.tasks):
                    self._sources.setdefault((id, task), []).append(source)

    @classmethod
    def of_data(cls, index: DatasetIndex, tasks: Mapping[str, Task], visible: VisibleLabels) -> DiscoveredFolders:
        """The labels that the data set itself calls discovered."""
        own = cls((), index, tasks, visible)
        for task in tasks:
            for id, found in index.discovered.get(task, {}).items():
                if task not in visible.get(id, tasks):
                    by = index.provenance[task][id].by or str(index.root)
                    own._sources[id, task] = [_Source(by, found.label, found.confidence)]
            for id, found in index.completions.get(task, {}).items():
                if task in visible.get(id, ()):
                    own._completions[id, task] = found
        return own

    @property
    def in_place_of_teacher(self) -> bool:
        """Whether the labels come from elsewhere (``data.discovered``): no teacher discovers others then."""
        return bool(self.folders)

    def only(self, pairs: Iterable[tuple[str, str]]) -> DiscoveredFolders:
        """Those of some pairs of (id, task)."""
        chosen = DiscoveredFolders((), self.index, self.tasks, self.visible)
        chosen._sources = {pair: self._sources[pair] for pair in pairs}
        chosen._completions = self._completions
        return chosen

    def pairs(self) -> Iterator[tuple[str, str]]:
        """The (id, task) that have such a label."""
        yield from self._sources

    def has(self, id: str, task: str) -> bool:
        """Whether there is such a label."""
        return (id, task) in self._sources

    def __len__(self) -> int:
        """How many pairs of image and task have such a label, or a given one that was completed."""
        return len(self._sources) + len(self._completions)

    def files(self) -> Iterator[tuple[str, str, Path]]:
        """Every file that is read: id, what it is (``discovered label 1 of semseg``), and its path."""
        for (id, task), sources in self._sources.items():
            for number, source in enumerate(sources, 1):
                yield id, f"discovered label {number} of {task}", source.label.path
                if source.confidence is not None:
                    yield id, f"confidence {number} of {task}", source.confidence

    def find(self, id: str, task: str, size: tuple[int, int]) -> Label | None:
        """The label for an image of (height, width), with a weight per pixel in [0, 1]; None where there is none.

        Raises `LabelError` naming a file that cannot be read or has another size.
        """
        sources = self._sources.get((id, task))
        if not sources:
            return None
        value, weight, _ = self._combined(id, task, sources, size)
        return Label(torch.from_numpy(value), torch.from_numpy(weight > 0)[None], torch.from_numpy(weight)[None])

    def complete(self, id: str, task: str, given: Label) -> Label:
        """A given label in which not all classes were labelled, with what was discovered of the pixels that it leaves
        open: those weigh their confidence, all others 1. Other labels are returned as they are. Raises `LabelError`.
        """
        found = self._completions.get((id, task))
        if found is None:
            return given
        size = (given.valid.shape[-2], given.valid.shape[-1])
        source = _Source(str(self.index.root), found.label, found.confidence)
        value, weight = (torch.from_numpy(each) for each in _read(source, self.index, id, task, size))
        filled = given.valid & torch.from_numpy(self.tasks[task].open_pixels(given.value.numpy())) & (weight > 0)
        weights = torch.where(filled, weight, torch.ones_like(weight))
        return Label(torch.where(filled, value, given.value), given.valid, weights)

    def survey(self, shown: bool = False) -> list[Row]:
        """`rows` of all images, in order; every file is read, the first time. Raises `LabelError`."""
        if self._survey is None:
            ids = track(list(self.visible), "reading discovered labels", shown)
            self._survey = [row for id in ids for row in self.rows(id)]
        return self._survey

    def rows(self, id: str) -> Iterator[Row]:
        """What is learned of an image from which folder; its files are read, so that all are checked.

        Raises `LabelError`.
        """
        wanted = {task: found for task in self.tasks if (found := self._sources.get((id, task)))}
        height, width = self.index.images[id].read().shape[:2] if wanted else (0, 0)
        for task, sources in wanted.items():
            _, weight, best = self._combined(id, task, sources, (height, width))
            for number, source in enumerate(sources):
                won = (best == number) & (weight > 0)
                confidence = float(weight[won].mean()) if won.any() else 0.0
                yield [id, task, source.name, round(float(won.mean()), 4), round(confidence, 4)]

    def _combined(
        self, id: str, task: str, sources: Sequence[_Source], size: tuple[int, int]
    ) -> tuple[Array, Array, Array]:
        """Value (C, H, W), weight (H, W) float32, 0 where no source says anything, and the number of the source."""
        read = [_read(source, self.index, id, task, size) for source in sources]
        weights = np.stack([weight for _, weight in read])
        best = weights.argmax(axis=0)
        value = np.take_along_axis(np.stack([value for value, _ in read]), best[None, None], axis=0)[0]
        return value, np.take_along_axis(weights, best[None], axis=0)[0], best


def require_told_apart(index: DatasetIndex, folders: Sequence[Path]) -> None:
    """Raise `DataError` for data that is a folder of discovered labels too and does not say which those are."""
    if any(folder.resolve() == index.root.resolve() for folder in folders) and not read_provenance(index.root):
        raise DataError(
            f"{index.root} is both the data and a folder of discovered labels, and has no {PROVENANCE} that tells them "
            f"apart; give the folder of the data, or another of discovered labels"
        )


def _list(folder: Path, index: DatasetIndex, tasks: Mapping[str, Task]) -> Iterator[tuple[str, str, _Source]]:
    """Every label of a folder: id, task, and where it lies."""
    if not folder.is_dir():
        raise DataError(f"the folder of discovered labels {folder} does not exist")
    found = {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
    own: Mapping[str, Task] = tasks
    if (folder / "dataset.yaml").is_file():
        own = described_tasks(folder)
        require_same_tasks({n: own[n] for n in tasks if n in own}, tasks, folder, index.root, storage=False)
    else:
        for name in sorted(found - {*tasks, *_BESIDE, *index.tasks}):
            raise DataError(f"{folder} has a folder '{name}', which is no task{did_you_mean(name, tasks)}; rename it")
    wanted = [name for name in tasks if name in found and name in own]
    if not wanted:
        raise DataError(f"{folder} has labels of none of the tasks {', '.join(tasks)}: expected a folder of that name")
    listed = _listed(folder)
    for name in wanted:
        confidences = _confidences(folder, name)
        for id, path in list_files(folder / name, LABEL_ENDINGS).items():
            if listed is not None and (id, name) not in listed:
                continue
            if id not in index.images:
                raise DataError(f"{path} is of no image of {index.root}{nearest_id(id, index.images)}; remove it")
            if confidences is not None and id not in confidences:
                raise DataError(f"{path} has no confidence {folder / CONFIDENCE / name / id}.png (or .npy); add it")
            confidence = None if confidences is None else confidences[id]
            yield id, name, _Source(str(folder), LabelFile(path, own[name].read, plain=True), confidence)


def _confidences(folder: Path, task: str) -> dict[str, Path] | None:
    place = folder / CONFIDENCE / task
    return list_files(place, LABEL_ENDINGS) if place.is_dir() else None


def _listed(folder: Path) -> set[tuple[str, str]] | None:
    """The (id, task) that a folder's own table calls discovered; None for a folder without one."""
    table = read_provenance(folder)
    return {row.key for row in table.values() if row.source == "discovered"} if table else None


def _read(source: _Source, index: DatasetIndex, id: str, task: str, size: tuple[int, int]) -> tuple[Array, Array]:
    """Value (C, H, W) and weight (H, W) float32, 0 on void."""
    value, valid = source.label.read_for(index.images[id], size)
    weight = np.ones(size, np.float32) if source.confidence is None else read_confidence(source.confidence, size)
    return value, np.where(valid, weight, np.float32(0))


def read_confidence(path: Path, size: tuple[int, int]) -> Array:
    """A file of confidences, (H, W) float32 in [0, 1]; NaN is 0. Raises `LabelError` for other values or sizes."""
    stored = read_stored(path)
    plane = stored.numbers(lossless=False)
    if plane.shape != size:
        raise LabelError(
            f"confidence {path} is {plane.shape[1]}x{plane.shape[0]} pixels, its image {size[1]}x{size[0]}; make them "
            f"equal"
        )
    if plane.dtype == np.bool_:
        return plane.astype(np.float32)
    if plane.dtype in (np.uint8, np.uint16):
        return plane.astype(np.float32) / np.float32(np.iinfo(plane.dtype).max)
    known = np.nan_to_num(plane.astype(np.float32), nan=0.0, posinf=2.0, neginf=-1.0)
    if not np.issubdtype(plane.dtype, np.floating) or known.min() < 0 or known.max() > 1:
        raise LabelError(
            f"confidence {path} must hold 8 or 16 bits for 0 to 1, or floats from 0 to 1; found {plane.dtype} from "
            f"{known.min():g} to {known.max():g}"
        )
    return known
