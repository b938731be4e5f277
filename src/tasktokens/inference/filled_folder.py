"""The files of a completed folder: given labels, predicted ones, and what describes them as a data folder."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tasktokens.datasets.index import ImageFile, LabelFile, read_image
from tasktokens.datasets.labelled_classes import LABELLED, labelled_rows, write_labelled
from tasktokens.datasets.provenance import ProvenanceRow, write_provenance
from tasktokens.datasets.told_apart import COMPLETED, CONFIDENCE
from tasktokens.inference.given_labels import GivenLabels
from tasktokens.inference.results import Prediction
from tasktokens.tasks import Task
from tasktokens.tasks.base import Array
from tasktokens.tasks.files import write_png
from tasktokens.utils.atomic import atomically, writing
from tasktokens.utils.safe_io import dump_yaml

FORMATS = """\
# One label file per image and task, {task}/{id}.png or .npy; confidence/{task}/{id}.png: 0..255 for 0..1.
# classes: ids (classes.csv), `void` among them. depth: 16 bit, (v + offset) * scale, 0 void; npy: metres.
# normals: 8-bit RGB, n = 2 v / 255 - 1, x right, y down, z forward (or `frame`), (128, 128, 128) void.
# Probabilities: v / 255, alpha 0 void; npy: as they are. Numbers: npy. NaN is void.
"""
"""What a filled folder says about its files, at the top of its ``dataset.yaml``."""


def write_prediction(folder: Path, task: Task, id: str, prediction: Prediction, valid: Array | None = None) -> None:
    """A predicted label, void where ``valid`` (H, W) is False, and its confidence."""
    task.write(folder / task.name / f"{id}.png", prediction.value_CHW, valid)
    _write_confidence(folder, task, id, prediction.confidence)


def write_completion(
    folder: Path, task: Task, id: str, value_CHW: Array, valid_HW: Array, confidence_HW: Array
) -> None:
    """What was discovered of a given label that leaves classes open, which stays as it is."""
    task.write(folder / COMPLETED / task.name / f"{id}.png", value_CHW, valid_HW)
    _write_confidence(folder, task, id, confidence_HW)


def _write_confidence(folder: Path, task: Task, id: str, confidence_HW: Array) -> None:
    confidence = confidence_HW * 255
    np.rint(confidence, out=confidence)
    write_png(folder / CONFIDENCE / task.name / f"{id}.png", confidence.astype(np.uint8))


def copy_image(image: ImageFile, folder: Path, id: str) -> None:
    """Byte for byte where the file is an image; PNG where it is an array or part of a larger file."""
    if image.reader is read_image:
        _copy(image.path, folder, id)
    else:
        write_png(folder / f"{id}.png", image.read())


def copy_label(label: LabelFile, task: Task, folder: Path, id: str) -> None:
    """Byte for byte where the file has the own-folder layout; else in the task's own format."""
    if label.plain:
        _copy(label.path, folder, id)
    else:
        task.write(folder / f"{id}.png", *label.read())


def _copy(source: Path, folder: Path, id: str) -> None:
    target = folder / f"{id}{source.suffix}"
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def describe(
    out: Path, given: GivenLabels, provenance: Iterable[ProvenanceRow], thresholds: Mapping[str, float]
) -> None:
    """The table of where labels come from, the lists of the splits, and, last, ``dataset.yaml``."""
    write_provenance(out, provenance)
    splits = {"train": tuple(given.train), **given.others}
    for name, ids in splits.items():
        with atomically(out / f"{name}.txt") as new:
            new.write_text("".join(f"{id}\n" for id in ids), encoding="utf-8")
    tasks = {
        name: task.reading(()).spec()
        | {key: value for key, value in task.training().items() if value != getattr(type(task), key)}
        for name, task in given.tasks.items()
    }
    for name, threshold in thresholds.items():
        tasks[name]["threshold"] = threshold
    labelled = {name: given.index.labelled_classes(name) for name in given.tasks}
    partial = write_labelled(out / LABELLED, labelled_rows(labelled, (id for ids in splits.values() for id in ids)))
    values = {
        "name": f"{given.index.root.name}-discovered",
        "splits": {name: f"{name}.txt" for name in splits},
        "tasks": tasks,
        **({"labelled": LABELLED} if partial else {}),
    }
    write_description(out, values, given.tasks)


def write_description(out: Path, values: Mapping[str, Any], tasks: Mapping[str, Task]) -> None:
    """``classes.csv``, where a task has classes, and ``dataset.yaml``, which says how the label files are read."""
    classes = [
        [name, stored, title, *colour]
        for name, task in tasks.items()
        for stored, title, colour in task.stored_classes()
    ]
    if classes:
        with atomically(out / "classes.csv") as new, new.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["task", "stored", "class", "red", "green", "blue"])
            writer.writerows(classes)
    with atomically(out / "dataset.yaml") as new:
        new.write_text(FORMATS + dump_yaml(dict(values), allow_unicode=True), encoding="utf-8")
