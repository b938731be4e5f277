"""What `discover` writes of each image: a copy of what was given, and what the network says of the rest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from tasktokens.data.visibility import VisibleLabels
from tasktokens.inference.brought_labels import BroughtLabels
from tasktokens.inference.discovery_page import write_page
from tasktokens.inference.discovery_summary import SUMMARY, Discovery, Row, summarise
from tasktokens.inference.filled_folder import copy_image, copy_label, describe, write_completion, write_prediction
from tasktokens.inference.filled_provenance import provenance
from tasktokens.inference.given_labels import GivenLabels
from tasktokens.inference.label_pictures import Kept, Shown, save_label_picture, show
from tasktokens.inference.predictor import Asked, Predictor
from tasktokens.inference.results import Prediction
from tasktokens.inference.stream import Read
from tasktokens.tasks import Task
from tasktokens.utils import strict_json
from tasktokens.utils.atomic import write_atomically

FORMAT = 2
"""Version of what a journal notes; an unfinished folder of another is begun anew."""


class _Looked(NamedTuple):
    """What is known of an image with missing labels: (height, width), and the labels that others made, by task."""

    size: tuple[int, int]
    brought: Mapping[str, Prediction]


class Filler:
    """Writes the files of images, in several threads; then those of the whole folder.

    Args:
        thresholds: of each task.
        out: the folder.
        pictures: also draw training images with their labels.
        brought: labels that others made, which take the place of the network's.
        model: SHA-256 of the network's weights.

    Attributes:
        labels: the tasks whose labels are given, by image.
    """

    def __init__(
        self,
        predictor: Predictor,
        given: GivenLabels,
        thresholds: Mapping[str, float],
        out: Path,
        pictures: bool,
        brought: BroughtLabels,
        model: str,
    ) -> None:
        self.predictor, self.given, self.labels, self.thresholds = predictor, given, given.all_labels(), thresholds
        self.out, self.pictures, self.brought, self.model = out, pictures, brought, model

    def settings(self) -> dict[str, Any]:
        """What decides the content of the folder, as its journal has it."""
        return {
            "run": self.model,
            "version of the format": FORMAT,
            "threshold": self.thresholds,
            "choice of views": self.predictor.views_by_task,
            "choice of teachers": self.brought.folders,
            "choice of pictures": self.pictures,
            "set of images or given labels": _digest(self.labels, self.given),
        }

    def complete(self, done: Mapping[str, list[Row]], notes: Sequence[str], page: bool) -> None:
        """All images are done: write the summary, what describes the folder, and the page."""
        rows = [row for id in self.given.train for row in done[id]]
        discovery = Discovery(self.out, summarise(rows, self.thresholds), (*self.given.notes, *notes))
        write_atomically(self.out / SUMMARY, f"{discovery.to_json()}\n".encode())
        origins = provenance(self.given, self.labels, rows, self.model, self.predictor)
        describe(self.out, self.given, origins, self.thresholds)
        if page:
            write_page(discovery, rows)

    def read(self, id: str) -> Read:
        """What the network gets of a training image with missing labels; nothing where others brought them all."""
        missing, partial = self._missing(id), self._partial(id)
        if not missing and not partial:
            return Read(None)
        image = self.given.index.images[id].read()
        height, width = image.shape[:2]
        looked = _Looked((height, width), self.brought.find(id, (height, width)))
        asked = bool(partial) or not looked.brought.keys() >= set(missing)
        return Read(self.predictor.prepare(image) if asked else None, height * width, looked)

    def ask(self, seen_13hw: Sequence[Tensor]) -> list[Asked]:
        """What the network says of images of one size."""
        return self.predictor.ask(seen_13hw)

    def write(self, id: str, looked: _Looked | None, asked: Asked | None) -> list[Row]:
        """Copy an image and its given labels; write what was discovered. Returns a row per discovered label."""
        index, tasks = self.given.index, self.given.tasks
        copy_image(index.images[id], self.out / "images", id)
        for name in self.labels[id]:
            copy_label(index.labels[name][id], tasks[name], self.out / name, id)
        rows, shown = [], {}
        if looked is not None:
            for name in self._missing(id):
                row, shown[name] = self._discover(id, tasks[name], looked, asked)
                rows.append(row)
            if asked is not None:
                rows += [self._complete(id, tasks[name], looked, asked) for name in self._partial(id)]
        if self.pictures and id in self.given.train:
            self._draw(id, shown)
        return rows

    def _missing(self, id: str) -> list[str]:
        return [name for name in self.given.tasks if name not in self.labels[id]] if id in self.given.train else []

    def _partial(self, id: str) -> list[str]:
        """The tasks whose given label of a training image leaves classes open."""
        labels = self.given.index.labels
        return [name for name in self.labels[id] if labels[name][id].labelled] if id in self.given.train else []

    def _complete(self, id: str, task: Task, looked: _Looked, asked: Asked) -> Row:
        """A class for the pixels that a given label leaves open, among those that were not labelled there."""
        label = self.given.index.labels[task.name][id]
        value, valid = label.read()
        logits = task.restrict(asked.logits[task.name], label.labelled)
        found = self.predictor.decode_task(task.name, logits, looked.size)
        is_open = valid & task.open_pixels(value)
        written = write_completion(self.out, task, id, found, is_open, self.thresholds[task.name])
        return [id, task.name, *written.row(), "network", asked.disagreement.get(task.name)]

    def _discover(self, id: str, task: Task, looked: _Looked, asked: Asked | None) -> tuple[Row, Shown | None]:
        """One label, row of the table and colours."""
        found, size, disagreement = looked.brought.get(task.name), looked.size, None
        bands: Iterable[Prediction] = () if found is None else (found,)
        if found is None and asked is not None:  # it is asked unless others brought all that is missing
            bands = self.predictor.decode_bands(task.name, asked.logits[task.name], size)
            disagreement = asked.disagreement.get(task.name)
        drawn = Kept(task, size) if self.pictures else None
        written = write_prediction(self.out, task, id, bands, size, self.thresholds[task.name], drawn)
        row = [id, task.name, *written.row(), self.brought.source(id, task.name), disagreement]
        return row, None if drawn is None else drawn.shown(f"{task.name}, discovered")

    def _draw(self, id: str, discovered: Mapping[str, Shown | None]) -> None:
        index = self.given.index
        shown = [
            discovered.get(name) or show(task, *index.labels[name][id].read(), caption=f"{name}, given")
            for name, task in self.given.tasks.items()
        ]
        save_label_picture(self.out / "pictures" / f"{id}.png", id, index.images[id].read(), shown)


def _digest(labels: VisibleLabels, given: GivenLabels) -> str:
    """What decides which labels are copied and which discovered."""
    values = [list(labels.items()), list(given.train), {name: list(ids) for name, ids in given.others.items()}]
    return hashlib.sha256(strict_json.dumps(values).encode()).hexdigest()
