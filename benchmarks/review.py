"""Is it worth reviewing what `tasktokens review` puts first? Corrections simulated from hidden truth, then trained on.

    python benchmarks/review.py --data nyud --run RUN --out benchmarks/results/review.json --work runs/review-nyud

RUN is a finished run whose data has labels that its `labels.csv` hides (data.labels=one). Its network discovers them
once. Rows with `what: ranking` need no training: a strategy chooses a share of the images, and `true_error` is the mean
error of their discovered labels of a task: the primary metric per label, or 100 minus it where more is better; `void`
is the mean share of their pixels without a label. The figures of `random` are those of all images.

Rows with `what: training`: the discovered labels of the chosen images are replaced by the truth and marked as
corrected; a second stage of a few hundred steps, from the network of RUN, learns from given, corrected and discovered
labels. Strategies: `none`, `random`, `ours` (the default of `tasktokens review`), each criterion alone, and `all`.
`delta_mtl` is against `none` of the same seed, in percent, on the test images. Rows that are in the file are not made
again, and finished runs not trained again. `what: format` are rows of review_formats.py.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tasktokens
from tasktokens.config import Config
from tasktokens.datasets.folder import open_folder
from tasktokens.datasets.index import DatasetIndex
from tasktokens.datasets.open import open_index
from tasktokens.datasets.provenance import read_provenance, update_provenance
from tasktokens.inference.evaluate import run_config
from tasktokens.metrics import delta_mtl
from tasktokens.reporting.provenance import describe
from tasktokens.review.criteria import CRITERIA, Measured, measure
from tasktokens.review.ranking import DEFAULT, ranking
from tasktokens.training.trainer import train
from tasktokens.utils.atomic import write_atomically

STRATEGIES = ("none", "random", "ours", *CRITERIA, "all")
ROWS = "rows"
"""Key of the rows of the rows in the results; those of other scripts stay."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="name of the data in the rows, such as rooms")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where folders and runs lie, to go on from")
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=STRATEGIES)
    args = parser.parse_args()
    config = run_config(args.run)
    truth = open_index(config)
    filled = args.work / "filled"
    if not (filled / "dataset.yaml").is_file():
        tasktokens.discover(args.run, filled, quiet=True, views=2)
    measured = measure(open_folder(filled))
    errors = true_errors(filled, truth)
    for strategy in ("random", "ours", *CRITERIA):
        key = {"what": "ranking", "data": args.data, "strategy": strategy, "share": args.share}
        if not is_known(args.out, key):
            ids = {each.id for each in measured} if strategy == "random" else choose(measured, strategy, args.share, 0)
            for task, means in mean_errors(errors, set(ids)).items():
                add_row(args.out, key | {"task": task} | means, args.seeds)
    for seed in args.seeds:
        # `none` is what the others of its seed are compared with.
        for strategy in ("none", *(name for name in args.strategies if name != "none")):
            key = {"what": "training", "data": args.data, "strategy": strategy, "share": args.share}
            key |= {"seed": seed, "steps": args.steps}
            if is_known(args.out, key):
                continue
            chosen = choose(measured, strategy, args.share, seed)
            run = second_stage(args, config, corrected(filled, truth, chosen, args.work), strategy, seed)
            add_row(args.out, key | {"corrected_images": len(chosen)} | results(run, args, seed), args.seeds)


def choose(measured: Sequence[Measured], strategy: str, share: float, seed: int) -> list[str]:
    """The ids of the images that a strategy has corrected."""
    ids = list(dict.fromkeys(each.id for each in measured))
    count = max(1, round(share * len(ids)))
    if strategy in ("none", "all"):
        return [] if strategy == "none" else ids
    if strategy == "random":
        return [ids[number] for number in np.random.default_rng(seed).permutation(len(ids))[:count]]
    ranked = ranking(measured, DEFAULT if strategy == "ours" else (strategy,))
    return [image.id for image in ranked[:count]]


def true_errors(filled: Path, truth: DatasetIndex) -> dict[tuple[str, str], tuple[float, float]]:
    """For each discovered label, by id and task, its error on the pixels that it has, and the share of the others."""
    index, found = open_folder(filled), {}
    for name, labels in index.discovered.items():
        for id, discovered in labels.items():
            if (file := truth.labels[name].get(id)) is None:
                continue
            (value, valid), (true_value, known) = discovered.label.read(), file.read()
            metric = index.tasks[name].metric()
            pixels = torch.from_numpy(valid & known)
            if pixels.any():
                metric.update(torch.from_numpy(value)[None], torch.from_numpy(true_value)[None], pixels[None, None])
                primary = metric.compute()[metric.primary]
                error = 100 - primary if metric.primary_is_higher else primary
                found[id, name] = (error, 1 - float(valid.mean()))
    return found


