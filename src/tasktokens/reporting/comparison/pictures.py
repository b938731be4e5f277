"""The same test images by each method, as pictures of a page."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from tasktokens.data.dataset import load_sample
from tasktokens.datasets.open import all_visible
from tasktokens.inference.predictor import Predictor
from tasktokens.reporting.comparison.measure import data_of, tasks_of
from tasktokens.reporting.comparison.runs import Cell, Run, Work
from tasktokens.utils.pictures import hidden, png

IMAGES = 3
"""Test images that are shown."""

LARGEST = 192
"""Pixels of a picture's width at most."""


@dataclass(frozen=True)
class PictureRow:
    """A task of an image.

    Attributes:
        id: of the image. task: its name. pictures: for each column a data address.
    """

    id: str
    task: str
    pictures: list[str]


@dataclass(frozen=True)
class PictureTable:
    """Pictures of the same images.

    Attributes:
        columns: ``image``, ``label``, then methods. rows: a task of an image each.
    """

    columns: list[str]
    rows: list[PictureRow]


def picture_table(work: Work) -> PictureTable | None:
    """Some test images, their labels and what each method's first seed predicts; None where no method is done."""
    suite = work.suite
    runs = {method: found for method in suite.methods if (found := _runs(work, method))}
    if not runs:
        return None
    every = [run for found in runs.values() for run in found.values()]
    source = next((run for run in every if run.task is None), every[0])
    opened = data_of(source, source.config(), suite.split)
    ids = opened.holdout if suite.split == "holdout" else opened.collection.split(suite.split)
    chosen = tuple(ids[:: max(1, len(ids) // IMAGES)][:IMAGES])
    visible = all_visible(opened.collection, chosen, opened.tasks)
    predictors = {run.folder: Predictor(run.folder) for run in every}
    rows = []
    for id in chosen:
        sample = load_sample(opened.collection, id, visible[id])
        image = sample.image.permute(1, 2, 0).numpy()
        predicted = {folder: predictor(image) for folder, predictor in predictors.items()}
        for name, task in opened.tasks.items():
            label = sample.labels.get(name)
            given = (
                hidden(image.shape) if label is None else task.colourise(label.value.numpy(), label.valid[0].numpy())
            )
            shown = [task.colourise(predicted[found[name].folder][name].value_CHW) for found in runs.values()]
            rows.append(PictureRow(id, name, [_address(pixels) for pixels in (image, given, *shown)]))
    return PictureTable(["image", "label", *runs], rows)


def _runs(work: Work, method: str) -> dict[str, Run]:
    """The run that predicts each task of the first data set, labels and seed; nothing unless all are done."""
    suite = work.suite
    data, labels = next(iter(suite.data)), next(each for each in suite.labels if suite.seeds_of(each))
    cell = Cell(method, data, labels, suite.seeds_of(labels)[0])
    alone = bool(suite.method(method).each_task)
    found = {name: Run(work, cell, name if alone else None) for name in tasks_of(work, data)}
    return found if all(run.done for run in found.values()) else {}


def _address(pixels_HW3: np.ndarray[Any, Any]) -> str:
    """A picture as a data address, at most `LARGEST` pixels wide by leaving pixels out, so that class colours keep."""
    step = max(1, -(-pixels_HW3.shape[1] // LARGEST))
    picture = Image.fromarray(np.ascontiguousarray(pixels_HW3[::step, ::step]))
    return "data:image/png;base64," + base64.b64encode(png(picture)).decode("ascii")
