"""The NYU Depth v2 reader: every layout against a fake in the exact layout, and against the genuine files there are."""

from __future__ import annotations

import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.io import loadmat, savemat

from fakes.nyud import THIRTEEN, WALL, draw, published_frame, write_atrc, write_compact, write_mtan, write_official
from tasktokens.config import parse_config
from tasktokens.datasets.nyud.dataset import find_layout, open_nyud
from tasktokens.datasets.nyud.files import CLASSES_13, CLASSES_40, FORTY_TO_THIRTEEN
from tasktokens.datasets.open import open_data
from tasktokens.errors import ConfigError, DataError, LabelError

Array = NDArray[Any]
WRITERS: dict[str, Callable[[Path], Path]] = {
    "MTAN": write_mtan, "ATRC": write_atrc, "official": write_official, "compact": write_compact
}  # fmt: skip


@pytest.fixture(scope="module")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One fake per layout, which no test changes."""
    root = tmp_path_factory.mktemp("nyud")
    return {name: write(root / name) for name, write in WRITERS.items()}


def degrees(ours: Array, other: Array, valid: Array) -> Array:
    """Angle between two maps of unit vectors, (3, H, W) and (H, W, 3), at the valid pixels."""
    cosine = (np.moveaxis(ours, 0, -1) * other).sum(axis=-1)[valid]
    return np.degrees(np.arccos(cosine.clip(-1, 1)))


# -- which layout ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", WRITERS)
def test_layout_is_recognised_and_complete(fakes: dict[str, Path], name: str) -> None:
    assert find_layout(fakes[name]).name == name
    collection = open_nyud(fakes[name])
    assert set(collection.splits) == {"train", "test"}
    assert set(collection.splits["train"]).isdisjoint(collection.splits["test"])
    assert set(collection.tasks) == {"semseg", "depth", "normals"} | ({"edge"} if name == "ATRC" else set())
    assert collection.tasks["semseg"].class_names() == CLASSES_13
    for task in collection.tasks:
        assert set(collection.labels[task]) == set(collection.images)
    assert collection.published == {}  # a handful of images is not what the published splits describe


@pytest.mark.parametrize("name", WRITERS)
def test_readers_survive_a_process_boundary_and_agree_on_the_size(fakes: dict[str, Path], name: str) -> None:
    collection = pickle.loads(pickle.dumps(open_nyud(fakes[name])))
    for id in collection.images:
        image = collection.images[id].read()
        assert image.dtype == np.uint8
        for task in collection.tasks:
            value, valid = collection.labels[task][id].read()
            assert value.shape[1:] == valid.shape == image.shape[:2]
            assert valid.dtype == bool
            assert valid.any()
            assert np.isfinite(value).all()


def test_an_unknown_folder_is_told_all_layouts_and_what_was_found(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"MTAN: train/image.*semseg40.*found holiday.jpg"):
        open_nyud(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        open_nyud(tmp_path / "nowhere")


def test_the_folder_above_is_told_where_the_data_is(tmp_path: Path) -> None:
    write_mtan(tmp_path / "nyuv2", train=1, val=1)
    with pytest.raises(DataError, match="nyuv2 has one: give that folder"):
        open_nyud(tmp_path)


@pytest.mark.parametrize(
    ("name", "gone"),
    [
        ("MTAN", "val/depth"), ("ATRC", "segmentation"), ("ATRC", "gt_sets/val.txt"), ("compact", "test.txt"),
        ("official", "splits.mat"), ("official", "classMapping40.mat"),
    ],
)  # fmt: skip
def test_a_missing_part_is_named(fakes: dict[str, Path], tmp_path: Path, name: str, gone: str) -> None:
    root = Path(shutil.copytree(fakes[name], tmp_path / "copy"))
    shutil.rmtree(root / gone) if (root / gone).is_dir() else (root / gone).unlink()
    with pytest.raises(DataError, match=f"{name} layout .* lacks {gone}"):
        open_nyud(root)


def test_the_official_layout_says_where_its_mapping_comes_from(fakes: dict[str, Path], tmp_path: Path) -> None:
    root = Path(shutil.copytree(fakes["official"], tmp_path / "copy"))
    (root / "classMapping40.mat").unlink()
    with pytest.raises(DataError, match="894 names to 40 classes, from https"):
        open_nyud(root)


# -- values ------------------------------------------------------------------------------------------------------------
def test_mtan_values(fakes: dict[str, Path]) -> None:
    collection = open_nyud(fakes["MTAN"])
    assert collection.splits["train"] == tuple(f"train/{i}" for i in range(11))  # 10 after 9, not after 1
    assert collection.splits["test"] == ("val/0", "val/1")
    for id in ("train/0", "train/1", "train/10", "val/1"):
        split, i = id.split("/")
        stored = {
            name: np.load(fakes["MTAN"] / split / name / f"{i}.npy") for name in ("image", "label", "depth", "normal")
        }
        np.testing.assert_array_equal(collection.images[id].read(), np.rint(stored["image"] * 255))
        assert np.array_equal(collection.images[id].read(), draw(int(i) + 100 * (split == "val"), 36, 48).image)

        semseg, valid = collection.labels["semseg"][id].read()
        np.testing.assert_array_equal(valid, stored["label"] != -1)
        np.testing.assert_array_equal(semseg[0][valid], stored["label"][valid])

        depth, valid = collection.labels["depth"][id].read()
        assert not valid[0, 0]
        assert not valid[0, 1]
        assert valid.sum() == valid.size - 2
        np.testing.assert_allclose(depth[0][valid], stored["depth"][..., 0][valid], rtol=1e-6)

        normals, valid = collection.labels["normals"][id].read()
        assert not valid[-2:].any()
        assert valid[:-2].all()
        x, z, minus_y = np.moveaxis(stored["normal"], -1, 0)
        np.testing.assert_allclose(normals[:, valid], np.stack([x, -minus_y, z])[:, valid], atol=1e-6)
        assert np.allclose(
            np.moveaxis(normals, 0, -1)[valid], draw(int(i) + 100 * (split == "val"), 36, 48).normals[valid]
        )


def test_mtan_has_no_forty_classes(fakes: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="13 classes only"):
        open_nyud(fakes["MTAN"], classes=40)


@pytest.mark.parametrize("later", [False, True])
def test_atrc_values(tmp_path: Path, later: bool) -> None:
    root = write_atrc(tmp_path, later=later)
    thirteen, forty = open_nyud(root), open_nyud(root, classes=40)
    assert thirteen.splits == {"train": ("7", "10", "13"), "test": ("16", "19")}
    for id in thirteen.images:
        truth = draw(int(id), 34, 44)
        if not later:
            np.testing.assert_array_equal(thirteen.images[id].read(), truth.image)
        _check_classes(thirteen.labels["semseg"][id].read(), forty.labels["semseg"][id].read(), truth.forty)
        depth, valid = thirteen.labels["depth"][id].read()
        assert valid.all()
        np.testing.assert_array_equal(depth[0], np.load(root / "depth" / f"{id}.npy"))
        normals, valid = thirteen.labels["normals"][id].read()
        assert valid[:, :-2].all()
        assert not valid[:, -2:].any()
        assert degrees(normals, truth.normals, valid).max() < 1
        edge, valid = thirteen.labels["edge"][id].read()
        assert valid.all()
        np.testing.assert_array_equal(edge[0, :, 1:], truth.forty[:, 1:] != truth.forty[:, :-1])


def _check_classes(thirteen: tuple[Array, Array], forty: tuple[Array, Array], stored: Array) -> None:
    """Both readings of a map that holds 0 for void and the 40 classes counted from 1."""
    for value, valid in (thirteen, forty):
        assert value.dtype == np.uint8
        np.testing.assert_array_equal(valid, stored > 0)
    np.testing.assert_array_equal(forty[0][0] + 1, np.where(stored > 0, stored, 1))
    for id in np.unique(stored[stored > 0]):
        assert set(thirteen[0][0][stored == id]) == {THIRTEEN[id]}


def test_compact_values(fakes: dict[str, Path]) -> None:
    thirteen, forty = open_nyud(fakes["compact"]), open_nyud(fakes["compact"], classes=40)
    assert thirteen.splits == {"train": ("0001", "0003", "0005"), "test": ("0007", "0009")}
    assert forty.tasks["semseg"].class_names() == CLASSES_40
    for id in thirteen.images:
        truth = draw(int(id), 72, 96)
        _check_classes(thirteen.labels["semseg"][id].read(), forty.labels["semseg"][id].read(), truth.forty)
        depth, valid = thirteen.labels["depth"][id].read()
        assert valid.all()
        assert np.abs(depth[0] - truth.depth).max() <= 0.5 / 25.5 + 1e-6
        normals, valid = thirteen.labels["normals"][id].read()
        assert valid.mean() > 0.9
        assert np.median(degrees(normals, truth.normals, valid)) < 2


def test_official_values(fakes: dict[str, Path]) -> None:
    thirteen, forty = open_nyud(fakes["official"]), open_nyud(fakes["official"], classes=40)
    assert thirteen.splits == {"train": ("0001", "0003", "0005"), "test": ("0002", "0004")}
    for id in thirteen.images:
        truth = draw(int(id), 120, 160)
        np.testing.assert_array_equal(thirteen.images[id].read(), truth.image)
        small, large = thirteen.labels["semseg"][id].read(), forty.labels["semseg"][id].read()
        if id == "0001":  # its last pixel is a curtain rod
            assert small[0][0, -1, -1] == CLASSES_13.index("objects")
            assert large[0][0, -1, -1] == CLASSES_40.index("otherprop")
            small, large = [(value[..., :-1], valid[..., :-1]) for value, valid in (small, large)]
        _check_classes(small, large, truth.forty[:, : small[1].shape[1]])
        depth, valid = thirteen.labels["depth"][id].read()
        assert valid.sum() == valid.size - (id == "0001")
        np.testing.assert_allclose(depth[0][valid], truth.depth[valid], rtol=1e-6)
        normals, valid = thirteen.labels["normals"][id].read()
        assert valid.mean() > 0.9
        angles = degrees(normals, truth.normals, valid)
        assert np.median(angles) < 0.5
        assert np.mean(angles) < 3


# -- broken files ------------------------------------------------------------------------------------------------------
def test_mtan_names_must_be_numbers(tmp_path: Path) -> None:
    root = write_mtan(tmp_path, train=1, val=1)
    (root / "train" / "image" / "0.npy").rename(root / "train" / "image" / "kitchen.npy")
    with pytest.raises(DataError, match=r"0.npy, 1.npy and so on; found kitchen.npy"):
        open_nyud(root)


@pytest.mark.parametrize(
    ("file", "array", "message"),
    [
        ("image", np.full((4, 4, 3), 200.0), "floats from 0 to 1, found float64 from 200"),
        ("image", np.full((4, 4, 3), np.nan), "floats from 0 to 1"),
        ("image", np.zeros((4, 4)), "shape"),
        ("label", np.full((4, 4), 13), "class"),
        ("label", np.full((4, 4), 0.5), "whole class ids"),
        ("label", np.zeros((4, 4, 3), np.int64), "whole number per pixel"),
        ("depth", np.full((4, 4, 1), 1500.0), "metres below 20"),
        ("depth", np.full((4, 4, 1), -1.0), "metres below 20"),
        ("depth", np.full((4, 4, 2), 1.0), "one float per pixel"),
        ("normal", np.tile([0.0, 0.0, -1.0], (4, 4, 1)) * [1, 1, 1] + [0, 0.3, 0], "face the camera"),
    ],
)
def test_mtan_values_that_cannot_be(tmp_path: Path, file: str, array: Array, message: str) -> None:
    root = write_mtan(tmp_path, train=1, val=1)
    np.save(root / "train" / file / "0.npy", array)
    collection = open_nyud(root)
    task = {"label": "semseg", "depth": "depth", "normal": "normals"}.get(file)
    with pytest.raises(DataError, match=message) as caught:
        collection.labels[task]["train/0"].read() if task else collection.images["train/0"].read()
    assert "0.npy" in str(caught.value)


@pytest.mark.parametrize("frame", ["ours", "OpenGL", "z away"])
def test_normals_in_another_frame_are_refused(tmp_path: Path, frame: str) -> None:
    root = write_mtan(tmp_path, train=1, val=1)
    ours = draw(0, 36, 48).normals
    signs = {"ours": [1, 1, 1], "OpenGL": [1, -1, -1], "z away": [1, 1, -1]}[frame]
    np.save(root / "train" / "normal" / "0.npy", ours * signs)
    with pytest.raises(LabelError, match=r"face the camera; expected them stored as \(x, z, -y\)"):
        open_nyud(root).labels["normals"]["train/0"].read()


@pytest.mark.parametrize("name", ["MTAN", "ATRC", "compact"])
def test_cut_files_are_named(fakes: dict[str, Path], tmp_path: Path, name: str) -> None:
    collection = open_nyud(Path(shutil.copytree(fakes[name], tmp_path / "copy")))
    id = collection.splits["train"][0]
    for file in (collection.images[id], *(labels[id] for labels in collection.labels.values())):
        content = file.path.read_bytes()
        file.path.write_bytes(content[: len(content) // 2])
        with pytest.raises(DataError, match=file.path.name):
            file.read()
        file.path.unlink()
        with pytest.raises(DataError, match="does not exist"):
            file.read()
        file.path.write_bytes(content)


def test_listed_images_must_be_there_and_labels_may_be_missing(fakes: dict[str, Path], tmp_path: Path) -> None:
    root = Path(shutil.copytree(fakes["ATRC"], tmp_path / "copy"))
    (root / "depth" / "7.npy").unlink()
    assert set(open_nyud(root).labels["depth"]) == {"10", "13", "16", "19"}
    (root / "images" / "10.png").unlink()
    with pytest.raises(DataError, match=r"train.txt lists '10' \(1 such\), for which there is no image"):
        open_nyud(root)


def test_odd_lists_and_folders_are_named(fakes: dict[str, Path], tmp_path: Path) -> None:
    root = Path(shutil.copytree(fakes["compact"], tmp_path / "copy"))
    (root / "train.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"train.txt cannot be read"):
        open_nyud(root)
    (root / "train.txt").write_text("\n")
    with pytest.raises(DataError, match=r"train.txt lists no image"):
        open_nyud(root)
    (root / "train.txt").write_text("0001\n")
    shutil.rmtree(root / "depth")
    (root / "depth").write_text("not a folder")
    with pytest.raises(DataError, match="depth must be a folder"):
        open_nyud(root)


def test_labels_of_another_kind_are_not_silently_left_out(fakes: dict[str, Path], tmp_path: Path) -> None:
    root = Path(shutil.copytree(fakes["ATRC"], tmp_path / "copy"))
    for file in (root / "depth").iterdir():
        file.rename(file.with_suffix(".mat"))
    with pytest.raises(DataError, match=r"depth holds no label of any listed image; expected files such as 7.npy"):
        open_nyud(root)


def test_class_ids_beyond_forty_are_refused(fakes: dict[str, Path], tmp_path: Path) -> None:
    root = Path(shutil.copytree(fakes["compact"], tmp_path / "copy"))
    Image.fromarray(np.full((72, 96), 41, np.uint8)).save(root / "semseg40" / "0001.png")
    with pytest.raises(LabelError, match=r"0001.png holds class 41 to 41; expected 0 \(void\) to 40"):
        open_nyud(root).labels["semseg"]["0001"].read()


def test_sixteen_bit_depth_is_not_taken_for_eight(fakes: dict[str, Path], tmp_path: Path) -> None:
    root = Path(shutil.copytree(fakes["compact"], tmp_path / "copy"))
    Image.fromarray(np.full((72, 96), 2000, np.uint16)).save(root / "depth" / "0001.png")
    with pytest.raises(LabelError, match="must be 8-bit"):
        open_nyud(root).labels["depth"]["0001"].read()


def test_broken_official_files_are_named(fakes: dict[str, Path], tmp_path: Path) -> None:
    root = Path(shutil.copytree(fakes["official"], tmp_path / "copy"))
    whole = {path.name: path.read_bytes() for path in root.iterdir()}
    for name, content in whole.items():
        (root / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(DataError, match=name):
            open_nyud(root)
        (root / name).write_bytes(content)
    savemat(root / "splits.mat", {"trainNdxs": np.array([[1], [6]]), "testNdxs": np.array([[2]])})
    with pytest.raises(DataError, match="trainNdxs must hold numbers from 1 to 5"):
        open_nyud(root)
    (root / "splits.mat").write_bytes(whole["splits.mat"])
    mapping = loadmat(root / "classMapping40.mat")
    mapping["allClassName"][0, 0] = np.array(["shelf"])
    savemat(root / "classMapping40.mat", {key: mapping[key] for key in ("mapClass", "allClassName")})
    with pytest.raises(DataError, match="must map the 5 names"):
        open_nyud(root)
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "a") as file:
        del file["depths"]
    with pytest.raises(DataError, match=r"must hold images \(N, 3, 640, 480\)"):
        open_nyud(root)
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "a") as file:
        file.create_group("depths")
    with pytest.raises(DataError, match="cannot be read"):
        open_nyud(root)


def test_without_h5py_the_extra_is_named(fakes: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match=r'pip install "tasktokens\[nyud\]"'):
        open_nyud(fakes["official"])


# -- published splits --------------------------------------------------------------------------------------------------
def test_published_rows_follow_the_numbers_of_the_mtan_files(tmp_path: Path) -> None:
    root = write_mtan(tmp_path, train=1, val=1, height=4, width=4)
    for name in ("image", "label", "depth", "normal"):
        for i in range(1, 795):
            (root / "train" / name / f"{i}.npy").hardlink_to(root / "train" / name / "0.npy")
    collection = open_nyud(root)
    rows = (Path(__file__).parents[3] / "src/tasktokens/assets/splits/nyud_one_label.csv").read_text().splitlines()
    names = rows[0].split(",")
    for i in (0, 2, 10, 100, 794):
        cells = dict(zip(names, rows[1 + i].split(","), strict=True))
        assert cells["index"] == str(i)
        assert collection.published["one"][f"train/{i}"] == tuple(task for task in names[1:] if cells[task] == "1")
    for name in ("image", "label", "depth", "normal"):
        (root / "train" / name / "5.npy").rename(root / "train" / name / "795.npy")
    assert open_nyud(root).published == {}  # with a gap, positions mean other images


# -- genuine files -----------------------------------------------------------------------------------------------------
def shared(folder: str) -> Path:
    """A folder of genuine files beside the repository, or skip."""
    root = Path(__file__).resolve().parents[4] / "shared" / "data" / folder
    if not root.is_dir():
        pytest.skip(f"genuine NYU Depth v2 files ({folder}) are not on this machine")
    return root


def test_genuine_mapping_and_splits() -> None:
    samples = shared("nyud_samples")
    mapping = loadmat(samples / "class13Mapping.mat")["classMapping13"][0, 0]
    assert tuple(mapping["labels13"].ravel()) == FORTY_TO_THIRTEEN
    assert tuple(str(cell.item()) for cell in mapping["classNames"].ravel()) == CLASSES_13
    names = [str(cell.item()) for cell in loadmat(samples / "classMapping40.mat")["className"].ravel()]
    assert [name.replace("refridgerator", "refrigerator") for name in names] == list(CLASSES_40)
    collection = open_nyud(shared("nyuv2"))
    splits = loadmat(samples / "splits.mat")
    for name, key, count in (("train", "trainNdxs", 795), ("test", "testNdxs", 654)):
        assert [int(id) for id in collection.splits[name]] == splits[key].ravel().tolist()
        assert len(collection.splits[name]) == count


def test_official_layout_takes_the_genuine_mapping_of_894_names(tmp_path: Path) -> None:
    samples = shared("nyud_samples")
    root = write_official(tmp_path, count=3, height=24, width=32)
    mapping = loadmat(samples / "classMapping40.mat")
    names = [str(cell.item()) for cell in mapping["allClassName"].ravel()]
    shutil.copy(samples / "classMapping40.mat", root / "classMapping40.mat")
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "a") as file:
        del file["names"]
        cells = file.create_dataset("names", (1, len(names)), dtype=h5py.ref_dtype)
        for i, name in enumerate(names):
            file[f"cells/{i}"] = np.array([[ord(letter)] for letter in name], np.uint16)
            cells[0, i] = file[f"cells/{i}"].ref
        labels = np.arange(32 * 24).reshape(32, 24).astype(np.uint16) + 100
        file["labels"][0] = labels
    forty, valid = open_nyud(root, classes=40).labels["semseg"]["0001"].read()
    assert valid.all()
    np.testing.assert_array_equal(forty[0] + 1, mapping["mapClass"].ravel()[labels.T.astype(int) - 1])
    thirteen, _ = open_nyud(root).labels["semseg"]["0001"].read()
    expected = loadmat(samples / "class13Mapping.mat")["classMapping13"][0, 0]["labels13"].ravel()[forty[0]] - 1
    np.testing.assert_array_equal(thirteen[0], expected)


def test_genuine_image_433() -> None:
    samples = shared("nyud_samples")
    thirteen, forty = open_nyud(shared("nyuv2")), open_nyud(shared("nyuv2"), classes=40)

    def resized(name: str) -> Array:
        with Image.open(samples / name) as image:
            return np.asarray(image.resize((384, 288), Image.Resampling.NEAREST))

    # The sample counts the 40 classes from 0 and has 255 for void.
    sample = resized("segm_gt_000433.png")
    ids, valid = forty.labels["semseg"]["0433"].read()
    np.testing.assert_array_equal(valid, sample != 255)
    np.testing.assert_array_equal(ids[0][valid], sample[valid])
    lookup = np.array([c - 1 for c in FORTY_TO_THIRTEEN])
    small, small_valid = thirteen.labels["semseg"]["0433"].read()
    np.testing.assert_array_equal(small[0][valid], lookup[ids[0][valid]])
    np.testing.assert_array_equal(small_valid, valid)

    genuine = resized("depth_gt_000433.png") / 5000
    depth, valid = thirteen.labels["depth"]["0433"].read()
    both = valid & (genuine > 0)
    assert np.median(np.abs(depth[0] - genuine)[both]) < 0.02

    stored = resized("norm_gt_000433.png") / 127.5 - 1
    truth = np.stack([stored[..., 0], -stored[..., 2], stored[..., 1]], axis=-1)
    normals, valid = thirteen.labels["normals"]["0433"].read()
    angles = degrees(
        normals, truth / np.linalg.norm(truth, axis=-1, keepdims=True), valid & (np.abs(stored).max(-1) > 0.1)
    )
    assert np.median(angles) < 8


@pytest.mark.parametrize("layout", ["MTAN", "ATRC"])
def test_the_genuine_published_normals_come_out_in_our_frame(tmp_path: Path, layout: str) -> None:
    """The genuine map of image 433, put into either layout, against normals computed from its genuine depth."""
    samples = shared("nyud_samples")
    with Image.open(samples / "norm_gt_000433.png") as image:
        stored = np.asarray(image)
    with Image.open(samples / "depth_gt_000433.png") as image:
        depth = np.asarray(image) / 5000
    if layout == "MTAN":
        root = write_mtan(tmp_path / "map", train=1, val=1)
        vectors = stored / 127.5 - 1
        np.save(
            root / "train" / "normal" / "0.npy", np.where(np.abs(vectors).max(-1, keepdims=True) < 0.01, 0, vectors)
        )
    else:
        root = write_atrc(tmp_path / "map", train=1, val=1)
        Image.fromarray(stored).save(root / "normals" / "7.png")
    published, valid = next(iter(open_nyud(root).labels["normals"].values())).read()

    official = write_official(tmp_path / "depth", count=2, height=480, width=640)
    with h5py.File(official / "nyu_depth_v2_labeled.mat", "a") as file:
        file["depths"][0] = depth.T
    computed, fitted = open_nyud(official).labels["normals"]["0001"].read()
    angles = degrees(computed, np.moveaxis(published, 0, -1), valid & fitted)
    assert (valid & fitted).mean() > 0.5
    assert np.median(angles) < 4
    assert (published[2][valid] < 0).mean() > 0.95


@pytest.mark.parametrize(
    ("labels", "counts"),
    [
        ("one", {"semseg": 265, "depth": 265, "normals": 265}),
        ("random", {"semseg": 392, "depth": 408, "normals": 385}),
        ("full", {"semseg": 795, "depth": 795, "normals": 795}),
    ],
)
def test_published_splits_of_a_run(labels: str, counts: dict[str, int]) -> None:
    root = shared("nyuv2")
    data = open_data(parse_config({"data": {"kind": "nyud", "root": str(root), "labels": labels}}))
    assert {task: sum(task in seen for seen in data.train.values()) for task in counts} == counts
    assert len(data.collection.split("test")) == 654


def test_the_fake_is_what_it_says() -> None:
    """The fakes' own frame: the front wall faces the camera, and the publishers' second number is our z."""
    picture = draw(3, 48, 64)
    assert np.allclose(picture.normals[picture.forty == WALL], [0, 0, -1])
    assert np.allclose(published_frame(picture.normals)[picture.forty == WALL], [0, -1, 0])