def mean_errors(errors: Mapping[tuple[str, str], tuple[float, float]], ids: set[str]) -> dict[str, dict[str, Any]]:
    """Means over the labels of some images, by task."""
    of_task: dict[str, list[tuple[float, float]]] = {}
    for (id, task), values in errors.items():
        if id in ids:
            of_task.setdefault(task, []).append(values)
    return {
        task: {
            "labels": len(each),
            "true_error": round(float(np.mean([error for error, _ in each])), 4),
            "void": round(float(np.mean([void for _, void in each])), 4),
        }
        for task, each in of_task.items()
    }


def corrected(filled: Path, truth: DatasetIndex, ids: Sequence[str], work: Path) -> Path:
    """A copy of the completed folder in which the discovered labels of some images are the truth."""
    folder = work / "corrected"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(filled, folder, copy_function=os.link)
    index, rows = open_folder(folder), []
    for row in read_provenance(folder).values():
        if row.source == "discovered" and row.id in set(ids):
            file = truth.labels[row.task].get(row.id)
            if file is not None:
                value, valid = file.read()
                index.discovered[row.task][row.id].label.path.unlink()  # a link to the file of all strategies
                index.tasks[row.task].write(index.discovered[row.task][row.id].label.path, value, valid)
                rows.append(row.decided("corrected", round(float(valid.mean()), 4)))
    update_provenance(folder, rows)
    return folder


def second_stage(args: argparse.Namespace, config: Config, folder: Path, strategy: str, seed: int) -> Path:
    """The run of a strategy; a finished one is there already."""
    run: Path = args.work / f"{strategy}-{args.share:g}-{seed}-{args.steps}"
    if list(run.glob("evaluation-*.json")):
        return run
    method = config.method.model_dump(mode="json")
    if "stage2_steps" in method:
        method |= {"stage1_steps": 0, "stage2_steps": args.steps, "student": "teacher", "deliver": "student"}
    else:
        method["steps"] = args.steps
    values = config.model_dump(mode="json") | {"method": method, "seed": seed}
    shared = {key: values["data"][key] for key in ("size", "augmentation", "evaluation")}
    values["data"] = {"kind": "folder", "root": str(folder), "labels": "full", "check": False, **shared}
    values["run"] |= {"dir": str(run), "validate_every": None, "evaluate": "test", "track": values["run"]["track"]}
    values["tasks"] = {name: {} for name in values["tasks"] or open_folder(folder).tasks}
    train(tasktokens.load_config(values_file(args.work, values)), False, run.exists(), args.run, True)
    return run


def values_file(work: Path, values: Mapping[str, Any]) -> Path:
    """Settings as a file; JSON is YAML."""
    return write_atomically(work / "settings.yaml", json.dumps(values).encode())


def results(run: Path, args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Primary metrics by task, the mean IoU of the first task with classes, and the change from `none`."""
    found, reference = primaries(run), primaries(args.work / f"none-{args.share:g}-{seed}-{args.steps}")
    tasks = open_folder(args.work / "filled").tasks
    higher = {name: tasks[name].metric().primary_is_higher for name in found}
    classes = next((name for name in found if tasks[name].metric().primary == "mIoU"), None)
    return {
        "mIoU": None if classes is None else round(found[classes], 3),
        "delta_mtl": round(delta_mtl(found, reference, higher), 3),
        "metrics": {name: round(value, 4) for name, value in found.items()},
    }


def primaries(run: Path) -> dict[str, float]:
    values = json.loads(next(run.glob("evaluation-*.json")).read_text())
    tasks = open_folder(run.parent / "filled").tasks
    return {name: values[name][tasks[name].metric().primary] for name in tasks if name in values}


def is_known(path: Path, key: Mapping[str, Any]) -> bool:
    return any(key.items() <= row.items() for row in known_rows(path))


def known_rows(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text()).get(ROWS, []) if path.is_file() else []


def add_row(path: Path, row: dict[str, Any], seeds: Sequence[int]) -> None:
    """Write the results with one row more, in one piece; what other scripts wrote into the file stays."""
    before = json.loads(path.read_text()) if path.is_file() else {}
    head = describe("one thread", list(seeds), measured=["src", "benchmarks/review.py"])
    write_atomically(path, (json.dumps(before | head | {ROWS: [*known_rows(path), row]}, indent=1) + "\n").encode())
    print(row, flush=True)


if __name__ == "__main__":
    main()
