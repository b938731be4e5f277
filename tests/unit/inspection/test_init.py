"""``tasktokens init``: what it makes of tiny folders of every kind."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tasktokens.cli import main
from tasktokens.datasets.folder import open_folder
from tasktokens.datasets.open import open_data
from tasktokens.errors import DataError
from tasktokens.inspection.infer import task_name
from tasktokens.inspection.init import init

HEIGHT, WIDTH = 24, 32


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, array)
    else:
        Image.fromarray(np.ascontiguousarray(array)).save(path)


def photographs(root: Path, count: int = 3, folder: str = "images", ending: str = ".png") -> list[str]:
    rng = np.random.default_rng(0)
    ids = [f"p{i}" for i in range(count)]
    for id in ids:
        save(root / folder / f"{id}{ending}", rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    return ids


def blocks(values: list[int], seed: int = 0) -> np.ndarray:
    """Large areas of the values, all of them there."""
    rng = np.random.default_rng(seed)
    small = rng.permutation(np.resize(values, (HEIGHT // 4) * (WIDTH // 4))).reshape(HEIGHT // 4, WIDTH // 4)
    return small.repeat(4, 0).repeat(4, 1)


def smooth(low: float, high: float) -> np.ndarray:
    return np.linspace(low, high, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)


def encode(vectors: np.ndarray) -> np.ndarray:
    unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.rint((unit + 1) * 127.5).astype(np.uint8)


def room(seed: int = 0) -> np.ndarray:
    """Normals in our frame: a wall above, a floor below; some void."""
    vectors = np.random.default_rng(seed).normal(size=(HEIGHT, WIDTH, 3)) * 0.1
    vectors[: HEIGHT // 2] += [0, 0, -1]
    vectors[HEIGHT // 2 :] += [0, -1, -0.2]
    return vectors


def palette_file(path: Path) -> None:
    image = Image.fromarray(blocks([0, 1, 2, 255]).astype(np.uint8), mode="L").convert("P")
    image.putdata(blocks([0, 1, 2, 255]).flatten().tolist())
    image.putpalette(list(range(256)) * 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


TWO_VALUED = blocks([0, 255]).astype(np.uint8)
CLASSES = {"kind": "classes", "classes": ["class_0", "class_1", "class_2"], "void": [255]}
CASES: dict[str, tuple[str, str, np.ndarray, dict[str, Any]]] = {
    "ids": ("semseg", ".png", blocks([0, 1, 2]).astype(np.uint8), CLASSES),
    "ids with void": ("semseg", ".png", blocks([0, 1, 2, 255]).astype(np.uint8), CLASSES),
    "ids of 16 bits": ("semseg", ".png", blocks([0, 2]).astype(np.uint16), CLASSES),
    "ids, -1 void": ("semseg", ".npy", blocks([-1, 0, 2]), CLASSES | {"void": [-1]}),
    "sparse ids": ("semseg", ".tif", blocks([7, 26000]).astype(np.uint16),
                   {"kind": "classes", "classes": ["class_7", "class_26000"], "ids": {7: 0, 26000: 1}, "void": [255]}),
    "colours": ("parts", ".png", np.array([[0, 0, 0], [250, 0, 3]], np.uint8)[blocks([0, 1])],
                {"kind": "classes", "colours": {"class_0": [0, 0, 0], "class_1": [250, 0, 3]}}),
    "mask": ("hair_mask", ".png", TWO_VALUED, {"kind": "binary"}),
    "two values": ("hair", ".png", TWO_VALUED, {"kind": "binary"}),
    "bits": ("hair", ".png", TWO_VALUED > 0, {"kind": "binary"}),
    "zero and one": ("hair_mask", ".png", blocks([0, 1]).astype(np.uint8), {"kind": "binary", "white": 1}),
    "zero, one and void": ("edges", ".png", blocks([0, 1, 255]).astype(np.uint8),
                           {"kind": "edge", "white": 1, "void": [255]}),
    "grey as RGB": ("hair", ".png", np.dstack([TWO_VALUED] * 3), {"kind": "binary"}),
    "JPEG mask": ("hair", ".jpg", TWO_VALUED, {"kind": "binary"}),
    "edge": ("boundaries", ".png", TWO_VALUED, {"kind": "edge"}),
    "soft edge": ("edge", ".png", smooth(0, 255).astype(np.uint8), {"kind": "edge"}),
    "saliency": ("saliency", ".png", TWO_VALUED, {"kind": "saliency"}),
    "soft saliency": ("salient", ".npy", smooth(0, 1), {"kind": "saliency"}),
    "millimetres": ("depth", ".png", smooth(800, 9000).astype(np.uint16),
                    {"kind": "depth", "scale": 0.001, "range": [0.88, 8.92]}),
    "metres": ("Depth", ".npy", smooth(0.8, 9.0), {"kind": "depth", "range": [0.88, 8.92]}),
    "disparity": ("disparity", ".png", smooth(655, 32767).astype(np.uint16),
                  {"kind": "depth", "inverse": True, "range": [0.0148, 0.496]}),
    "float": ("height", ".tif", smooth(-3, 12).astype(np.float32), {"kind": "regression", "range": [-3.0, 12.0]}),
    "16 bits": ("height", ".png", smooth(100, 60000).astype(np.uint16),
                {"kind": "regression", "range": [100.0, 60000.0]}),
    "8 bits": ("height", ".png", np.random.default_rng(0).integers(3, 201, (HEIGHT, WIDTH)).astype(np.uint8),
               {"kind": "regression", "range": [3.0, 200.0]}),
    "normals": ("normals", ".png", encode(room()), {"kind": "normals"}),
    "normals in OpenGL's frame": ("normals", ".npz",
                                  room() / np.linalg.norm(room(), axis=-1, keepdims=True) * [1, -1, -1],
                                  {"kind": "normals", "frame": ["x", "-y", "-z"]}),
    "vectors": ("flow", ".png", encode(np.random.default_rng(1).normal(size=(HEIGHT, WIDTH, 3))), {"kind": "vectors"}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_folder_of_each_kind_is_recognised_and_opens(
    case: str, tmp_path: Path, make_config: Callable[..., Any]
) -> None:
    folder, ending, array, expected = CASES[case]
    for id in photographs(tmp_path)[:2]:
        save(tmp_path / folder / f"{id}{ending}", array)
    guess = init(tmp_path)
    assert [task.name for task in guess.tasks] == [folder]
    spec = guess.tasks[0].spec
    assert {**spec, "range": 0} == {**expected, "range": 0}
    assert spec.get("range", []) == pytest.approx(expected.get("range", []), rel=0.02)
    assert guess.tasks[0].files == 2
    written = yaml.safe_load((tmp_path / "dataset.yaml").read_text())
    assert written["tasks"] == {folder: spec}
    collection = open_folder(tmp_path)
    for label in collection.labels[folder].values():
        _, valid = label.read()
        assert valid.any()
    data = open_data(make_config(tmp_path, tmp_path / "run", **{"data.labels": "full"}))
    assert len(data.train) == 3
    assert sum(names == (folder,) for names in data.train.values()) == 2


def test_palette_files_hold_ids(tmp_path: Path) -> None:
    for id in photographs(tmp_path):
        palette_file(tmp_path / "parts" / f"{id}.png")
    assert init(tmp_path).tasks[0].spec == CLASSES


def test_every_guess_says_what_it_saw(tmp_path: Path) -> None:
    for id in photographs(tmp_path):
        save(tmp_path / "depth" / f"{id}.png", smooth(800, 9000).astype(np.uint16))
    init(tmp_path)
    text = (tmp_path / "dataset.yaml").read_text()
    assert "# 3 of 3 files: uint16, 800 to 9000" in text
    assert "looks like millimetres" in text
    assert "images: images  # 3 images" in text


def test_the_folder_with_the_most_photographs_is_that_of_the_images(tmp_path: Path) -> None:
    for id in photographs(tmp_path, 4, "zz_rgb", ".jpg"):
        save(tmp_path / "a_normals" / f"{id}.png", encode(room()))
        save(tmp_path / "b_coded" / f"{id}.png", np.array([[0, 0, 0], [250, 0, 3]], np.uint8)[blocks([0, 1])])
    guess = init(tmp_path)
    assert guess.images == "zz_rgb"
    assert {task.name: task.spec["kind"] for task in guess.tasks} == {"a_normals": "normals", "b_coded": "classes"}
    assert len(open_folder(tmp_path).images) == 4


def test_folders_that_are_no_labels_are_left_out_with_a_reason(tmp_path: Path) -> None:
    ids = photographs(tmp_path)
    photographs(tmp_path, folder="other_view")
    for id in ids:
        save(tmp_path / "semseg" / f"{id}.png", blocks([0, 1, 2]).astype(np.uint8))
        save(tmp_path / "lossy" / f"{id}.jpg", blocks([0, 40, 80, 120]).astype(np.uint8).repeat(2, 0).repeat(2, 1))
        save(tmp_path / "odd" / f"{id}.npy", np.zeros((HEIGHT, WIDTH, 5)))
        (tmp_path / "broken").mkdir(exist_ok=True)
        (tmp_path / "broken" / f"{id}.png").write_text("none")
        save(tmp_path / "confidence" / "semseg" / f"{id}.png", TWO_VALUED)
    save(tmp_path / "strangers" / "else.png", TWO_VALUED)
    guess = init(tmp_path)
    assert [task.name for task in guess.tasks] == ["semseg"]
    reasons = {"other_view": "more than 64 colours", "lossy": "JPEG", "odd": "neither one nor three", "broken": "read",
               "strangers": "none of its 1 label files"}  # fmt: skip
    assert guess.left_out.keys() == reasons.keys()
    text = (tmp_path / "dataset.yaml").read_text()
    for folder, reason in reasons.items():
        assert reason in guess.left_out[folder]
        assert f"# left out: {folder}: " in text


def test_names_that_no_task_can_have_are_changed_and_keep_their_folder(tmp_path: Path) -> None:
    for id in photographs(tmp_path):
        for folder in ("my-depth", "labels/1parts", "labels/train"):
            save(tmp_path / folder / f"{id}.png", blocks([0, 1, 2]).astype(np.uint8))
    init(tmp_path)
    written = yaml.safe_load((tmp_path / "dataset.yaml").read_text())["tasks"]
    assert {name: spec["folder"] for name, spec in written.items()} == {
        "task_1parts": "labels/1parts", "task_train": "labels/train", "my_depth": "my-depth"
    }  # fmt: skip
    assert all(len(labels) == 3 for labels in open_folder(tmp_path).labels.values())
    assert task_name("a", ["a", "a_2"]) == "a_2_2"


def test_labels_of_another_size_are_to_be_resized(tmp_path: Path) -> None:
    for id in photographs(tmp_path):
        save(tmp_path / "semseg" / f"{id}.png", blocks([0, 1, 2])[::2, ::2].astype(np.uint8))
    guess = init(tmp_path)
    assert guess.tasks[0].spec == CLASSES | {"resize": True}
    assert "3 of them have another size" in guess.tasks[0].saw
    assert open_folder(tmp_path).labels["semseg"]["p0"].read()[1].shape == (HEIGHT, WIDTH)


def test_lists_and_folders_of_splits_are_found(tmp_path: Path) -> None:
    for id in photographs(tmp_path):
        save(tmp_path / "semseg" / f"{id}.png", blocks([0, 1, 2]).astype(np.uint8))
    (tmp_path / "train.txt").write_text("p0\np2\n")
    (tmp_path / "valid.txt").write_text("p1\n")
    (tmp_path / "test.txt").write_text("p9\n")
    guess = init(tmp_path)
    assert guess.splits == {"train": "train.txt", "val": "valid.txt"}
    assert "'p9'" in guess.left_out["test.txt"]
    assert open_folder(tmp_path).splits == {"train": ("p0", "p2"), "val": ("p1",)}


def test_subfolders_named_as_splits_are_the_splits(tmp_path: Path) -> None:
    for part in ("train", "validation"):
        for id in photographs(tmp_path, folder=f"images/{part}"):
            save(tmp_path / "semseg" / part / f"{id}.png", blocks([0, 1, 2]).astype(np.uint8))
    assert init(tmp_path).splits == {"train": "train/", "val": "validation/"}
    assert open_folder(tmp_path).splits["val"] == ("validation/p0", "validation/p1", "validation/p2")


def test_a_description_is_replaced_with_force_only(own_folder: Path) -> None:
    before = (own_folder / "dataset.yaml").read_text()
    with pytest.raises(DataError, match=r"dataset\.yaml exists and is kept; give --force"):
        init(own_folder)
    assert (own_folder / "dataset.yaml").read_text() == before
    init(own_folder, force=True)
    kinds = {name: task.kind for name, task in open_folder(own_folder).tasks.items()}
    assert kinds == {
        "semseg": "classes", "depth": "depth", "normals": "normals", "edge": "edge", "saliency": "saliency"
    }  # fmt: skip


def test_a_folder_without_images_or_labels_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        init(tmp_path / "none")
    with pytest.raises(DataError, match=r"no folder of photographs in .*folders: none"):
        init(tmp_path)
    photographs(tmp_path)
    save(tmp_path / "semseg" / "else.png", TWO_VALUED)
    with pytest.raises(DataError, match=r"3 images in images but no labels.*semseg: none of its 1 label files"):
        init(tmp_path)
    assert not (tmp_path / "dataset.yaml").exists()


def test_the_command_prints_a_table_and_where_it_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for id in photographs(tmp_path):
        save(tmp_path / "semseg" / f"{id}.png", blocks([0, 1, 2]).astype(np.uint8))
    monkeypatch.setattr(sys, "argv", ["tasktokens", "init", str(tmp_path)])
    with pytest.raises(SystemExit) as done:
        main()
    assert not done.value.code
    out = capsys.readouterr().out
    assert "semseg" in out
    assert str(tmp_path / "dataset.yaml") in out
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 2
    assert "--force" in capsys.readouterr().err
