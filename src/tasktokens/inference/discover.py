"""``tasktokens discover``: fill in the missing labels of the training images, with a confidence.

What is written is a data folder in the own-folder layout, ready to be trained on with ``data.labels=full``: images and
given labels are copied byte for byte, discovered labels stand beside them, void where they are not sure enough.
``discovering.jsonl`` lies in it until it is whole and holds what is done, so that an interrupted discovery goes on.
Several ranks share the images; ranks after the first note what they did in a ``discovering.RANK.jsonl`` of their own.
"""

from __future__ import annotations

import contextlib
import csv
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.progress import track

from tasktokens.data.visibility import load_visible
from tasktokens.datasets.index import ImageFile, LabelFile, read_image
from tasktokens.datasets.open import Data
from tasktokens.datasets.prepared import sha256
from tasktokens.datasets.run_data import open_run_data
from tasktokens.errors import RunExistsError
from tasktokens.inference.evaluate import run_config, run_folder
from tasktokens.inference.predict import require_empty
from tasktokens.inference.predictor import Predictor
from tasktokens.models.files import model_folder
from tasktokens.tasks import Task
from tasktokens.tasks.files import write_png
from tasktokens.tasks.same import require_same_tasks
from tasktokens.utils import strict_json
from tasktokens.utils.atomic import atomically
from tasktokens.utils.distributed import main_process_first, raise_on_all_ranks, signals, start, stopping
from tasktokens.utils.safe_io import load_json

JOURNAL = "discovering.jsonl"

_Row = list[Any]


def discover(
    run: Path,
    out: Path,
    threshold: float | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    views: int = 2,
    root: Path | None = None,
) -> Path:
    """Write the training images with given and discovered labels.

    Args:
        run: a finished run of any method, or a model folder in it, such as ``best``.
        out: new folder, or one in which the same discovery was interrupted: it goes on. Besides
            the data set it holds ``confidence/{task}/{id}.png`` (0..255 for 0..1) and
            ``discovered.csv``: id, task, share of sure pixels and mean confidence of each discovered label.
        threshold: confidence in [0, 1] below which a pixel is void; default: each task's own.
        overwrite: delete what lies in ``out`` first.
        views: how the network looks at an image (`Predictor`): 1 as it is, 2 also mirrored and enlarged.
        root: where the run's data lies now; default: where it lay.

    Raises:
        CheckpointError: the run is not finished. OtherRankError: another rank has failed.
        RunExistsError: ``out`` is not empty, or another discovery was begun there.
        SystemExit: 130 or 143 after SIGINT or SIGTERM; the same call goes on.
    """
    config = run_config(run, root)
    accelerator = start(config.run)
    rank, main = accelerator.process_index, accelerator.is_main_process
    data = main_process_first(accelerator, lambda: open_run_data(run_folder(run), config))
    with raise_on_all_ranks(accelerator):
        predictor = Predictor(run, accelerator.device, views)
        require_same_tasks(predictor.tasks, data.tasks, run, data.collection.root, config.data.augmentation.widest)
        available = {name: data.collection.labels[name] for name in data.tasks}
        visible = load_visible(run_folder(run) / "labels.csv", list(data.train), available)
        model = sha256(model_folder(run) / "model.safetensors")
        settings = {"model": model, "threshold": threshold, "views": views, "images": len(visible)}
        if main:
            _begin(out, settings, overwrite)
    done = _done(out)
    own = [id for id in visible if id not in done][rank :: accelerator.num_processes]
    accelerator.wait_for_everyone()  # all have read the journal before anyone writes to it
    with signals(accelerator.num_processes) as stop, _journal(out, rank).open("a", encoding="utf-8") as journal:
        for id in track(own, description="discovering", disable=quiet or not main):
            if stop.received:
                break
            rows = _fill(predictor, id, data, visible[id], threshold, out)
            journal.write(strict_json.dumps([id, rows]) + "\n")
            journal.flush()
        stopped = stopping(stop, accelerator)
        done = _done(out) if main else {}
        if main and len(done) == len(visible):
            _describe(out, data, [row for id in visible for row in done[id]])
            for path in _journals(out):
                path.unlink()
        if stopped:
            going_on = "" if len(done) == len(visible) else "; the same command goes on"
            stop.leave(f"{len(done)} of {len(visible)} images are done{going_on}", say=main)
    accelerator.wait_for_everyone()
    return out


