"""What ``tasktokens init`` makes of numbers that can be read in two ways; shares by NumPy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from tasktokens.datasets.folder import open_folder
from tasktokens.errors import DataError
from tasktokens.inspection.infer_classes import evenly_spread, look_like_ids
from tasktokens.inspection.init import init
from tasktokens.inspection.unmeasured import unmeasured_values

HEIGHT, WIDTH, COUNT = 24, 32, 4
Write = Callable[[Path, np.ndarray], None]


def scene(seed: int, values: list[int]) -> np.ndarray:
    """Rows of the first values, a patch of the last: (H, W), the same values in every file."""
    ids = np.repeat(np.resize(values[:-1] or values, HEIGHT), WIDTH).reshape(HEIGHT, WIDTH)
    ids = np.sort(ids, axis=0)
    top = 2 + seed
    ids[top : top + 8, 4:16] = values[-1]
    return ids


def images(root: Path, count: int = COUNT) -> None:
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(root / "images" / f"{i}.png")


def png(path: Path, ids: np.ndarray) -> None:
    Image.fromarray(ids.astype(np.uint8 if ids.max() < 256 else np.uint16)).save(path.with_suffix(".png"))


def tif(path: Path, ids: np.ndarray) -> None:
    Image.fromarray(ids.astype(np.uint8 if ids.max() < 256 else np.uint16)).save(path.with_suffix(".tif"))


def npy(path: Path, ids: np.ndarray) -> None:
    np.save(path.with_suffix(".npy"), ids.astype(np.int32))


def palette(path: Path, ids: np.ndarray) -> None:
    image = Image.new("P", (WIDTH, HEIGHT))
    image.putdata(ids.ravel().tolist())
    image.putpalette([v for k in range(256) for v in (k * 37 % 256, k * 91 % 256, k * 53 % 256)])
    image.save(path.with_suffix(".png"))


def labels(root: Path, folder: str, values: list[int], write: Write) -> list[np.ndarray]:
    images(root)
    (root / folder).mkdir()
    planes = [scene(i, values) for i in range(COUNT)]
    for i, plane in enumerate(planes):
        write(root / folder / str(i), plane)
    return planes


def read_back(root: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    read = [file.read() for file in open_folder(root).labels[name].values()]
    return np.stack([value[0] for value, _ in read]), np.stack([valid for _, valid in read])


# -- class masks -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("folder", ["mask", "masks", "segmentation", "labels", "gt", "foreground", "edges", "saliency"])
@pytest.mark.parametrize("write", [png, tif, npy, palette])
@pytest.mark.parametrize("values", [[0, 1, 7, 20, 255], [0, 1, 2, 3], [3, 5, 9, 255]], ids=str)
def test_few_whole_numbers_are_classes_whatever_the_folder_is_called(
    folder: str, write: Write, values: list[int], tmp_path: Path
) -> None:
    planes = labels(tmp_path, folder, values, write)
    task = init(tmp_path).tasks[0]
    assert task.spec["kind"] == "classes"
    value, valid = read_back(tmp_path, task.name)
    np.testing.assert_array_equal(valid, np.stack(planes) != 255)
    np.testing.assert_array_equal(value[valid], np.stack(planes)[valid])
    assert ("the other reading: a class" in task.saw) == (255 in values)


@pytest.mark.parametrize(
    ("folder", "spec"),
    [
        ("fg_mask", {"kind": "binary", "white": 1}),
        ("saliency", {"kind": "saliency", "white": 1}),
        ("edge", {"kind": "edge", "white": 1}),
        ("floor", {"kind": "classes", "classes": ["class_0", "class_1"], "void": [255]}),
    ],
)
def test_zero_and_one_say_both_readings(folder: str, spec: dict[str, Any], tmp_path: Path) -> None:
    planes = labels(tmp_path, folder, [0, 1], png)
    task = init(tmp_path).tasks[0]
    assert task.spec == spec
    assert "the other reading" in task.saw
    np.testing.assert_array_equal(read_back(tmp_path, folder)[0], np.stack(planes))


@pytest.mark.parametrize("count", [3, 4, 5, 6, 16])
@pytest.mark.parametrize("write", [png, tif, npy])
def test_ids_spread_for_viewing_keep_their_last_class(count: int, write: Write, tmp_path: Path) -> None:
    spread = [i * 255 // (count - 1) for i in range(count)]
    planes = labels(tmp_path, "semseg", spread, write)
    task = init(tmp_path).tasks[0]
    assert task.spec["ids"] == {value: i for i, value in enumerate(spread)}
    assert task.spec["void"] == []
    assert "255 is taken for a class (the other reading: no label" in task.saw
    value, valid = read_back(tmp_path, "semseg")
    assert valid.all()
    assert [(value == i).mean() for i in range(count)] == [(np.stack(planes) == v).mean() for v in spread]


def test_levels_of_several_annotators_are_a_probability(tmp_path: Path) -> None:
    labels(tmp_path, "edge", [0, 85, 170, 255], png)
    task = init(tmp_path).tasks[0]
    assert task.spec == {"kind": "edge"}
    assert "ids were spread for viewing" in task.saw


def test_even_distances_and_low_numbers() -> None:
    assert evenly_spread([0, 128, 255]) == [0, 128, 255]
    assert evenly_spread([0, 32768, 65535]) == [0, 32768, 65535]
    for values in ([0, 255], [0, 100, 255], [1, 128, 255], [0, 127, 254], list(range(256))):
        assert evenly_spread(values) == []
    assert look_like_ids([0, 7, 20, 255])
    assert not look_like_ids([0, 51, 102, 255])
    assert not look_like_ids([0, 1])


@pytest.mark.parametrize("folder", ["instances", "things"])
def test_ids_of_things_are_refused_with_the_way_to_classes(folder: str, tmp_path: Path) -> None:
    labels(tmp_path, folder, [7, 8, 26000, 26001, 26002], png)
    with pytest.raises(DataError, match=r"ids of things.*26000, 26001, 26002 look like things of class 26.*v // 1000"):
        init(tmp_path)
    assert not (tmp_path / "dataset.yaml").exists()


@pytest.mark.parametrize("folder", ["fg", "hair", "saliency"])
def test_two_ways_of_writing_yes_are_refused_by_name(folder: str, tmp_path: Path) -> None:
    images(tmp_path)
    (tmp_path / folder).mkdir()
    for i in range(COUNT):
        png(tmp_path / folder / str(i), scene(i, [0, 1]) * (255 if i % 2 else 1))
    with pytest.raises(DataError, match=r"yes is 1 in 2 files \(such as 0\.png\) and 255 in 2 \(such as 1\.png\)"):
        init(tmp_path)


def test_palettes_that_differ_are_refused(tmp_path: Path) -> None:
    images(tmp_path)
    (tmp_path / "parts").mkdir()
    for i in range(COUNT):
        image = Image.new("P", (WIDTH, HEIGHT))
        image.putdata(scene(0, [0, 1, 2]).ravel().tolist())
        colours = [[0, 0, 0], [255, 0, 0], [0, 255, 0]]
        image.putpalette([v for k in ((0, 1, 2) if i % 2 else (0, 2, 1)) for v in colours[k]])
        image.save(tmp_path / "parts" / f"{i}.png")
    with pytest.raises(DataError, match=r"0\.png and 1\.png have palettes that order the same colours"):
        init(tmp_path)


@pytest.mark.parametrize("ending", [".jpg", ".webp"])
@pytest.mark.parametrize("folder", ["semseg", "ids"])
def test_lossy_class_masks_are_refused(folder: str, ending: str, tmp_path: Path) -> None:
    if ending not in (".jpg",):
        pytest.importorskip("PIL.WebPImagePlugin")
    images(tmp_path)
    (tmp_path / folder).mkdir()
    for i in range(COUNT):
        large = scene(i, [0, 90, 180]).astype(np.uint8)
        name = f"{i}.png" if ending == ".webp" else f"{i}{ending}"
        with (tmp_path / folder / name).open("wb") as file:
            Image.fromarray(large).convert("RGB" if ending == ".webp" else "L").save(
                file, format="WEBP" if ending == ".webp" else "JPEG", quality=90
            )
    with pytest.raises(DataError, match=r"which compression has changed; export PNG"):
        init(tmp_path)


def test_a_smoothed_colour_mask_is_named_and_the_rest_is_used(tmp_path: Path) -> None:
    images(tmp_path)
    (tmp_path / "semseg").mkdir()
    colours = np.array([[0, 0, 255], [120, 80, 0], [255, 0, 0]], np.uint8)
    for i in range(COUNT):
        picture = Image.fromarray(colours[scene(i, [0, 1, 2])])
        if i == 2:
            picture = picture.resize((16, 12), Image.Resampling.BILINEAR).resize(
                (WIDTH, HEIGHT), Image.Resampling.BILINEAR
            )
        picture.save(tmp_path / "semseg" / f"{i}.png")
    task = init(tmp_path).tasks[0]
    assert sorted(map(tuple, task.spec["colours"].values())) == sorted(map(tuple, colours.tolist()))
    assert "2.png" in task.saw
    assert "smoothing" in task.saw


# -- measurements ------------------------------------------------------------------------------------------------------
def smooth(low: float, high: float) -> np.ndarray:
    return np.linspace(low, high, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)


@pytest.mark.parametrize(("low", "high"), [(2, 212), (30, 250), (0, 120)])
@pytest.mark.parametrize("folder", ["depth", "rel_depth", "disparity", "inverse_depth"])
def test_depth_of_8_bits_is_never_classes(folder: str, low: int, high: int, tmp_path: Path) -> None:
    images(tmp_path)
    (tmp_path / folder).mkdir()
    for i in range(COUNT):
        png(tmp_path / folder / str(i), smooth(low, high).repeat(4, 0)[::4].round())
    task = init(tmp_path).tasks[0]
    if "depth" in folder and "inverse" not in folder:
        assert task.spec == {"kind": "regression", "range": [low, high]}
        assert "8 bits tell no unit" in task.saw
        assert "kind: depth, inverse: true, scale: 0.003922" in task.saw
    else:
        assert task.spec["kind"] == "depth"
        assert task.spec["inverse"] is True
        value, valid = read_back(tmp_path, folder)
        np.testing.assert_allclose(value[valid], np.stack([smooth(low, high).round()] * COUNT)[valid] / 255, rtol=1e-5)


MARKS = {
    "float32": [-1, -9999, 1e10, 1e38, float(np.finfo(np.float32).max), float(np.finfo(np.float32).min)],
    "float64": [-1, -9999, 1e30],
    "uint16": [65535],
    "int16": [-1, -32768, 32767],
    "int32": [-9999, 2**31 - 1],
}


@pytest.mark.parametrize(("dtype", "mark"), [(dtype, mark) for dtype, marks in MARKS.items() for mark in marks])
@pytest.mark.parametrize("folder", ["depth", "height"])
def test_no_measurement_is_void_and_in_no_range(folder: str, dtype: str, mark: float, tmp_path: Path) -> None:
    images(tmp_path)
    (tmp_path / folder).mkdir()
    whole = not dtype.startswith("float")
    planes = []
    for i in range(COUNT):
        plane = (smooth(500, 9000).round() if whole else smooth(0.5, 9.0)).astype(dtype)
        plane[:3] = mark
        planes.append(plane)
        np.save(tmp_path / folder / f"{i}.npy", plane)
    task = init(tmp_path).tasks[0]
    measured = np.stack(planes) != np.array(mark).astype(dtype)
    assert [np.array(each).astype(dtype) for each in task.spec["void"]] == [np.array(mark).astype(dtype)]
    scale = task.spec.get("scale", 1)
    low, high = np.stack(planes)[measured].min() * scale, np.stack(planes)[measured].max() * scale
    assert low * 0.99 <= task.spec["range"][0] <= low * 1.35
    assert high * 0.95 <= task.spec["range"][1] <= high * 1.02
    assert "8 bits" not in task.saw
    assert f"{100 * (1 - measured.mean()):.3g} % void" in task.saw
    np.testing.assert_array_equal(read_back(tmp_path, folder)[1], measured)


CAPS = [("depth", "uint8", 255, 0.004), ("disparity", "uint8", 255, 0.004), ("depth", "uint16", 65534, 0.004),
        ("depth", "float32", 100, 0.05), ("depth", "float64", 1000, 0.02), ("height", "float32", 80.5, 0.1),
        ("height", "uint16", 10000, 0.3)]  # fmt: skip


@pytest.mark.parametrize(("folder", "dtype", "cap", "share"), CAPS)
def test_a_value_at_which_measuring_ends_is_said_and_others_are_not(
    folder: str, dtype: str, cap: float, share: float, tmp_path: Path
) -> None:
    images(tmp_path)
    (tmp_path / folder).mkdir()
    plane = np.sort(np.random.default_rng(0).uniform(0.1 * cap, 0.8 * cap, HEIGHT * WIDTH)).astype(dtype)
    capped = plane.copy()
    capped[: round(share * plane.size)] = cap
    for i in range(COUNT):
        np.save(tmp_path / folder / f"{i}.npy", capped.reshape(HEIGHT, WIDTH))
    saw = init(tmp_path).tasks[0].saw
    assert f"hold the largest value, {cap:.10g}, which is in the range" in saw
    assert f"write void: [{cap:.10g}]" in saw
    assert f"; {(capped == cap).mean():.2g} of the pixels" in saw
    assert "the largest value" in (tmp_path / "dataset.yaml").read_text()
    for i in range(COUNT):
        np.save(tmp_path / folder / f"{i}.npy", plane.reshape(HEIGHT, WIDTH))
    assert "the largest value" not in init(tmp_path, force=True).tasks[0].saw


def normals_of(scene: str, files: int, root: Path) -> str:
    """What init says of ``files`` files of unit vectors: a wall in front, or a room with walls, floor and ceiling."""
    images(root)
    (root / "normals").mkdir()
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(HEIGHT, WIDTH, 3)) * 0.02 + [0, 0, -1]
    if scene == "room":
        row, column = np.indices((HEIGHT, WIDTH)) / np.array([HEIGHT, WIDTH])[:, None, None]
        vectors[row > 0.7] += [0, -3, 0.9]
        vectors[row < 0.2] += [0, 3, 0.9]
        vectors[column < 0.25] += [3, 0, 0.9]
        vectors[column > 0.75] += [-3, 0, 0.9]
    if scene == "any":
        vectors = rng.normal(size=(HEIGHT, WIDTH, 3))
        vectors[..., 2] = -abs(vectors[..., 2]) * 0.5
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    for i in range(files):
        np.save(root / "normals" / f"{i}.npy", vectors.astype(np.float32))
    return init(root).tasks[0].saw


@pytest.mark.parametrize(
    ("scene", "files", "words"),
    [
        ("room", COUNT, None),
        ("room", 1, "the frame is a guess: there are"),
        ("wall", COUNT, "the frame is a guess: 7 other orders of the axes fit as well, such as ["),
        ("any", COUNT, "the frame is a guess: in no order of the axes 90% of the normals face the camera"),
    ],
)
def test_the_frame_of_normals_says_where_it_is_a_guess(
    scene: str, files: int, words: str | None, tmp_path: Path
) -> None:
    saw = normals_of(scene, files, tmp_path)
    assert (words in saw) if words else ("guess" not in saw), saw


def test_values_that_belong_to_the_others_are_measurements() -> None:
    for values, dtype in (
        ([-1.0, -0.5, 0.0, 1.0], "float32"), ([-9999.0, -9000.0, 5000.0], "float32"), ([0, 1, 255], "uint8"),
        ([0.0, 60000.0, 65534.0, 65535.0], "uint16"), ([-1.0], "float32"),
    ):  # fmt: skip
        assert unmeasured_values(np.array(values, dtype)) == ()
    assert unmeasured_values(np.array([0, 1, 7], "uint8"), [7]) == (7,)


@pytest.mark.parametrize("folder", ["height", "depth", "cover"])
def test_the_nodata_tag_of_a_tiff_is_void(folder: str, tmp_path: Path) -> None:
    images(tmp_path)
    (tmp_path / folder).mkdir()
    nodata = 0 if folder == "cover" else -7777
    planes = []
    for i in range(COUNT):
        plane = scene(i, [1, 2, 3]).astype(np.uint8) if folder == "cover" else smooth(2, 60).astype(np.float32)
        plane[-4:, :5] = nodata
        planes.append(plane)
        tags = ImageFileDirectory_v2()
        tags[42113], tags.tagtype[42113] = str(nodata), 2
        Image.fromarray(plane).save(tmp_path / folder / f"{i}.tif", tiffinfo=tags)
    task = init(tmp_path).tasks[0]
    assert task.spec["void"] == [nodata]
    assert "as no data" in task.saw
    value, valid = read_back(tmp_path, folder)
    np.testing.assert_array_equal(valid, np.stack(planes) != nodata)
    if folder == "cover":
        assert task.spec["ids"] == {1: 0, 2: 1, 3: 2}
        np.testing.assert_array_equal(value[valid], np.stack(planes)[valid] - 1)
    else:
        assert task.spec["range"][0] > 1
        assert task.spec["range"][1] <= 61


def test_whole_floats_say_that_they_may_be_ids(tmp_path: Path) -> None:
    images(tmp_path)
    (tmp_path / "parts").mkdir()
    for i in range(COUNT):
        np.save(tmp_path / "parts" / f"{i}.npy", scene(i, [0, 1, 2]).astype(np.float32))
    assert "the other reading: kind: classes" in init(tmp_path).tasks[0].saw


@pytest.mark.parametrize(("values", "words"), [([1, 255], "the same answer"), ([5, 5], "the same answer")])
def test_one_sided_labels_are_said(values: list[int], words: str, tmp_path: Path) -> None:
    labels(tmp_path, "semseg", values, png)
    assert words in init(tmp_path).tasks[0].saw
