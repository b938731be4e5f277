"""Label files as public reports of neighbouring tools describe them (docs/dev/field-reports.md), against NumPy."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from tasktokens.data.ids import read_ids
from tasktokens.datasets.folder import open_folder
from tasktokens.errors import LabelError
from tasktokens.inspection.report import Report
from tasktokens.inspection.survey import check
from tasktokens.tasks import build_task

IDS = np.zeros((32, 48), np.uint8)
IDS[16:] = 1
IDS[4:12, 10:30] = 2
CLASSES: dict[str, Any] = {"kind": "classes", "classes": ["wall", "floor", "box"]}
ONE_CHANNEL = [CLASSES, {"kind": "depth"}, {"kind": "regression", "range": [0, 9]}, {"kind": "binary"}]


def check_folder(root: Path, spec: str, labels: list[np.ndarray | Image.Image], images: list[np.ndarray]) -> Report:
    """`check` of a folder with a task; the last two images are the test split."""
    for i, (label, image) in enumerate(zip(labels, images, strict=True)):
        for name, value in (("images", image), ("mine", label)):
            (root / name).mkdir(exist_ok=True)
            if isinstance(value, np.ndarray) and value.dtype.kind == "f":
                np.save(root / name / f"{i}.npy", value)
            else:
                picture = value if isinstance(value, Image.Image) else Image.fromarray(value)
                picture.save(root / name / f"{i}.png")
    count = len(labels)
    (root / "train.txt").write_text("".join(f"{i}\n" for i in range(count - 2)))
    (root / "test.txt").write_text(f"{count - 2}\n{count - 1}\n")
    (root / "dataset.yaml").write_text(f"splits: {{train: train.txt, test: test.txt}}\ntasks: {{mine: {{{spec}}}}}\n")
    return check(open_folder(root), workers=1)


def pictures(count: int, dtype: Any = np.uint8, high: int = 255) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, high, (32, 48), dtype=dtype) for _ in range(count)]


def codes(report: Report) -> dict[str, str]:
    return {finding.code: finding.message for finding in report.findings}


@pytest.mark.parametrize("spec", ONE_CHANNEL, ids=lambda spec: spec["kind"])
@pytest.mark.parametrize("shape", [(32, 48, 2), (32, 48, 4)], ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_arrays_have_no_alpha_channel(spec: dict[str, Any], shape: tuple[int, ...], dtype: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones(shape, dtype))
    with pytest.raises(LabelError, match=rf"a\.npy.*one channel.*\(32, 48, {shape[-1]}\)"):
        build_task("m", spec).read(tmp_path / "a.npy")


@pytest.mark.parametrize("spec", ONE_CHANNEL, ids=lambda spec: spec["kind"])
@pytest.mark.parametrize("channels", [1, 3])
def test_channels_first_are_told_from_channels_last(spec: dict[str, Any], channels: int, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((channels, 32, 48), np.float32))
    with pytest.raises(LabelError, match="channels go last, so transpose it to"):
        build_task("m", spec).read(tmp_path / "a.npy")


def save_16_bit_rgb(path: Path, plane: np.ndarray) -> None:
    """Three equal channels of 16 bits; Pillow writes none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = plane.shape
    rows = b"".join(b"\0" + row.astype(">u2").repeat(3).tobytes() for row in plane)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


@pytest.mark.parametrize("spec", [CLASSES, {"kind": "depth"}], ids=lambda spec: spec["kind"])
def test_colour_channels_of_16_bits_are_refused_as_numbers(spec: dict[str, Any], tmp_path: Path) -> None:
    save_16_bit_rgb(tmp_path / "a.png", IDS.astype(np.uint16))
    with pytest.raises(LabelError, match=r"a\.png.*16 bits.*16-bit grey"):
        build_task("m", spec).read(tmp_path / "a.png")


def save_with_nodata(path: Path, array: np.ndarray, nodata: str) -> None:
    tags = ImageFileDirectory_v2()
    tags[42113], tags.tagtype[42113] = nodata, 2
    Image.fromarray(array).save(path, tiffinfo=tags)


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int16, np.uint8])
def test_what_a_tiff_names_as_no_data_is_void(dtype: Any, tmp_path: Path) -> None:
    nodata = 250 if dtype == np.uint8 else -9999
    array = np.arange(1, 13).reshape(3, 4).astype(dtype)
    array[1, 1:3] = nodata
    save_with_nodata(tmp_path / "a.tif", array, str(nodata))
    for spec in ({"kind": "regression", "range": [0, 20]}, {"kind": "depth", "range": [0.1, 20], "scale": 1.0}):
        value, valid = build_task("m", spec).read(tmp_path / "a.tif")
        assert np.array_equal(valid, array != nodata)
        np.testing.assert_allclose(value[0][valid], array[array != nodata].astype(np.float32), rtol=1e-6)


def test_no_data_is_a_class_only_where_the_task_names_its_id(tmp_path: Path) -> None:
    save_with_nodata(tmp_path / "a.tif", IDS, "0")
    assert np.array_equal(build_task("m", CLASSES).read(tmp_path / "a.tif")[1], IDS != 0)
    named = CLASSES | {"ids": {0: "wall", 1: "floor", 2: "box"}}
    value, valid = build_task("m", named).read(tmp_path / "a.tif")
    assert valid.all()
    assert np.array_equal(value[0], IDS)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_whole_floats_are_class_ids_and_fractions_are_not(dtype: Any, tmp_path: Path) -> None:
    ids = IDS.astype(dtype)
    ids[0, 0] = np.nan
    np.save(tmp_path / "a.npy", ids)
    value, valid = build_task("m", CLASSES).read(tmp_path / "a.npy")
    assert np.array_equal(valid, ~np.isnan(ids))
    assert np.array_equal(value[0][valid], IDS[valid])
    np.save(tmp_path / "b.npy", ids + dtype(0.5))
    with pytest.raises(LabelError, match=r"whole class ids, found .*\.5"):
        build_task("m", CLASSES).read(tmp_path / "b.npy")


