"""Layouts that ``tasktokens init`` understands: names that differ per folder, tables, exports of annotation tools."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tasktokens.datasets.folder import open_folder
from tasktokens.errors import DataError
from tasktokens.inspection.check import check
from tasktokens.inspection.infer import infer_folder
from tasktokens.inspection.init import init
from tasktokens.inspection.pairing import pair

HEIGHT, WIDTH = 24, 32


def photograph(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def mask(path: Path, seed: int, colours: np.ndarray | None = None) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[10:] = 1
    ids[seed : seed + 6, seed : seed + 9] = 2
    Image.fromarray(ids if colours is None else colours[ids]).save(path)
    return ids


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("{:04}_rgb", "{:04}_mask"), ("{:04}", "{:04}_mask"), ("{:04}_rgb", "{:04}"), ("img_{:04}", "mask_{:04}"),
        ("IMG_{:04}", "IMG_{:04}_seg"), ("a/{:04}-rgb", "a/{:04}-seg"), ("frame{}", "frame{}_gt"), ("{}", "{}.seg"),
        ("{:04}rgb", "{:04}mask"), ("b_{:02}_leftImg8bit", "b_{:02}_gtFine_labelIds"),
    ],
)  # fmt: skip
def test_names_that_differ_per_folder_are_paired_in_a_manifest(
    image: str, label: str, tmp_path: Path, make_config: Callable[..., Any]
) -> None:
    truth = {}
    for i in range(12):
        photograph(tmp_path / "images" / f"{image.format(i)}.png", i)
        if i % 3:
            truth[image.format(i)] = mask(tmp_path / "semseg" / f"{label.format(i)}.png", i)
        if i % 2:
            depth = (1000 + 100 * np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) // 8).astype(np.uint16)
            (tmp_path / "depth").mkdir(exist_ok=True)
            (tmp_path / "depth" / f"{image.format(i)}.png").parent.mkdir(exist_ok=True)
            Image.fromarray(depth).save(tmp_path / "depth" / f"{image.format(i)}.png")
    (tmp_path / "train.txt").write_text("".join(f"{image.format(i)}\n" for i in range(9)))
    (tmp_path / "test.txt").write_text("".join(f"{image.format(i)}\n" for i in range(9, 12)))
    guess = init(tmp_path)
    assert {task.name: task.files for task in guess.tasks} == {"depth": 6, "semseg": 8}
    description = yaml.safe_load((tmp_path / "dataset.yaml").read_text())
    assert description["manifest"] == "manifest.csv"
    assert "images" not in description
    index = open_folder(tmp_path)
    assert {split: len(ids) for split, ids in index.splits.items()} == {"train": 9, "test": 3}
    for id, file in index.labels["semseg"].items():
        np.testing.assert_array_equal(file.read()[0][0], truth[id.removeprefix("images/")])
    assert len(index.labels["semseg"]) == 8
    report = check(make_config(tmp_path, tmp_path / "run"))
    assert [finding for finding in report.findings if finding.severity == "error"] == []
    with pytest.raises(DataError, match="kept; give --force"):
        init(tmp_path)
    init(tmp_path, force=True)
    with (tmp_path / "manifest.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 12


def test_a_manifest_of_the_user_is_kept(tmp_path: Path) -> None:
    for i in range(4):
        photograph(tmp_path / "images" / f"{i}_rgb.png", i)
        mask(tmp_path / "semseg" / f"{i}_mask.png", i)
    (tmp_path / "manifest.csv").write_text("mine\n")
    with pytest.raises(DataError, match=r"manifest\.csv exists and is kept; give --force"):
        init(tmp_path)
    assert (tmp_path / "manifest.csv").read_text() == "mine\n"
    assert not (tmp_path / "dataset.yaml").exists()


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (["1", "2", "11"], ["task-1-annotation-2", "task-2-annotation-11", "task-11-annotation-1"]),
        (["a", "b", "c"], ["x1", "x2", "x3"]),
        (["1", "2", "3"], ["12", "23", "31"]),
        (["cat", "dog"], ["category", "dogma"]),
    ],
)
def test_names_that_fit_two_images_or_none_are_not_paired(images: list[str], labels: list[str]) -> None:
    assert pair({id: Path(id) for id in images}, {id: Path(id) for id in labels}) == []


def test_several_ends_in_one_folder_are_several_tasks(tmp_path: Path) -> None:
    for i in range(4):
        photograph(tmp_path / "leftImg8bit" / f"b_{i:02}_leftImg8bit.png", i)
        mask(tmp_path / "gtFine" / f"b_{i:02}_gtFine_labelIds.png", i)
        mask(
            tmp_path / "gtFine" / f"b_{i:02}_gtFine_color.png",
            i,
            np.array([[0, 0, 0], [0, 90, 9], [7, 7, 99]], np.uint8),
        )
        mask(tmp_path / "gtFine" / f"b_{i:02}_gtFine_instanceIds.png", i)
    guess = init(tmp_path)
    assert sorted(task.name for task in guess.tasks) == ["gtFine_gtFine_color", "gtFine_gtFine_labelIds"]
    assert any("instanceIds" in what and "ids of things" in reason for what, reason in guess.left_out.items())
    assert all(len(labels) == 4 for labels in open_folder(tmp_path).labels.values())


def test_files_without_a_partner_are_named_with_the_way_out(tmp_path: Path) -> None:
    for i in range(4):
        photograph(tmp_path / "images" / f"{i:03}.png", i)
        mask(tmp_path / "brush" / f"task-{i + 1}-annotation-{i + 9}-by-1-tag-box-0.png", i)
    with pytest.raises(
        DataError, match=r"'task-1-annotation-9.*images are called '000'.*CSV with the columns image,brush"
    ):
        init(tmp_path)


# -- tables ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize("split", [True, False])
def test_a_folder_that_holds_only_a_table(ending: str, split: bool, tmp_path: Path) -> None:
    rows = []
    for i in range(6):
        photograph(tmp_path / "elsewhere" / f"{i}.png", i)
        mask(tmp_path / "more" / f"m{i}.png", i)
        row = {"image": f"../elsewhere/{i}.png", "semseg": f"../more/m{i}.png" if i % 2 else "", "note": "x"}
        rows.append(
            {key: str((tmp_path / "own" / value).resolve()) if "/" in value else value for key, value in row.items()}
        )
        rows[-1] |= {"split": "train" if i < 4 else "test"} if split else {}
    own = tmp_path / "own"
    own.mkdir()
    if ending == ".csv":
        with (own / "files.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        import pyarrow

        parquet.write_table(pyarrow.Table.from_pylist(rows), own / "files.parquet")
    guess = init(own)
    assert [(task.name, task.spec["kind"], task.files) for task in guess.tasks] == [("semseg", "classes", 3)]
    assert yaml.safe_load((own / "dataset.yaml").read_text())["manifest"] == f"files{ending}"
    index = open_folder(own)
    assert len(index.images) == 6
    assert {name: len(ids) for name, ids in index.splits.items()} == (
        {"train": 4, "test": 2} if split else {"train": 6}
    )


def test_a_column_that_no_task_can_be_called_is_left_out(tmp_path: Path) -> None:
    for i in range(3):
        photograph(tmp_path / f"{i}.png", i)
        mask(tmp_path / f"m{i}.png", i)
    lines = [f"{i}.png,m{i}.png,m{i}.png" for i in range(3)]
    (tmp_path / "t.csv").write_text("\n".join(["image,semseg,1st mask", *lines]) + "\n")
    guess = init(tmp_path)
    assert [task.name for task in guess.tasks] == ["semseg"]
    assert "call the column task_1st_mask" in guess.left_out["1st mask"]


# -- exports of annotation tools ---------------------------------------------------------------------------------------
CVAT = {"floor": (48, 112, 32), "background": (0, 0, 0), "left-arm": (176, 112, 32), "right-arm": (9, 9, 9)}


def cvat(root: Path, write: Callable[[Path, int], Any]) -> None:
    for i in range(6):
        photograph(root / "JPEGImages" / f"{i:03}.jpg", i)
        write(root / "SegmentationClass" / f"{i:03}.png", i)
        mask(root / "SegmentationObject" / f"{i:03}.png", i, np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], np.uint8))
    lines = [f"{name}:{','.join(map(str, colour))}::" for name, colour in CVAT.items()]
    (root / "labelmap.txt").write_text("\n".join(["# label:color_rgb:parts:actions", *lines]) + "\n")
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/Train.txt").write_text("000\n001\n002\n003\n")
    (root / "ImageSets/Segmentation/val.txt").write_text("004\n005\n")


def test_names_colours_and_lists_of_a_cvat_export_are_used(tmp_path: Path) -> None:
    colours = np.array([CVAT["background"], CVAT["floor"], CVAT["left-arm"]], np.uint8)
    cvat(tmp_path, lambda path, i: mask(path, i, colours))
    guess = init(tmp_path)
    assert [task.name for task in guess.tasks] == ["SegmentationClass"]
    assert guess.tasks[0].spec["colours"] == {name: list(colour) for name, colour in CVAT.items()}
    assert "a mirror swaps left-arm and right-arm" in guess.tasks[0].saw
    assert "ids of things" in guess.left_out["SegmentationObject"]
    assert "ImageSets" not in guess.left_out
    index = open_folder(tmp_path)
    assert {split: len(ids) for split, ids in index.splits.items()} == {"train": 4, "val": 2}
    value, valid = index.labels["SegmentationClass"]["003"].read()
    names = np.array(index.tasks["SegmentationClass"].class_names())[value[0]]
    truth = mask(tmp_path / "truth.png", 3)
    np.testing.assert_array_equal(names, np.array(["background", "floor", "left-arm"])[truth])
    assert valid.all()


def test_colours_that_the_colour_map_lacks_are_no_classes(tmp_path: Path) -> None:
    colours = np.array([CVAT["background"], CVAT["floor"], (1, 2, 3)], np.uint8)
    cvat(tmp_path, lambda path, i: mask(path, i, colours))
    with pytest.raises(DataError, match=r"1 of its 3 colours are not in labelmap\.txt, such as \[1, 2, 3\]"):
        init(tmp_path)


def test_a_list_of_names_is_used_where_it_fits(tmp_path: Path) -> None:
    for i in range(4):
        photograph(tmp_path / "images" / f"{i}.png", i)
        mask(tmp_path / "semseg" / f"{i}.png", i)
    (tmp_path / "classes.txt").write_text("wall\nfloor\nbox\n")
    assert init(tmp_path).tasks[0].spec["classes"] == ["wall", "floor", "box"]
    (tmp_path / "classes.txt").write_text("floor\nbox\n")
    guess = init(tmp_path, force=True)
    assert guess.tasks[0].spec["classes"] == ["class_0", "class_1", "class_2"]
    assert "classes.txt has 2 names for ids up to 2: not used" in guess.tasks[0].saw


def test_endings_that_are_passed_over_are_counted(tmp_path: Path) -> None:
    for i in range(4):
        photograph(tmp_path / "images" / f"{i}.png", i)
        mask(tmp_path / "semseg" / f"{i}.png", i)
        (tmp_path / "depth").mkdir(exist_ok=True)
        (tmp_path / "depth" / f"{i}.exr").write_bytes(b"v/1\1")
    (tmp_path / "images" / "x.xcf").write_bytes(b"x")
    (tmp_path / "images" / ".hidden.xcf").write_bytes(b"x")
    left_out = infer_folder(tmp_path).left_out
    assert "4 of '.exr'; convert them to one of .png" in left_out["depth: other files"]
    assert "1 of '.xcf'" in left_out["images: other files"]
