"""A label that is masked keeps its other pixels as they are stored: bytes that a task rounds are not rounded again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tasktokens.datasets.folder import open_folder
from tasktokens.errors import LabelError
from tasktokens.review.folder import Key, ReviewFolder
from tasktokens.review.writing import different, write_label

SPECS: dict[str, tuple[dict[str, Any], str]] = {
    "normals": ({"kind": "normals", "centres": 12}, ".png"),
    "depth": ({"kind": "depth", "range": [0.5, 10.0], "bins": 8}, ".png"),
    "far": ({"kind": "depth", "range": [0.5, 10.0], "bins": 8}, ".npy"),
    "edge": ({"kind": "edge"}, ".png"),
    "semseg": ({"kind": "classes", "classes": ["a", "b", "c"]}, ".png"),
}


def stored(name: str, rng: np.random.Generator) -> Any:
    if name == "normals":
        vectors = rng.normal(size=(9, 11, 3)) - [0, 0, 3]
        vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
        return np.rint((vectors + 1) * 127.5).astype(np.uint8)
    return {
        "depth": rng.integers(600, 9000, (9, 11)).astype(np.uint16),
        "far": rng.uniform(1, 9, (9, 11)).astype(np.float32),
        "edge": np.stack([rng.integers(0, 256, (9, 11)), np.full((9, 11), 255)], -1).astype(np.uint8),
        "semseg": rng.integers(0, 3, (9, 11)).astype(np.uint8),
    }[name]


@pytest.fixture
def folder(tmp_path: Path) -> ReviewFolder:
    rng = np.random.default_rng(0)
    for name, (_, ending) in {"images": ({}, ".png"), **SPECS}.items():
        (tmp_path / name).mkdir()
        array = rng.integers(0, 256, (9, 11, 3), dtype=np.uint8) if name == "images" else stored(name, rng)
        path = tmp_path / name / f"x{ending}"
        np.save(path, array) if ending == ".npy" else Image.fromarray(array).save(path)
    tasks = {name: spec for name, (spec, _) in SPECS.items()}
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump({"name": "x", "tasks": tasks}))
    assert set(open_folder(tmp_path).tasks) == set(SPECS)
    return ReviewFolder(tmp_path)


def pixels(path: Path) -> Any:
    return np.load(path) if path.suffix == ".npy" else np.asarray(Image.open(path))


@pytest.mark.parametrize("name", SPECS)
def test_the_others_stay_as_they_are_stored(name: str, folder: ReviewFolder, tmp_path: Path) -> None:
    key = Key("x", name)
    value, valid = folder.read(key)
    kept = valid.copy()
    kept[2:5, 3:8] = False
    written = write_label(folder, key, value, kept, tmp_path / "new")
    old, new = pixels(folder.labels[key].path), pixels(written)
    outside = np.ones((9, 11), bool)
    outside[2:5, 3:8] = False
    assert (old[outside] == new[outside]).all()
    again, again_valid = folder.tasks[name].read(written)
    assert (again_valid == (valid & outside)).all()
    assert not different(value, kept, again, again_valid).any()


def test_classes_that_cannot_be_stored_are_refused(folder: ReviewFolder, tmp_path: Path) -> None:
    value, valid = folder.read(Key("x", "semseg"))
    wrong = value.copy()
    wrong[0, 0, 0] = 7
    with pytest.raises((LabelError, IndexError)):
        write_label(folder, Key("x", "semseg"), wrong, valid, tmp_path / "new")
