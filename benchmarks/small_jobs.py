"""Folders of small real jobs, as a newcomer has them, for benchmarks/suites/small_jobs.yaml.

    python benchmarks/small_jobs.py --nyud NYUD --camvid CAMVID --bsds BSDS500 --ccp CCP --out small_jobs
    tasktokens compare benchmarks/suites/small_jobs.yaml model.weights=FILE

NYUD is what ``tasktokens prepare --data nyud`` wrote; CAMVID and BSDS500 hold ``{train,val or test}/image`` and the
labels beside it, CCP ``image`` and ``semseg``; FILE is what ``imagenet_weights.py`` wrote. Each job becomes a manifest
of the files that are there (no image is copied); the labels that it lacks are not in its folder. With ``--held-out`` a
third of the training images takes the place of the test images: settings are chosen on these.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from disjoint_data import CAMVID_CLASSES

Found = tuple[dict[str, list[dict[str, str]]], dict[str, Any]]
"""Per split the files of each image by task, and what each task is."""

JOBS: dict[str, dict[str, dict[str, Any]]] = {
    "nyud-66": {"nyud": {"train": 66, "test": 150, "labels": "one"}},
    "nyud-200": {"nyud": {"train": 200, "test": 150, "labels": "random"}},
    "nyud-400": {"nyud": {"train": 400, "test": 150, "labels": "one"}},
    "camvid-100": {"camvid": {"train": 100, "test": 101, "labels": "half"}},
    "bsds-100": {"bsds": {"train": 100, "test": 100, "labels": "half"}},
    "ccp-200": {"ccp": {"train": 200, "test": 100, "labels": "half"}},
    "camvid-bsds": {"camvid": {"train": 120, "test": 101}, "bsds": {"train": 120, "test": 100}},
    "nyud-ccp": {"nyud": {"train": 150, "test": 150, "labels": "one"}, "ccp": {"train": 150, "test": 100}},
}
"""Images of each source. Labels: one per image; random: some, never none; half: of every second image."""


def main() -> None:
    """Write a folder for each job below --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in (*SOURCES, "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--held-out", action="store_true")
    args = parser.parse_args()
    for name, parts in JOBS.items():
        sources = {source: (getattr(args, source), part) for source, part in parts.items()}
        write_job(args.out / name, sources, args.held_out)


def held_out(found: Mapping[str, list[dict[str, str]]]) -> dict[str, list[dict[str, str]]]:
    """A third of the training images as test images."""
    train = found["train"]
    order = np.random.default_rng(77).permutation(len(train))
    first = len(train) // 3
    return {"train": [train[i] for i in order[first:]], "test": [train[i] for i in order[:first]]}


def write_job(root: Path, parts: Mapping[str, tuple[Path, Mapping[str, Any]]], tuning: bool = False) -> None:
    """A folder with ``dataset.yaml`` and a manifest of the images and of the labels that the job has."""
    tasks: dict[str, Any] = {}
    rows: list[dict[str, str]] = []
    for source, (path, part) in parts.items():
        found, specs = SOURCES[source](path)
        found = held_out(found) if tuning else found
        tasks |= specs
        rng = np.random.default_rng(len(rows))
        for split in ("train", "test"):
            chosen = rng.permutation(len(found[split]))[: part[split]]
            for number, i in enumerate(sorted(chosen)):
                files = found[split][i]
                seen = files if split == "test" else kept(files, part.get("labels"), number, rng)
                rows.append({**seen, "image": files["image"], "split": split})
    root.mkdir(parents=True, exist_ok=True)
    with (root / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["image", *tasks, "split"], restval="")
        writer.writeheader()
        writer.writerows(rows)
    description = {"name": root.name, "manifest": "labels.csv", "tasks": tasks}
    (root / "dataset.yaml").write_text(yaml.safe_dump(description, sort_keys=False), encoding="utf-8")


def kept(files: Mapping[str, str], rule: str | None, number: int, rng: np.random.Generator) -> dict[str, str]:
    """The labels of an image that the job has."""
    labels = [name for name in files if name != "image"]
    if rule == "one":
        labels = [labels[number % len(labels)]]
    elif rule == "random":
        some = [name for name in labels if rng.random() < 0.5]
        labels = some or [labels[int(rng.integers(len(labels)))]]
    elif rule == "half":
        labels = labels if number % 2 == 0 else []
    return {name: files[name] for name in labels}


def open_nyud(root: Path) -> Found:
    """Images with semseg, depth and normals."""
    spec = yaml.safe_load((root / "dataset.yaml").read_text(encoding="utf-8"))
    tasks = {name: spec["tasks"][name] for name in ("semseg", "depth", "normals")}
    images = {path.stem: path for path in (root / "images").iterdir()}
    labels = {name: {path.stem: path for path in (root / name).iterdir()} for name in tasks}
    return {
        split: [
            {"image": str(images[id].resolve()), **{name: str(files[id].resolve()) for name, files in labels.items()}}
            for id in (root / spec["splits"][split]).read_text().split()
        ]
        for split in ("train", "test")
    }, tasks


def open_pairs(root: Path, task: str, splits: Mapping[str, str], spec: dict[str, Any]) -> Found:
    """Images with one label each, in folders of splits."""
    found = {}
    for split, folder in splits.items():
        images = sorted((root / folder / "image").iterdir())
        stored = "edge" if task == "edge" else "semseg"
        found[split] = [
            {"image": str(path.resolve()), task: str((root / folder / stored / f"{path.stem}.png").resolve())}
            for path in images
        ]
    return found, {task: spec}


def open_ccp(root: Path) -> Found:
    """Clothing of 300 photographs, of which the last 100 are for testing."""
    names = json.loads((root / "classes.json").read_text())
    found, tasks = open_pairs(root, "clothes", {"all": "."}, {"kind": "classes", "classes": names})
    return {"train": found["all"][:200], "test": found["all"][200:]}, tasks


SOURCES = {
    "nyud": open_nyud,
    "camvid": lambda root: open_pairs(
        root, "semseg", {"train": "train", "test": "val"},
        {"kind": "classes", "classes": list(CAMVID_CLASSES), "void": [11]},
    ),
    "bsds": lambda root: open_pairs(root, "edge", {"train": "train", "test": "test"}, {"kind": "edge"}),
    "ccp": open_ccp,
}  # fmt: skip


if __name__ == "__main__":
    main()
