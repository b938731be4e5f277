"""Why a correction of a discovered label may be worth more than another: one number per label and criterion.

Two are read off the table of provenance alone; ``rare`` reads the labels, ``unlike`` the images. How tasks contradict
each other is not among them: what an edge or a normal says of a class holds for some pairs of tasks only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from tasktokens.data.transforms import resize_image
from tasktokens.datasets.index import DatasetIndex
from tasktokens.tasks.base import Array
from tasktokens.utils.progress import track

CRITERIA = ("uncertain", "disagreement", "rare", "unlike")
"""``uncertain``: one minus the mean confidence. ``disagreement``: the share of the image on which views of it are
predicted differently. ``rare``: how rare the rarest class in the label is. ``unlike``: how far the image is from the
nearest one that has a label of the task, by colour and texture."""

SIDE, CELLS = 32, 4
"""Images are described at 32x32 pixels, by 4x4 cells."""
PRESENT = 0.005
"""Share of a label's pixels from which on a class counts as seen in it."""


class Measured(NamedTuple):
    """What the criteria say of one label.

    Attributes:
        id: of the image.
        task: its name.
        values: by criterion, larger for more; None where it says nothing.
        facts: words by criterion.
    """

    id: str
    task: str
    values: Mapping[str, float | None]
    facts: Mapping[str, str]


def measure(index: DatasetIndex, criteria: Sequence[str] = CRITERIA, quiet: bool = True) -> list[Measured]:
    """The criteria for every discovered label of a data set, in the order of its images.

    Raises `DataError` or `LabelError` for a file that cannot be read.
    """
    keys = [(id, task) for id in index.images for task in index.tasks if id in index.discovered.get(task, {})]
    rare = _rarity(index, keys, quiet) if "rare" in criteria else {}
    unlike = _distances(index, keys, quiet) if "unlike" in criteria else {}
    measured = []
    for id, task in keys:
        row = index.provenance[task][id]
        values: dict[str, float | None] = {}
        facts: dict[str, str] = {}
        if "uncertain" in criteria and row.confidence is not None:
            values["uncertain"] = 1 - row.confidence
            below = "" if row.coverage is None else f", {1 - row.coverage:.0%} of the pixels below the threshold"
            facts["uncertain"] = f"mean confidence {row.confidence:.2f}{below}"
        if "disagreement" in criteria and row.disagreement is not None:
            values["disagreement"] = row.disagreement
            facts["disagreement"] = f"views of the image differ on {row.disagreement:.0%}"
        if (found := rare.get((id, task))) is not None:
            values["rare"], name = found
            if found[0] > np.log(2):  # what is in most labels is not called rare
                facts["rare"] = f"rare class {name}"
        if (id, task) in unlike:
            values["unlike"], facts["unlike"] = unlike[id, task], "unlike the labelled images"
        measured.append(Measured(id, task, {name: values.get(name) for name in criteria}, facts))
    return measured


def _rarity(
    index: DatasetIndex, keys: Sequence[tuple[str, str]], quiet: bool
) -> dict[tuple[str, str], tuple[float, str]]:
    """For each label of a task with classes its rarest class and minus the log of that class's share of labels."""
    seen: dict[tuple[str, str], list[str]] = {}
    for id, task in track(keys, "reading discovered labels", not quiet):
        pixels = _pixels(index, id, task)
        least = PRESENT * sum(pixels.values())
        if classes := [name for name, count in pixels.items() if count > least]:
            seen[id, task] = classes
    found = {}
    for task in index.tasks:
        own = {key: classes for key, classes in seen.items() if key[1] == task}
        shares = {name: sum(name in each for each in own.values()) / len(own) for each in own.values() for name in each}
        for key, classes in own.items():
            rarest = min(classes, key=lambda name: shares[name])
            found[key] = (-float(np.log(shares[rarest])), f"'{rarest}'")
    return found


def _pixels(index: DatasetIndex, id: str, task: str) -> Mapping[str, int]:
    """Pixels of a discovered label by class; empty for a task without classes, whose file is not read."""
    if index.tasks[task].class_names() is None:
        return {}
    value, valid = index.discovered[task][id].label.read()
    return index.tasks[task].seen(index.tasks[task].examine(value, valid))


def _distances(index: DatasetIndex, keys: Sequence[tuple[str, str]], quiet: bool) -> dict[tuple[str, str], float]:
    """For each label the distance of its image from the nearest one of the training images that has a label."""
    ids = index.splits.get("train", tuple(index.images))
    described = {id: describe(index.images[id].read()) for id in track(ids, "reading images", not quiet)}
    spread = np.std(list(described.values()), axis=0) + 1e-6
    found = {}
    for task in index.tasks:
        labelled = np.array([described[id] / spread for id in ids if id in index.labels[task]])
        for id, name in keys:
            if name == task and id in described and len(labelled):
                found[id, name] = float(np.linalg.norm(labelled - described[id] / spread, axis=1).min())
    return found


def describe(image_HW3: Array) -> Array:
    """An image by mean colour and contrast of 4x4 cells, (64,) float64.

    Examples:
        >>> describe(np.zeros((48, 64, 3), np.uint8)).shape
        (64,)
    """
    image = torch.from_numpy(np.require(image_HW3, requirements=["C", "W"])).permute(2, 0, 1)
    small = resize_image(image, (SIDE, SIDE)).double().numpy()
    cells = small.reshape(3, CELLS, SIDE // CELLS, CELLS, SIDE // CELLS)
    grey = cells.mean(axis=0)
    return np.concatenate([cells.mean(axis=(2, 4)).ravel(), grey.std(axis=(1, 3)).ravel()])
