"""The files of a completed folder: given labels, predicted ones, and what describes them as a data folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasktokens.datasets.index import ImageFile, LabelFile, read_image
from tasktokens.datasets.labelled_classes import LABELLED, labelled_rows, write_labelled
from tasktokens.datasets.provenance import ProvenanceRow, write_provenance
from tasktokens.datasets.told_apart import COMPLETED
from tasktokens.inference.description import write_description
from tasktokens.inference.discovery_summary import BINS, histogram
from tasktokens.inference.given_labels import GivenLabels
from tasktokens.inference.label_pictures import Kept
from tasktokens.inference.results import Prediction
from tasktokens.tasks import Task
from tasktokens.tasks.base import Array
from tasktokens.tasks.files import write_png, write_stored
from tasktokens.utils.atomic import atomically
from tasktokens.utils.file_kinds import CONFIDENCE


class Written:
    """What is known of a prediction that was written: pixels, and how confident they are."""

    def __init__(self) -> None:
        self.pixels, self.above, self.sum, self.counts = 0, 0, 0.0, np.zeros(BINS + 1, np.int64)

    def add(self, confidence_nW: Array, valid_nW: Array | None) -> None:
        """Some of its rows."""
        known = np.nan_to_num(confidence_nW)
        self.pixels += known.size
        self.above += known.size if valid_nW is None else int(valid_nW.sum())
        self.sum += float(known.sum(dtype=np.float64))
        self.counts += histogram(known)

    def row(self) -> list[Any]:
        """Share of pixels that are valid, mean confidence, and its histogram."""
        return [round(self.above / self.pixels, 4), round(self.sum / self.pixels, 4), self.counts.tolist()]


def write_prediction(
    folder: Path, task: Task, id: str, bands: Iterable[Prediction], size: tuple[int, int],
    threshold: float | None = None, drawn: Kept | None = None,
) -> Written:  # fmt: skip
    """A predicted label of (height, width), void up to the threshold, and its confidence; from bands of rows, so that
    the values of a photograph are never in memory as floats. ``drawn`` keeps what a picture shows of them.
    """
    # A kind that writes files itself, or whose values may not fit into the integers of its files, has to see them all.
    if type(task).write is not Task.write or task.storable() != task:
        bands = [_joined(list(bands))]
    written, confidences, stored, top = Written(), np.empty(size, np.uint8), np.empty(0), 0
    for band in bands:
        rows = slice(top, top + len(band.confidence))
        valid = None if threshold is None else band.confidence > threshold
        confidences[rows] = np.rint(band.confidence * 255)
        written.add(band.confidence, valid)
        if drawn is not None:
            drawn.add(top, band.value_CHW, valid, band.confidence)
        if len(band.confidence) == size[0]:
            task.write(folder / task.name / f"{id}.png", band.value_CHW, valid)
        else:
            part = task.encode(band.value_CHW, valid)
            stored = stored if top else np.empty((size[0], *part.shape[1:]), part.dtype)
            stored[rows] = part
        top = rows.stop
    if stored.size:
        write_stored(folder / task.name / f"{id}.png", stored)
    write_png(folder / CONFIDENCE / task.name / f"{id}.png", confidences)
    return written


def write_completion(
    folder: Path, task: Task, id: str, found: Prediction, open_HW: Array, threshold: float
) -> Written:  # fmt: skip
    """What was discovered of a given label that leaves classes open (``open_HW``), which stays as it is."""
    confidence = np.where(open_HW, np.nan_to_num(found.confidence), np.float32(0))
    valid, written = confidence > threshold, Written()
    written.add(confidence, valid)
    task.write(folder / COMPLETED / task.name / f"{id}.png", found.value_CHW, valid)
    write_png(folder / CONFIDENCE / task.name / f"{id}.png", np.rint(confidence * 255).astype(np.uint8))
    return written


def _joined(bands: Sequence[Prediction]) -> Prediction:
    value = np.concatenate([band.value_CHW for band in bands], axis=1)
    return Prediction(bands[0].task, value, np.concatenate([band.confidence for band in bands]))


def copy_image(image: ImageFile, folder: Path, id: str) -> None:
    """Byte for byte where the file is an image; PNG where it is an array or part of a larger file."""
    if image.reader is read_image:
        copy_plain(image.path, folder, id)
    else:
        write_png(folder / f"{id}.png", image.read())


def copy_label(label: LabelFile, task: Task, folder: Path, id: str) -> None:
    """Byte for byte where the file has the own-folder layout; else in the task's own format."""
    if label.plain:
        copy_plain(label.path, folder, id)
    else:
        task.write(folder / f"{id}.png", *label.read())


def copy_plain(source: Path, folder: Path, id: str) -> None:
    """A file as it is, whole or not at all."""
    target = folder / f"{id}{source.suffix}"
    with atomically(target) as new:
        shutil.copyfile(source, new)


def describe(
    out: Path, given: GivenLabels, provenance: Iterable[ProvenanceRow], thresholds: Mapping[str, float]
) -> None:
    """The table of where labels come from, the lists of the splits, and, last, ``dataset.yaml``."""
    write_provenance(out, provenance)
    splits = {"train": tuple(given.train), **given.others}
    for name, ids in splits.items():
        write_split(out, name, ids)
    labelled = {name: given.index.labelled_classes(name) for name in given.tasks}
    partial = write_labelled(out / LABELLED, labelled_rows(labelled, (id for ids in splits.values() for id in ids)))
    values = {
        "name": f"{given.index.root.name}-discovered",
        "splits": {name: f"{name}.txt" for name in splits},
        "tasks": described_tasks(given.tasks, thresholds),
        **({"labelled": LABELLED} if partial else {}),
    }
    write_description(out, values, given.tasks)


def write_split(out: Path, name: str, ids: Iterable[str]) -> None:
    """The list of a split."""
    with atomically(out / f"{name}.txt") as new, new.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{id}\n" for id in ids)


def described_tasks(tasks: Mapping[str, Task], thresholds: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """The tasks as ``dataset.yaml`` has them, with the thresholds above which labels were written."""
    specs = {
        name: task.reading(()).spec()
        | {key: value for key, value in task.training().items() if value != getattr(type(task), key)}
        for name, task in tasks.items()
    }
    for name, threshold in thresholds.items():
        specs[name]["threshold"] = threshold
    return specs
