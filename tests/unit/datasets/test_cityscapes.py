"""Cityscapes in its two layouts, against the files read independently; mistakes in them; one genuine sample."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fakes.cityscapes import BASELINE, FX, write_mtan, write_official
from tasktokens.config import parse_config
from tasktokens.data.dataset import load_sample
from tasktokens.datasets.cityscapes import CATEGORIES, CLASSES_19, open_cityscapes
from tasktokens.datasets.index import DatasetIndex
from tasktokens.datasets.open import open_data
from tasktokens.errors import ConfigError, DataError, LabelError

# From the benchmark's own description: label ids by category, those that the evaluation ignores left out.
CATEGORY_IDS: Mapping[str, tuple[int, ...]] = {
    "flat": (7, 8), "construction": (11, 12, 13), "object": (17, 19, 20), "nature": (21, 22), "sky": (23,),
    "human": (24, 25), "vehicle": (26, 27, 28, 31, 32, 33),
}  # fmt: skip
TRAIN_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


@pytest.fixture(scope="module")
def mtan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mtan(tmp_path_factory.mktemp("cityscapes") / "mtan")


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_official(tmp_path_factory.mktemp("cityscapes") / "official")


def expected_classes(ids: np.ndarray, classes: int) -> np.ndarray:
    """Class of each label id, -1 for void, one id at a time."""
    found = np.full(ids.shape, -1)
    for id in range(34):
        if classes == 19 and id in TRAIN_IDS:
            found[ids == id] = TRAIN_IDS.index(id)
        if classes == 7:
            for number, members in enumerate(CATEGORY_IDS.values()):
                if id in members:
                    found[ids == id] = number
    return found


def assert_classes(value: np.ndarray, valid: np.ndarray, expected: np.ndarray) -> None:
    assert value.dtype == np.uint8
    assert value.shape == (1, *expected.shape)
    assert np.array_equal(valid, expected >= 0)
    assert np.array_equal(value[0][valid], expected[valid])


# -- MTAN --------------------------------------------------------------------------------------------------------------
def test_mtan_splits_are_in_the_order_of_the_numbers(mtan: Path) -> None:
    collection = open_cityscapes(mtan)
    assert collection.split("train") == tuple(f"train/{i}" for i in range(12))
    assert collection.split("val") == collection.split("test") == ("val/0", "val/1")
    assert set(collection.images) == {*collection.split("train"), *collection.split("val")}


@pytest.mark.parametrize("classes", [7, 19])
def test_mtan_values_are_those_of_the_files(mtan: Path, classes: int) -> None:
    collection = open_cityscapes(mtan, classes)
    for id in collection.images:
        split, number = id.split("/")
        stored = {name: np.load(mtan / split / name / f"{number}.npy") for name in ("image", "depth")}
        ids = np.load(mtan / split / f"label_{classes}" / f"{number}.npy")
        assert np.array_equal(collection.images[id].read(), np.rint(stored["image"] * 255).astype(np.uint8))
        assert_classes(*collection.labels["semseg"][id].read(), ids)
        value, valid = collection.labels["depth"][id].read()
        assert np.array_equal(valid, stored["depth"][..., 0] > 0)
        np.testing.assert_allclose(value[0][valid], stored["depth"][..., 0][valid], rtol=1e-6)


def test_mtan_has_no_metres(mtan: Path) -> None:
    with pytest.raises(ConfigError, match=r"inverse depth.*data\.depth=inverse"):
        open_cityscapes(mtan, depth="metres")


def test_mtan_without_the_asked_labels_names_those_there_are(tmp_path: Path) -> None:
    root = write_mtan(tmp_path, train=2)
    for split in ("train", "val"):
        (root / split / "label_19").rename(tmp_path / f"{split}_elsewhere")
    with pytest.raises(ConfigError, match=r"no folder label_19; found label_2, label_7"):
        open_cityscapes(root, classes=19)


def test_mtan_labels_without_a_file_are_absent(tmp_path: Path) -> None:
    root = write_mtan(tmp_path, train=3)
    (root / "train" / "depth" / "1.npy").unlink()
    (root / "train" / "label_7" / "0.npy").unlink()
    (root / "train" / "image" / "2.npy").unlink()  # its labels belong to nothing
    collection = open_cityscapes(root)
    assert collection.split("train") == ("train/0", "train/1")
    assert set(collection.labels["semseg"]) == {"train/1", "val/0", "val/1"}
    assert set(collection.labels["depth"]) == {"train/0", "val/0", "val/1"}


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (np.full((16, 32), 7), r"holds 7; expected class ids 0 to 6"),
        (np.full((16, 32), -2), r"holds -2"),
        (np.full((16, 32), 0.5), r"holds 0\.5"),
        (np.full((16, 32), np.nan), r"holds nan"),
        (np.zeros((16, 32, 3)), r"shape \(16, 32, 3\)"),
        (np.zeros((16, 32), bool), r"found bool"),
    ],
)
def test_mtan_wrong_labels_name_the_file(tmp_path: Path, stored: np.ndarray, message: str) -> None:
    root = write_mtan(tmp_path, train=1, val=1)
    np.save(root / "train" / "label_7" / "0.npy", stored)
    with pytest.raises(LabelError, match=r"0\.npy.*" + message):
        open_cityscapes(root).labels["semseg"]["train/0"].read()


def test_mtan_broken_files_name_themselves(tmp_path: Path) -> None:
    root = write_mtan(tmp_path, train=1, val=1)
    collection = open_cityscapes(root)
    for name in ("image", "label_7", "depth"):
        (root / "train" / name / "0.npy").write_bytes(b"not an array")
    for read in (collection.images["train/0"].read, *(collection.labels[t]["train/0"].read for t in collection.tasks)):
        with pytest.raises(DataError, match=r"0\.npy"):
            read()


def test_mtan_other_file_names_are_refused(tmp_path: Path) -> None:
    root = write_mtan(tmp_path, train=1, val=1)
    (root / "train" / "image" / "0.npy").rename(root / "train" / "image" / "first.npy")
    with pytest.raises(DataError, match=r"found first\.npy"):
        open_cityscapes(root)


# -- official ----------------------------------------------------------------------------------------------------------
def test_official_splits_are_sorted_and_without_the_test_images(official: Path) -> None:
    collection = open_cityscapes(official)
    assert collection.split("train") == tuple(
        f"train/{city}/{city}_00000{i}_000019" for city in ("aachen", "bochum") for i in (0, 1)
    )
    assert collection.split("val") == collection.split("test")
    assert not any("berlin" in id for id in collection.images)


@pytest.mark.parametrize(("classes", "names"), [(7, CATEGORIES), (19, CLASSES_19)])
def test_official_classes_are_those_of_the_label_ids(official: Path, classes: int, names: tuple[str, ...]) -> None:
    collection = open_cityscapes(official, classes)
    assert collection.tasks["semseg"].class_names() == names
    assert len(names) == classes
    for id, file in collection.labels["semseg"].items():
        with Image.open(official / "gtFine" / f"{id}_gtFine_labelIds.png") as image:
            assert_classes(*file.read(), expected_classes(np.asarray(image), classes))


def test_every_label_id_has_its_class(tmp_path: Path) -> None:
    root = write_official(tmp_path, each=1)
    ids = np.arange(34, dtype=np.uint8).reshape(2, 17)
    name = "train/aachen/aachen_000000_000019"
    Image.fromarray(ids).save(root / "gtFine" / f"{name}_gtFine_labelIds.png")
    for classes in (7, 19):
        assert_classes(*open_cityscapes(root, classes).labels["semseg"][name].read(), expected_classes(ids, classes))


def test_official_inverse_depth_is_the_stored_number_over_65535(official: Path) -> None:
    for id, file in open_cityscapes(official).labels["depth"].items():
        with Image.open(official / "disparity" / f"{id}_disparity.png") as image:
            stored = np.asarray(image).astype(np.float64)
        value, valid = file.read()
        assert np.array_equal(valid, stored > 0)
        np.testing.assert_allclose(value[0][valid], stored[valid] / 65535, rtol=1e-6)


def test_official_metres_are_baseline_times_focal_length_over_disparity(official: Path) -> None:
    collection = open_cityscapes(official, depth="metres")
    for id, file in collection.labels["depth"].items():
        with Image.open(official / "disparity" / f"{id}_disparity.png") as image:
            stored = np.asarray(image).astype(np.float64)
        value, valid = file.read()
        assert np.array_equal(valid, stored > 1), "0 is invalid, 1 is infinitely far"
        np.testing.assert_allclose(value[0][valid], BASELINE * FX / ((stored[valid] - 1) / 256), rtol=1e-5)
        assert np.isfinite(value).all()
    assert not collection.tasks["depth"].spec().get("inverse")


def test_official_labels_are_absent_where_files_are_missing(tmp_path: Path) -> None:
    root = write_official(tmp_path, each=2)
    first, second = (f"train/aachen/aachen_00000{i}_000019" for i in (0, 1))
    (root / "gtFine" / f"{first}_gtFine_labelIds.png").unlink()
    (root / "camera" / f"{first}_camera.json").unlink()
    (root / "disparity" / f"{second}_disparity.png").unlink()
    inverse, metres = open_cityscapes(root), open_cityscapes(root, depth="metres")
    assert {first, second} <= set(inverse.images)
    assert first not in inverse.labels["semseg"]
    assert second in inverse.labels["semseg"]
    assert first in inverse.labels["depth"]
    assert first not in metres.labels["depth"]
    assert second not in inverse.labels["depth"]
    assert second not in metres.labels["depth"]


def test_hidden_files_are_no_images(tmp_path: Path) -> None:
    for root, folder, name in (
        (write_official(tmp_path / "a", each=1), "leftImg8bit/train/aachen", "._aachen_000000_000019_leftImg8bit.png"),
        (write_mtan(tmp_path / "b", train=1), "train/image", "._0.npy"),
    ):
        images = set(open_cityscapes(root).images)
        (root / folder / name).write_bytes(b"left by another system")
        assert set(open_cityscapes(root).images) == images


def test_without_validation_images_there_is_no_such_split(tmp_path: Path) -> None:
    root = write_official(tmp_path, each=1)
    (root / "leftImg8bit" / "val").rename(tmp_path / "elsewhere")
    collection = open_cityscapes(root)
    assert list(collection.splits) == ["train"]
    with pytest.raises(DataError, match=r"no split 'test'.*train"):
        collection.split("test")


@pytest.mark.parametrize(
    ("kind", "array", "message"),
    [
        ("gtFine", np.full((16, 32), 34, np.uint8), r"holds 34; expected label ids 0 to 33"),
        ("gtFine", np.full((16, 32), 255, np.uint8), r"not train ids"),
        ("gtFine", np.zeros((16, 32, 3), np.uint8), r"8-bit grey PNG"),
        ("disparity", np.full((16, 32), 9, np.uint8), r"16-bit grey PNG"),
        ("disparity", np.zeros((16, 32, 3), np.uint8), r"16-bit grey PNG"),
    ],
)
def test_official_wrong_labels_name_the_file(tmp_path: Path, kind: str, array: np.ndarray, message: str) -> None:
    root = write_official(tmp_path, each=1)
    name = "train/aachen/aachen_000000_000019"
    task, ending = {"gtFine": ("semseg", "gtFine_labelIds"), "disparity": ("depth", "disparity")}[kind]
    Image.fromarray(array).save(root / kind / f"{name}_{ending}.png")
    for depth in ("inverse", "metres"):
        with pytest.raises(LabelError, match=rf"{ending}\.png.*{message}"):
            open_cityscapes(root, depth=depth).labels[task][name].read()


@pytest.mark.parametrize(
    "text", ["{", "[]", json.dumps({"extrinsic": {}, "intrinsic": {"fx": 1}}), "\xff",
             json.dumps({"extrinsic": {"baseline": 0.0}, "intrinsic": {"fx": 2000}}),
             json.dumps({"extrinsic": {"baseline": "wide"}, "intrinsic": {"fx": 2000}})],
)  # fmt: skip
def test_a_broken_camera_file_names_itself(tmp_path: Path, text: str) -> None:
    root = write_official(tmp_path, each=1)
    name = "train/aachen/aachen_000000_000019"
    (root / "camera" / f"{name}_camera.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(LabelError, match=r"_camera\.json"):
        open_cityscapes(root, depth="metres").labels["depth"][name].read()


def test_truncated_pictures_name_themselves(tmp_path: Path) -> None:
    root = write_official(tmp_path, each=1)
    collection = open_cityscapes(root)
    for path in root.rglob("*aachen*.png"):
        path.write_bytes(path.read_bytes()[:60])
    id = "train/aachen/aachen_000000_000019"
    for read in (collection.images[id].read, *(collection.labels[task][id].read for task in collection.tasks)):
        with pytest.raises(DataError, match=r"aachen_000000_000019_\w+\.png"):
            read()


# -- both --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("classes", "depth"), [(8, "inverse"), (7, "meters"), (34, "inverse")])
def test_other_classes_and_depths_are_refused(official: Path, classes: int, depth: str) -> None:
    with pytest.raises(ConfigError, match=r"Cityscapes"):
        open_cityscapes(official, classes, depth)


def test_a_folder_without_a_known_layout_is_told_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    with pytest.raises(DataError, match=r"no known layout of Cityscapes.*MTAN:.*official:.*found pictures"):
        open_cityscapes(tmp_path)
    with pytest.raises(DataError, match=r"nowhere does not exist"):
        open_cityscapes(tmp_path / "nowhere")
    write_mtan(tmp_path / "pictures" / "inside", train=1, val=1)
    with pytest.raises(DataError, match=r"pictures/inside has one: give that folder"):
        open_cityscapes(tmp_path / "pictures")


@pytest.mark.parametrize("folder", ["train/image", "leftImg8bit/train"])
def test_a_layout_without_images_is_refused(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(DataError, match=r"has no "):
        open_cityscapes(tmp_path)


def test_only_the_labels_shown_are_opened(tmp_path: Path) -> None:
    root = write_official(tmp_path, each=1)
    id = "train/aachen/aachen_000000_000019"
    (root / "disparity" / f"{id}_disparity.png").write_bytes(b"hidden")
    sample = load_sample(open_cityscapes(root), id, ("semseg",))
    assert list(sample.labels) == ["semseg"]


def test_what_is_listed_can_be_sent_to_other_processes(mtan: Path, official: Path) -> None:
    for collection in (open_cityscapes(mtan), open_cityscapes(official), open_cityscapes(official, 19, "metres")):
        copy: DatasetIndex = pickle.loads(pickle.dumps(collection))
        for task in copy.tasks:
            id, file = next(iter(copy.labels[task].items()))
            for ours, theirs in zip(file.read(), collection.labels[task][id].read(), strict=True):
                assert np.array_equal(ours, theirs)


def test_plain_label_files_are_what_the_task_reads(mtan: Path, official: Path) -> None:
    for root in (mtan, official):
        collection = open_cityscapes(root)
        for task, files in collection.labels.items():
            for file in files.values():
                if file.plain:
                    (value, valid), (other, same) = file.read(), collection.tasks[task].read(file.path)
                    assert np.array_equal(valid, same)
                    np.testing.assert_allclose(value[:, valid], other[:, valid], rtol=1e-6)
        assert all(file.plain for file in collection.labels["depth"].values())


def test_the_published_split_needs_the_whole_of_the_training_images(tmp_path: Path) -> None:
    image = np.zeros((2, 2, 3))
    (tmp_path / "train" / "image").mkdir(parents=True)
    for i in range(2975):
        np.save(tmp_path / "train" / "image" / f"{i}.npy", image)
    shown = open_cityscapes(tmp_path).published["one"]
    # The first rows of the published list: depth, classes, depth.
    assert [shown[f"train/{i}"] for i in range(3)] == [("depth",), ("semseg",), ("depth",)]
    counts = {task: sum(task in tasks for tasks in shown.values()) for task in ("semseg", "depth")}
    assert counts == {"semseg": 1487, "depth": 1488}
    (tmp_path / "train" / "image" / "2974.npy").rename(tmp_path / "train" / "image" / "2975.npy")
    assert open_cityscapes(tmp_path).published == {}, "positions do not count in a copy with a gap"


@pytest.mark.parametrize(("layout", "depth"), [("mtan", "inverse"), ("official", "inverse"), ("official", "metres")])
def test_a_run_opens_it_with_one_label_an_image(request: pytest.FixtureRequest, layout: str, depth: str) -> None:
    root = request.getfixturevalue(layout)
    data = open_data(parse_config({"data": {"kind": "cityscapes", "root": str(root), "labels": "one", "depth": depth}}))
    assert list(data.tasks) == ["semseg", "depth"]
    assert data.tasks["depth"].spec().get("inverse", False) == (depth == "inverse")
    assert all(len(shown) == 1 for shown in data.train.values())
    for id, (task,) in data.train.items():
        sample = load_sample(data.collection, id, (task,))
        assert sample.labels[task].value.shape[-2:] == sample.image.shape[-2:]


# -- genuine -----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def genuine() -> Path:
    beside_the_repository = Path(__file__).resolve().parents[4] / "shared" / "data"
    root = Path(os.environ.get("TASKTOKENS_SHARED_DATA", beside_the_repository)) / "cityscapes_official"
    if not root.is_dir():
        pytest.skip("genuine samples not found: set TASKTOKENS_SHARED_DATA to the folder with cityscapes_official")
    return root


def test_genuine_files_have_the_labels_that_are_there(genuine: Path) -> None:
    collection = open_cityscapes(genuine)
    aachen = [f"train/aachen/aachen_00000{i}_000019" for i in range(4)]
    cologne = "train/cologne/cologne_000088_000019"
    assert collection.split("train") == (*aachen, cologne)
    assert list(collection.labels["semseg"]) == aachen
    assert list(collection.labels["depth"]) == [aachen[1], cologne]
    assert list(open_cityscapes(genuine, depth="metres").labels["depth"]) == [aachen[1], cologne]


def test_genuine_values_are_plausible_and_read_independently(genuine: Path) -> None:
    id = "train/aachen/aachen_000001_000019"
    with Image.open(genuine / "disparity" / f"{id}_disparity.png") as image:
        stored = np.asarray(image).astype(np.float64)
    with Image.open(genuine / "gtFine" / f"{id}_gtFine_labelIds.png") as image:
        ids = np.asarray(image)
    camera = json.loads((genuine / "camera" / f"{id}_camera.json").read_text())
    inverse, metres = open_cityscapes(genuine), open_cityscapes(genuine, 19, "metres")
    assert_classes(*inverse.labels["semseg"][id].read(), expected_classes(ids, 7))
    assert_classes(*metres.labels["semseg"][id].read(), expected_classes(ids, 19))
    value, valid = inverse.labels["depth"][id].read()
    np.testing.assert_allclose(value[0][valid], stored[stored > 0] / 65535, rtol=1e-6)
    task = inverse.tasks["depth"]
    assert 0.3 < value[0][valid].max() < task.spec()["range"][1]
    far, seen = metres.labels["depth"][id].read()
    product = camera["extrinsic"]["baseline"] * camera["intrinsic"]["fx"]
    np.testing.assert_allclose(far[0][seen], product * 256 / (stored[stored > 1] - 1), rtol=1e-5)
    low, high = metres.tasks["depth"].spec()["range"]
    assert np.mean((far[0][seen] >= low) & (far[0][seen] <= high)) > 0.98
    # The road at the bottom of the picture is a few metres away.
    road = seen & (ids == 7) & (np.arange(1024)[:, None] > 750)
    assert 5 < np.median(far[0][road]) < 15
