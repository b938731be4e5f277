"""A tiny copy of PASCAL-Context in the exact layout of ATRC, written with numpy, Pillow, scipy and json.

    python tests/fakes/pascal_context.py OUT

Every picture has grass above a floor. In those with an even number a person stands on the left, with four parts; a dog,
which has parts of its own, is on the right of each.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

Array = NDArray[Any]

GRASS, FLOOR, PERSON, DOG = 187, 158, 284, 113
"""Of the 459 classes; grass is none that NYU Depth knows."""
PARTS = {"hair": (2, 4), "neck": (4, 6), "ruarm": (6, 8), "lfoot": (12, 14)}
"""Rows of the person's parts."""
PERSON_COLUMNS, DOG_COLUMNS = slice(3, 9), slice(14, 20)


def label_map(height: int, width: int, person: bool) -> Array:
    """The 459 classes (height, width) uint16."""
    classes = np.full((height, width), GRASS, np.uint16)
    classes[height // 2 :] = FLOOR
    classes[5:12, DOG_COLUMNS] = DOG
    if person:
        classes[2:14, PERSON_COLUMNS] = PERSON
    return classes


def semseg(height: int, width: int, person: bool) -> Array:
    """The 21 classes (height, width) uint8 with a void row at the top."""
    classes = label_map(height, width, person)
    found = np.where(classes == PERSON, 15, np.where(classes == DOG, 12, 0)).astype(np.uint8)
    found[0] = 255
    return found


def anno(height: int, width: int, person: bool, annotated: bool = True) -> dict[str, Any]:
    """The structure of PASCAL-Part; people that are not ``annotated`` have no parts."""
    mask = np.zeros((2, height, width), np.uint8)
    mask[0, 5:12, DOG_COLUMNS], mask[1, 2:14, PERSON_COLUMNS] = 1, 1
    parts = []
    for name, (top, bottom) in PARTS.items():
        part = np.zeros((height, width), np.uint8)
        part[top:bottom, PERSON_COLUMNS] = 1
        parts.append((name, part))
    objects = [("dog", 12.0, mask[0], _struct(["part_name", "mask"], [("head", mask[0]), ("tail", mask[0])]))]
    if person:
        own = _struct(["part_name", "mask"], parts) if annotated else np.zeros((0, 0))
        objects.append(("person", 15.0, mask[1], own))
    return {"imname": "fake", "objects": _struct(["class", "class_ind", "mask", "parts"], objects)}


def _struct(fields: list[str], rows: list[tuple[Any, ...]]) -> Array:
    array = np.empty((1, len(rows)), dtype=[(field, object) for field in fields])
    for i, row in enumerate(rows):
        array[0, i] = row
    return array


def normals(height: int, width: int) -> Array:
    """(height, width, 3) uint8 as stored: x left, y up, z towards the camera; the floor faces up, the rest forward."""
    vectors = np.tile(np.array([0.6, 0.0, 0.8]), (height, width, 1))
    vectors[height // 2 :] = [0.0, 1.0, 0.0]
    return np.rint((vectors + 1) * 127.5).astype(np.uint8)


def write(
    root: Path, ids: tuple[tuple[str, ...], tuple[str, ...]] | None = None, size: tuple[int, int] = (20, 24)
) -> Path:
    """All files for the ids of train and val; with size (height, width)."""
    train, val = ids or (tuple(f"2008_{i:06}" for i in range(10)), ("2010_000000", "2010_000001"))
    for split, names in {"train": train, "val": val}.items():
        for folder, text in {
            "Context": "".join(f"{name}\n" for name in names),
            "Parts": json.dumps({name: [12, 15] if i % 2 == 0 else [12] for i, name in enumerate(names)}),
        }.items():
            (root / "ImageSets" / folder).mkdir(parents=True, exist_ok=True)
            (root / "ImageSets" / folder / f"{split}.txt").write_text(text)
        for i, name in enumerate(names):
            _write_picture(root, name, i, *size)
    return root


def _write_picture(root: Path, name: str, number: int, height: int, width: int) -> None:
    person = number % 2 == 0
    rng = np.random.default_rng(list(name.encode()))
    # VOC has its own classes for a part of the pictures; the others have those made from the LabelMap.
    source = "VOC12" if number % 3 == 0 else "pascal-context"
    classes = Image.fromarray(semseg(height, width, person))
    if source == "VOC12":
        classes.putpalette([value for i in range(256) for value in (i, 255 - i, i // 2)])
    saliency = np.full((height, width), 127, np.uint8)
    saliency[5:12, DOG_COLUMNS] = 128
    pictures = {
        f"JPEGImages/{name}.jpg": Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)),
        f"semseg/{source}/{name}.png": classes,
        f"sal_distill/{name}.png": Image.fromarray(saliency),
        f"normals_distill/{name}.png": Image.fromarray(normals(height, width)),
    }
    matrices = {
        f"human_parts/{name}.mat": {"anno": anno(height, width, person)},
        f"pascal-context/trainval/{name}.mat": {"LabelMap": label_map(height, width, person)},
    }
    for path, picture in pictures.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        picture.save(root / path)
    for path, values in matrices.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        savemat(root / path, values, do_compression=True)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
