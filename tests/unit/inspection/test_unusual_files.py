"""Kinds of files that a new user may have: scores of classes, lists of names in other forms, lossy distances."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_variants_init import box, inferred, write

from tasktokens.inspection.infer import infer_folder

ROWS = np.mgrid[:32, :48][0]


def ids(i: int) -> np.ndarray:
    """Walls above floors, and a box."""
    found = (ROWS > 14).astype(np.uint8)
    found[box(i)] = 2
    return found


# -- scores ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8", "int64"])
@pytest.mark.parametrize("folder", ["semseg", "normals", "logits"])
def test_three_scores_per_pixel_are_no_vectors(folder: str, dtype: str, tmp_path: Path) -> None:
    def scores(i: int) -> np.ndarray:
        exact = np.eye(3)[ids(i)]
        return (exact * 0.9 + 0.1 / 3 if dtype.startswith("float") else exact).astype(dtype)

    root = write(tmp_path, folder, scores)
    assert "argmax" in infer_folder(root).left_out[folder]


def test_vectors_and_pure_colours_are_no_scores(tmp_path: Path) -> None:
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    spec = inferred(write(tmp_path / "a", "semseg", lambda i: Image.fromarray(colours[ids(i)])))
    assert sorted(spec["colours"].values()) == sorted(colours.tolist())
    axes = np.array([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]], np.float32)
    assert inferred(write(tmp_path / "b", "normals", lambda i: axes[ids(i)]))["kind"] == "normals"


# -- names of classes --------------------------------------------------------------------------------------------------
FORMS = [
    "{} {}",
    "{}: {}",
    "{}:{}",
    "{}, {}",
    "{}\t{}",
    "{}. {}",
    "{}) {}",
    "{} = {}",
    "{};{}",
    '{}: "{}"',
    "{}, '{}',",
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("file", ["classes.txt", "labels.txt", "obj.names"])
def test_names_with_numbers_belong_to_these_ids(file: str, first: int, form: str, tmp_path: Path) -> None:
    names = ["wall", "potted plant", "2 door car"]
    root = write(tmp_path, "semseg", lambda i: Image.fromarray(ids(i) + np.uint8(first)))
    (root / file).write_text("".join(form.format(id, name) + "\n" for id, name in enumerate(names, first)))
    spec = inferred(root)
    assert spec["classes"] == ["class_0"] * first + names


def test_numbers_with_gaps_are_those_of_the_files(tmp_path: Path) -> None:
    stored = np.array([7, 26, 133], np.uint8)
    root = write(tmp_path, "semseg", lambda i: Image.fromarray(stored[ids(i)]))
    (root / "classes.txt").write_text("# id name\n7: road\n26: car\n100: train\n133: bicycle\n255: ignore\n")
    (task,) = infer_folder(root).tasks
    assert task.spec["classes"] == ["road", "car", "bicycle"]
    assert task.spec["ids"] == {7: 0, 26: 1, 133: 2}
    assert "names from classes.txt by its numbers" in task.saw


@pytest.mark.parametrize(("lines", "names"), [
    (["3", "wall", "floor", "box"], ["wall", "floor", "box"]),
    (["# classes of ours", "wall", "", "floor", "box"], ["wall", "floor", "box"]),
    (["wall", "floor", "2 door car"], ["wall", "floor", "2 door car"]),
    (["4 door car", "2 door car", "3 wheeler"], ["4 door car", "2 door car", "3 wheeler"]),
    (["7", "8", "9"], ["7", "8", "9"]),
])  # fmt: skip
def test_a_count_and_comments_are_no_names(lines: list[str], names: list[str], tmp_path: Path) -> None:
    root = write(tmp_path, "semseg", lambda i: Image.fromarray(ids(i)))
    (root / "classes.txt").write_text("\n".join(lines))
    assert inferred(root)["classes"] == names


# -- others ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("folder", ["depth", "heat"])
def test_lossy_numbers_of_8_bits_say_so(folder: str, tmp_path: Path) -> None:
    root = write(tmp_path, folder, lambda i: np.zeros((1, 1)))
    for i in range(6):
        (root / folder / f"{i:03}.npy").unlink()
        plane = (60 + 5 * ROWS + i).astype(np.uint8)
        Image.fromarray(plane).save(root / folder / f"{i:03}.jpg", quality=95)
    (task,) = infer_folder(root).tasks
    assert "JPEG compression has changed the values" in task.saw


def test_arrays_that_are_not_read_are_named(tmp_path: Path) -> None:
    root = write(tmp_path, "depth", lambda i: np.zeros((1, 1)))
    for i in range(6):
        (root / "depth" / f"{i:03}.npy").unlink()
        metres: Any = (6 - 0.1 * ROWS).astype(np.float32)
        np.savez(root / "depth" / f"{i:03}.npz", depth=metres, mask=box(i), score=metres)
    (task,) = infer_folder(root).tasks
    assert task.spec["kind"] == "depth"
    assert "of the arrays in a file 'depth' is read, not mask, score" in task.saw


@pytest.mark.parametrize("folder", ["normals", "surface_normals_nx", "normal"])
def test_one_channel_of_normals_is_no_class_and_no_number(folder: str, tmp_path: Path) -> None:
    root = write(tmp_path, folder, lambda i: Image.fromarray(ids(i).astype(np.uint16) * 9000 + 20000))
    assert "join x, y and z" in infer_folder(root).left_out[folder]


def test_names_that_only_contain_the_word_are_others(tmp_path: Path) -> None:
    assert inferred(write(tmp_path, "abnormalities", lambda i: Image.fromarray(ids(i))))["kind"] == "classes"


@pytest.mark.parametrize("dtype", ["int8", "int16", "float32"])
def test_masks_of_minus_one_and_one_are_refused_with_the_way_out(dtype: str, tmp_path: Path) -> None:
    root = write(tmp_path, "mask", lambda i: np.where(box(i), 1, -1).astype(dtype))
    assert "save them as 0 and 1" in infer_folder(root).left_out["mask"]