def test_ids_counted_from_one_are_explained(tmp_path: Path) -> None:
    Image.fromarray(IDS + np.uint8(1)).save(tmp_path / "a.png")
    with pytest.raises(LabelError, match=r"ids: \{1: wall, 2: floor, 3: box\}.*void: \[0\]"):
        build_task("m", CLASSES).read(tmp_path / "a.png")


def test_a_tiff_of_five_bands_is_called_one(tmp_path: Path) -> None:
    planes = Image.fromarray(np.zeros((4, 4, 4), np.uint8))
    planes.save(tmp_path / "a.tif")
    data = (tmp_path / "a.tif").read_bytes()
    little = struct.pack("<HHIHH", 277, 3, 1, 4, 0)
    assert little in data
    (tmp_path / "a.tif").write_bytes(data.replace(little, struct.pack("<HHIHH", 277, 3, 1, 5, 0)))
    with pytest.raises(LabelError, match="TIFF of 5 bands of 8 bits"):
        build_task("m", CLASSES).read(tmp_path / "a.tif")


@pytest.mark.parametrize("differs", ["an index", "a colour", "nothing"])
def test_palettes_that_differ_between_files_are_an_error(differs: str, tmp_path: Path) -> None:
    colours = [[0, 0, 255], [120, 80, 0], [255, 0, 0], [9, 9, 9]]
    labels = []
    for i in range(6):
        ids, palette = IDS.copy(), list(colours)
        if i % 2 and differs == "an index":
            palette[0], palette[1] = palette[1], palette[0]
        if i % 2 and differs == "a colour":
            ids[ids == 2], palette[3] = 3, colours[2]
        label = Image.fromarray(ids)
        label.putpalette(np.array(palette).ravel().tolist())
        labels.append(label)
    found = codes(check_folder(tmp_path, "kind: classes, classes: [a, b, c, d]", labels, pictures(6)))
    assert ("palettes-differ" in found) == (differs != "nothing")


@pytest.mark.parametrize("kind", ["binary", "saliency", "edge"])
def test_masks_of_two_whites_are_an_error_that_names_files_of_each(kind: str, tmp_path: Path) -> None:
    labels = [((IDS == 2) * (1 if i % 2 else 255)).astype(np.uint8) for i in range(6)]
    found = codes(check_folder(tmp_path, f"kind: {kind}", labels, pictures(6)))
    assert "'1', '3', '5'" in found["mixed-white"]
    assert "'0', '2', '4'" in found["mixed-white"]


@pytest.mark.parametrize(("high", "dark"), [(4096, True), (1024, True), (65535, False)])
def test_images_of_12_bits_in_16_are_named(high: int, dark: bool, tmp_path: Path) -> None:
    found = codes(check_folder(tmp_path, "kind: classes, classes: [a, b, c]", [IDS] * 6, pictures(6, np.uint16, high)))
    assert ("images-nearly-black" in found) == dark


def test_a_class_of_one_split_only_is_named_with_its_split(tmp_path: Path) -> None:
    labels = [IDS] * 4 + [np.where(IDS == 2, np.uint8(3), IDS)] * 2
    found = check_folder(tmp_path, "kind: classes, classes: [wall, floor, box, lamp]", labels, pictures(6)).findings
    texts = [finding.message for finding in found if finding.code == "class-not-in-split"]
    assert any("'train'" in text and "'lamp'" in text for text in texts)
    assert any("'test'" in text and "'box'" in text for text in texts)


def test_training_labels_that_say_one_thing_are_an_error_though_others_do_not(tmp_path: Path) -> None:
    labels = [np.zeros_like(IDS)] * 4 + [np.where(IDS == 2, np.uint8(255), np.uint8(0))] * 2
    found = codes(check_folder(tmp_path, "kind: binary", labels, pictures(6)))
    assert found["one-sided"].startswith("in split 'train'")


def test_normals_from_0_to_1_are_told_how_to_convert(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(32, 48, 3)) - [0, 0, 3]
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    labels = [((normals + 1) / 2).astype(np.float32)] * 4
    assert "n = 2 v - 1" in codes(check_folder(tmp_path, "kind: normals", labels, pictures(4)))["normals-0-to-1"]


def test_pictures_with_other_endings_are_counted(tmp_path: Path) -> None:
    check_folder(tmp_path, "kind: classes, classes: [a, b, c]", [IDS] * 4, pictures(4))
    Image.fromarray(IDS).save(tmp_path / "images" / "x.gif")
    (tmp_path / "mine" / "x.exr").write_bytes(b"x")
    found = [f.message for f in check(open_folder(tmp_path), workers=1).findings if f.code == "files-passed-over"]
    assert len(found) == 2
    assert "1 .gif" in found[0]
    assert "1 .exr" in found[1]


def test_lists_may_write_the_endings_that_ids_do_not_have(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("000.png\na/001.JPG\n002\n")
    assert read_ids(tmp_path / "train.txt", ["000", "a/001", "002"]) == ("000", "a/001", "002")