def _fill(
    predictor: Predictor, id: str, data: Data, given: Sequence[str], threshold: float | None, out: Path
) -> list[_Row]:
    """Copy an image and its given labels, discover the others; returns rows of ``discovered.csv``."""
    image = data.collection.images[id]
    _copy_image(image, out / "images", id)
    for name in given:
        _copy_label(data.collection.labels[name][id], data.tasks[name], out / name, id)
    missing = [name for name in data.tasks if name not in given]
    return _discover_image(predictor, id, image, missing, threshold, data.tasks, out)


def _discover_image(
    predictor: Predictor,
    id: str,
    image: ImageFile,
    missing: Sequence[str],
    threshold: float | None,
    tasks: Mapping[str, Task],
    out: Path,
) -> list[_Row]:
    """Write what was discovered in an image; returns its rows of ``discovered.csv``."""
    predictions = predictor(image.read()) if missing else {}
    rows: list[_Row] = []
    for name in missing:
        prediction = predictions[name]
        sure = prediction.confidence > (tasks[name].threshold if threshold is None else threshold)
        tasks[name].write(out / name / f"{id}.png", prediction.value, sure)
        write_png(out / "confidence" / name / f"{id}.png", np.rint(prediction.confidence * 255).astype(np.uint8))
        rows.append([id, name, round(float(sure.mean()), 4), round(float(prediction.confidence.mean()), 4)])
    return rows


def _journal(out: Path, rank: int) -> Path:
    return out / (JOURNAL if rank == 0 else f"discovering.{rank}.jsonl")


def _journals(out: Path) -> list[Path]:
    return sorted(out.glob("discovering*.jsonl"))


def _done(out: Path) -> dict[str, list[_Row]]:
    """The rows of the images that are done, by any rank."""
    return {item[0]: item[1] for path in _journals(out) for item in _items(path) if isinstance(item, list)}


def _items(path: Path) -> list[Any]:
    """The lines of a journal: the settings, where it is the first rank's, then an image each."""
    items = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):  # half a line, from a kill
            items.append(load_json(line))
    return items


def _begin(out: Path, settings: Mapping[str, Any], overwrite: bool) -> None:
    """Make the folder, or go on in it: what all ranks did before is then in the first rank's journal."""
    path = out / JOURNAL
    if overwrite or not path.is_file():
        require_empty(out, overwrite, clear=True)
        with atomically(path) as new:
            new.write_text(strict_json.dumps(settings) + "\n", encoding="utf-8")
    if _items(path)[:1] != [settings]:
        raise RunExistsError(
            f"another discovery was begun in {out} and did not end (another run, threshold, number of views or data); "
            f"choose another folder, or give --overwrite"
        )
    # Written anew, or the next line would be joined to a half one.
    lines = [settings, *_done(out).items()]
    with atomically(path) as new:
        new.write_text("".join(f"{strict_json.dumps(line)}\n" for line in lines), encoding="utf-8")
    for other in _journals(out):
        if other != path:
            other.unlink()


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


def _describe(out: Path, data: Data, rows: list[_Row]) -> None:
    """The lists and ``dataset.yaml``, last: they mark the folder as whole."""
    with atomically(out / "discovered.csv") as new, new.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "task", "sure", "confidence"])
        writer.writerows(rows)
    with atomically(out / "train.txt") as new:
        new.write_text("".join(f"{id}\n" for id in data.train), encoding="utf-8")
    description = {
        "name": f"{data.collection.root.name}-discovered",
        "splits": {"train": "train.txt"},
        "tasks": {name: task.spec() for name, task in data.tasks.items()},
    }
    with atomically(out / "dataset.yaml") as new:
        new.write_text(yaml.safe_dump(description, sort_keys=False), encoding="utf-8")
