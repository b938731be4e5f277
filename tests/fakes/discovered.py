"""A folder as ``discover`` writes it, made by NumPy and Pillow alone: given and discovered labels of two tasks."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]

CLASSES = ["floor", "wall", "chair"]
HEIGHT, WIDTH = 24, 36
COLUMNS = ["id", "task", "source", "by", "model", "views", "confidence", "coverage", "disagreement", "date"]


def blobs(rng: np.random.Generator, height: int, width: int, classes: int) -> Array:
    """A class map (H, W) uint8 of rectangles, some within others, so that there are holes; 255 void in a corner."""
    found = np.zeros((height, width), np.uint8)
    for of in range(classes + 2):
        top, left = rng.integers(0, height - 4), rng.integers(0, width - 4)
        found[top : top + rng.integers(3, height), left : left + rng.integers(3, width)] = of % classes
    found[:3, :4] = 255
    return found


def write_discovered(
    root: Path, count: int = 6, given: int = 2, seed: int = 0, height: int = HEIGHT, width: int = WIDTH
) -> Path:
    """Images ``room/0`` to ``room/{count - 1}``; the first ``given`` have given labels, the others discovered ones.

    The mean confidence falls with the number of the image, so that the last is the most doubtful.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        id = f"room/{number}"
        photo = rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
        depth = rng.integers(800, 9000, (height, width)).astype(np.uint16)
        depth[-2:] = 0
        maps = {"images": photo, "semseg": blobs(rng, height, width, len(CLASSES)), "depth": depth}
        for name, array in maps.items():
            _save(root / name / f"{id}.png", array)
        source = "given" if number < given else "discovered"
        for task in ("semseg", "depth"):
            mean = 0.9 - 0.5 * number / count
            if source == "discovered":
                confidence = np.clip(rng.normal(mean, 0.08, (height, width)), 0, 1)
                _save(root / "confidence" / task / f"{id}.png", np.rint(confidence * 255).astype(np.uint8))
            found = ["network", "ab" * 32, "[[1.0, false]]", f"{mean:.4f}", "0.9000", "", "2026-11-28"]
            rows.append([id, task, source, *([""] * 7 if source == "given" else found)])
    description = {
        "name": "found",
        "splits": {"train": "train.txt"},
        "tasks": {
            "semseg": {"kind": "classes", "classes": CLASSES},
            "depth": {"kind": "depth", "range": [0.5, 10.0], "bins": 8},
        },
    }
    (root / "dataset.yaml").write_text(yaml.safe_dump(description, sort_keys=False))
    (root / "train.txt").write_text("".join(f"room/{number}\n" for number in range(count)))
    with (root / "provenance.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    return root


def write_completed(root: Path) -> Path:
    """The same folder, but in ``room/0`` only chairs were labelled and the upper half of the rest was discovered.

    Its table says so with a confidence of 0.3; the discovered pixels are all of class 1.
    """
    write_discovered(root)
    given = np.zeros((HEIGHT, WIDTH), np.uint8)
    given[4:20, 5:15], given[:3, :4] = 2, 255
    _save(root / "semseg" / "room/0.png", given)
    found = np.full(given.shape, 255, np.uint8)
    upper = np.arange(HEIGHT)[:, None] < HEIGHT // 2
    found[upper & (given != 2) & (given != 255)] = 1
    _save(root / "completed" / "semseg" / "room/0.png", found)
    _save(root / "confidence" / "semseg" / "room/0.png", np.where(found == 1, 200, 0).astype(np.uint8))
    (root / "labelled.csv").write_text("id,task,labelled\nroom/0,semseg,chair\n")
    description = yaml.safe_load((root / "dataset.yaml").read_text())
    (root / "dataset.yaml").write_text(yaml.safe_dump({**description, "labelled": "labelled.csv"}))
    table = (root / "provenance.csv").read_text()
    row = "room/0,semseg,given,"
    completed = f'{row}network,{"ab" * 32},"[[1.0, false]]",0.3000,0.4000,,2026-11-28'
    (root / "provenance.csv").write_text(table.replace(f"{row},,,,,,", completed))
    return root


def sources(root: Path) -> dict[tuple[str, str], str]:
    """What the table says of each label, read without the package."""
    with (root / "provenance.csv").open(newline="") as file:
        return {(row["id"], row["task"]): row["source"] for row in csv.DictReader(file)}


def snapshot(root: Path) -> dict[str, bytes]:
    """Every file below a folder, but for what a review keeps of its own."""
    paths = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths if ".review" not in path.parts}


def stored(root: Path, task: str, id: str) -> Array:
    """A label file's pixels."""
    return np.asarray(Image.open(root / task / f"{id}.png"))


def _save(path: Path, array: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
