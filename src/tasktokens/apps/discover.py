"""``tasktokens discover``: fill in the missing labels of the training images, with a confidence.

What is written is a data folder in the own-folder layout, ready to be trained on with ``data.labels=full``: images and
given labels are copied byte for byte, discovered labels stand beside them, void where they are not sure enough.
"""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import yaml
from rich.progress import track

from tasktokens.apps.inference import Predictor
from tasktokens.apps.predict import refuse_full
from tasktokens.data.collection import ImageFile, LabelFile, read_image
from tasktokens.data.partial import load_split
from tasktokens.data.source import Data, open_data
from tasktokens.engine.evaluate import run_config
from tasktokens.tasks import Task
from tasktokens.tasks.files import write_png


def discover(
    run: Path, out: Path, threshold: float | None = None, overwrite: bool = False, quiet: bool = False
) -> Path:
    """Write the training images with given and discovered labels.

    Args:
        run: a finished run of any method.
        out: new folder. Besides the data set it holds ``confidence/{task}/{id}.png`` (0..255 for 0..1) and
            ``discovered.csv``: id, task, share of sure pixels and mean confidence of each discovered label.
        threshold: confidence in [0, 1] below which a pixel is void; default: each task's own.
        overwrite: delete what lies in ``out`` first.

    Raises:
        CheckpointError: the run is not finished. RunExistsError: ``out`` is not empty.
    """
    config = run_config(run)
    predictor = Predictor(run)
    data = open_data(config)
    tasks = data.tasks
    visible = load_split(run / "labels.csv", list(data.train), {name: data.collection.labels[name] for name in tasks})
    refuse_full(out, overwrite, clear=True)
    rows = []
    for id, given in track(visible.items(), description="discovering", disable=quiet):
        image = data.collection.images[id]
        _copy_image(image, out / "images", id)
        for name in given:
            _copy_label(data.collection.labels[name][id], tasks[name], out / name, id)
        missing = [name for name in tasks if name not in given]
        predictions = predictor(image.read()) if missing else {}
        for name in missing:
            prediction = predictions[name]
            sure = prediction.confidence > (tasks[name].threshold if threshold is None else threshold)
            tasks[name].write(out / name / f"{id}.png", prediction.value, sure)
            write_png(out / "confidence" / name / f"{id}.png", np.rint(prediction.confidence * 255).astype(np.uint8))
            rows.append([id, name, round(float(sure.mean()), 4), round(float(prediction.confidence.mean()), 4)])
    _describe(out, data, rows)
    return out


def _copy_image(image: ImageFile, folder: Path, id: str) -> None:
    """Byte for byte where the file is an image; PNG where it is an array or part of a larger file."""
    if image.reader is read_image:
        _copy(image.path, folder, id)
    else:
        write_png(folder / f"{id}.png", image.read())


def _copy_label(label: LabelFile, task: Task, folder: Path, id: str) -> None:
    """Byte for byte where the file has the own-folder layout; else in the task's own format."""
    if label.plain:
        _copy(label.path, folder, id)
    else:
        task.write(folder / f"{id}.png", *label.read())


def _copy(source: Path, folder: Path, id: str) -> None:
    target = folder / f"{id}{source.suffix}"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _describe(out: Path, data: Data, rows: list[list[object]]) -> None:
    """The lists and ``dataset.yaml``, last: they mark the folder as whole."""
    with (out / "discovered.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "task", "sure", "confidence"])
        writer.writerows(rows)
    (out / "train.txt").write_text("".join(f"{id}\n" for id in data.train), encoding="utf-8")
    description = {
        "name": f"{data.collection.root.name}-discovered",
        "splits": {"train": "train.txt"},
        "tasks": {name: task.spec() for name, task in data.tasks.items()},
    }
    (out / "dataset.yaml").write_text(yaml.safe_dump(description, sort_keys=False), encoding="utf-8")
