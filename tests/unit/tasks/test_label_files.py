"""Label files and images of every usual kind, written with Pillow and NumPy and read by the tasks."""

from __future__ import annotations

import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from tasktokens.datasets.index import image_size, read_image
from tasktokens.errors import ConfigError, DataError, LabelError
from tasktokens.inspection.scan import scan_files
from tasktokens.tasks import Binary, Edge, Normals, Regression, Saliency, Segmentation, build_task
from tasktokens.tasks.stored import read_stored

IDS = np.array([[0, 1, 2], [2, 255, 0]], np.uint8)
SEMSEG = Segmentation("semseg", classes=("sky", "road", "car"))
COLOURS = np.array([[[0, 0, 0], [200, 10, 0], [3, 4, 5]], [[200, 10, 0], [9, 9, 9], [0, 0, 0]]], np.uint8)
CODED = build_task("parts", {"kind": "classes", "colours": {"none": [0, 0, 0], "head": [200, 10, 0], "arm": [3, 4, 5]}})


def png_16_bit(path: Path, array: np.ndarray) -> None:
    """A PNG of 16 bits and 1 to 4 channels, which Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = array.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


# -- class ids ---------------------------------------------------------------------------------------------------------
def test_ids_are_read_from_every_lossless_kind_of_file(tmp_path: Path) -> None:
    Image.fromarray(IDS).save(tmp_path / "a.png")
    Image.fromarray(IDS).save(tmp_path / "b.tif")
    Image.fromarray(IDS).save(tmp_path / "c.bmp")
    Image.fromarray(IDS.astype(np.uint16)).save(tmp_path / "d.png")
    Image.fromarray(IDS.astype(np.uint16)).save(tmp_path / "e.tiff")
    Image.fromarray(IDS.astype(np.int32)).save(tmp_path / "f.tif")
    np.save(tmp_path / "g.npy", IDS.astype(">i2"))
    np.savez(tmp_path / "h.npz", IDS)
    np.savez_compressed(tmp_path / "i.npz", other=IDS * 0, semseg=IDS)
    Image.fromarray(np.stack([IDS] * 3, -1)).save(tmp_path / "j.png")
    palette = Image.fromarray(IDS, mode="L").convert("P")
    palette.putdata(IDS.flatten().tolist())
    palette.putpalette([7, 8, 9] * 256)
    palette.save(tmp_path / "k.png")
    for path in sorted(tmp_path.iterdir()):
        value, valid = SEMSEG.read(path)
        assert value.dtype == np.uint8, path
        assert np.array_equal(valid, IDS != 255), path
        assert np.array_equal(value[0][valid], IDS[valid]), path


def test_an_npz_of_several_arrays_names_them(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", left=IDS, right=IDS)
    with pytest.raises(LabelError, match=r"two\.npz holds the arrays left, right; .*'semseg'"):
        SEMSEG.read(tmp_path / "two.npz")
    (tmp_path / "text.npz").write_text("PK no zip")
    with pytest.raises(LabelError, match=r"text\.npz cannot be read"):
        SEMSEG.read(tmp_path / "text.npz")


def test_jpeg_ids_are_refused_but_jpeg_probabilities_are_read(tmp_path: Path) -> None:
    grey = np.zeros((16, 16), np.uint8)
    grey[:, 8:] = 255
    Image.fromarray(grey).save(tmp_path / "mask.jpg", quality=95)
    with pytest.raises(LabelError, match=r"mask\.jpg.*'semseg'.*JPEG.*PNG"):
        SEMSEG.read(tmp_path / "mask.jpg")
    value, valid = Binary("mask").read(tmp_path / "mask.jpg")
    assert valid.all()
    np.testing.assert_allclose(value[0], grey / 255, atol=0.02)


def test_stored_ids_are_mapped_to_classes_by_number_or_name(tmp_path: Path) -> None:
    task = build_task(
        "street",
        {"kind": "classes", "classes": ["road", "car"], "ids": {7: "road", 8: 0, 26000: "car"}, "void": [-1, 3]},
    )
    stored = np.array([[7, 8, 26000], [-1, 3, 7]], np.int32)
    np.save(tmp_path / "ids.npy", stored)
    value, valid = task.read(tmp_path / "ids.npy")
    assert valid.tolist() == [[True] * 3, [False, False, True]]
    assert value[0][valid].tolist() == [0, 0, 1, 0]
    task.write(tmp_path / "back.png", value, valid)
    with Image.open(tmp_path / "back.png") as image:
        assert np.array_equal(np.asarray(image), np.where(valid, np.where(stored == 8, 7, stored), 3))
    np.save(tmp_path / "odd.npy", np.array([[7, 9, 12]]))
    with pytest.raises(LabelError, match=r"odd\.npy.*'street'.*\[9, 12\].*one of \[7, 8, 26000\].*dataset\.yaml"):
        task.read(tmp_path / "odd.npy")


def test_void_without_a_void_id_is_written_as_alpha(tmp_path: Path) -> None:
    task = Segmentation("a", classes=("x", "y"), void=())
    value, valid = np.array([[[0, 1, 1]]], np.uint8), np.array([[True, False, True]])
    task.write(tmp_path / "a.png", value, valid)
    assert task.read(tmp_path / "a.png")[1].tolist() == valid.tolist()


# -- RGB-coded classes -------------------------------------------------------------------------------------------------
def test_colours_are_classes_in_the_order_in_which_they_are_named(tmp_path: Path) -> None:
    assert CODED.class_names() == ("none", "head", "arm")
    void = build_task("parts", CODED.spec() | {"void_colours": [[9, 9, 9]]})
    expected = np.array([[0, 1, 2], [1, -1, 0]])
    alpha = np.where(expected < 0, 0, 255).astype(np.uint8)
    Image.fromarray(COLOURS).save(tmp_path / "rgb.png")
    Image.fromarray(np.dstack([COLOURS, alpha])).save(tmp_path / "rgba.png")
    Image.fromarray(COLOURS).convert("P", palette=Image.Palette.ADAPTIVE, colors=4).save(tmp_path / "palette.png")
    np.save(tmp_path / "rgb.npy", COLOURS)
    for name in ("rgb.png", "palette.png", "rgb.npy", "rgba.png"):
        value, valid = (CODED if name == "rgba.png" else void).read(tmp_path / name)
        assert np.array_equal(np.where(valid, value[0].astype(int), -1), expected), name
    assert build_task("parts", void.spec()) == void


def test_an_unknown_colour_is_named_with_its_count(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "rgb.png")
    with pytest.raises(LabelError, match=r"rgb\.png.*'parts'.*\[9, 9, 9\] on 1 pixels \(1 unknown"):
        CODED.read(tmp_path / "rgb.png")


def test_colour_coded_files_must_be_8_bit_rgb(tmp_path: Path) -> None:
    np.save(tmp_path / "grey.npy", np.zeros((2, 3), np.uint8))
    np.save(tmp_path / "wide.npy", np.zeros((2, 3, 3), np.int64))
    Image.fromarray(np.zeros((2, 3), np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "text.png").write_text("none")
    for name in ("grey.npy", "wide.npy", "deep.png", "text.png", "missing.png"):
        with pytest.raises(LabelError, match=name):
            CODED.read(tmp_path / name)


@given(ids=arrays(np.uint8, (5, 7), elements=st.integers(0, 2)), valid=arrays(bool, (5, 7)), mapped=st.booleans())
def test_coded_labels_are_read_back_as_they_were(ids: np.ndarray, valid: np.ndarray, mapped: bool) -> None:
    sparse = build_task("parts", {"kind": "classes", "classes": ["a", "b", "c"], "ids": {900: 0, 3: 1, 77: 2}})
    task = sparse if mapped else CODED
    with tempfile.TemporaryDirectory() as folder:
        task.write(Path(folder) / "a.png", ids[None], valid)
        value, read_valid = task.read(Path(folder) / "a.png")
    assert np.array_equal(read_valid, valid)
    assert np.array_equal(value[0][valid], ids[valid])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"classes": ["a"], "colours": [[0, 0, 0], [1, 1, 1]]}, "one colour per class: 1 classes, 2 colours"),
        ({"classes": ["a", "b"], "colours": [[0, 0, 0], [0, 0, 0]]}, "a colour twice"),
        ({"classes": ["a"], "colours": [[0, 0, 0]], "void_colours": [[0, 0, 0]]}, "a colour twice"),
        ({"classes": ["a"], "colours": [[0, 0, 256]]}, r"0 to 255, found \[0, 0, 256\]"),
        ({"classes": ["a"], "colours": ["red"]}, "found 'red'"),
        ({"classes": ["a", "b"], "colours": {"a": [0, 0, 0]}}, "'b' is in one only"),
        ({"classes": ["a"], "colours": [[0, 0, 0]], "ids": {4: 0}}, "either RGB-coded or hold ids"),
        ({"classes": ["a"], "ids": {4: "aa"}}, "class 'aa' .did you mean 'a'"),
        ({"classes": ["a"], "ids": {4: 1}}, "classes 0 to 0"),
        ({"classes": ["a"], "ids": {255: 0}}, "255 is in 'ids' and in 'void'"),
        ({"classes": ["a"], "colors": []}, "did you mean 'colours'"),
    ],
    ids=str,
)
def test_wrong_codes_are_named(spec: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_task("mine", {"kind": "classes"} | spec)


# -- probabilities -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [Binary, Edge, Saliency])
def test_zero_and_one_are_probabilities_when_white_says_so(kind: type, tmp_path: Path) -> None:
    task = kind("mask", white=1, void=(255,))
    Image.fromarray(np.array([[0, 1, 255]], np.uint8)).save(tmp_path / "a.png")
    value, valid = task.read(tmp_path / "a.png")
    assert valid.tolist() == [[True, True, False]]
    assert value[0].tolist() == [[0, 1, 0]]
    # What it writes keeps soft values and is read alike.
    soft = np.array([[[0.25, 0.5, 1.0]]], np.float32)
    task.write(tmp_path / "b.png", soft, valid)
    value, valid = task.read(tmp_path / "b.npy")
    assert value[0, 0, :2].tolist() == [0.25, 0.5]
    assert valid.tolist() == [[True, True, False]]
    Image.fromarray(np.array([[0, 2]], np.uint8)).save(tmp_path / "two.png")
    with pytest.raises(LabelError, match=r"two\.png.*0 to 1.*found 0 to 2"):
        task.read(tmp_path / "two.png")
    assert build_task("mask", task.spec()) == task


def test_a_grey_mask_saved_as_rgb_or_rgba_is_one_channel(tmp_path: Path) -> None:
    grey = np.array([[0, 51, 255]], np.uint8)
    Image.fromarray(np.dstack([grey] * 3)).save(tmp_path / "rgb.png")
    Image.fromarray(np.dstack([grey] * 3 + [255 - grey])).save(tmp_path / "rgba.png")
    assert Binary("m").read(tmp_path / "rgb.png")[0][0].tolist() == pytest.approx(np.array([[0, 0.2, 1]]))
    assert Binary("m").read(tmp_path / "rgba.png")[1].tolist() == [[True, True, False]]


# -- values ------------------------------------------------------------------------------------------------------------
def test_values_of_integers_are_scaled_and_floats_are_not(tmp_path: Path) -> None:
    task = Regression("heat", minimum=-50, maximum=50, scale=0.5, offset=-100, void=(0, 9))
    stored = np.array([[0, 200, 65000], [9, 101, 1]])
    expected = np.where((stored == 0) | (stored == 9), np.nan, (stored - 100.0) * 0.5)
    Image.fromarray(stored.astype(np.uint16)).save(tmp_path / "a.png")
    Image.fromarray(stored.astype(np.uint16)).save(tmp_path / "b.tif")
    Image.fromarray(stored.astype(np.int32)).save(tmp_path / "c.tif")
    np.save(tmp_path / "d.npy", stored)
    Image.fromarray(np.where(np.isnan(expected), np.inf, expected).astype(np.float32)).save(tmp_path / "e.tif")
    np.savez(tmp_path / "f.npz", expected)
    for path in sorted(tmp_path.iterdir()):
        value, valid = task.read(path)
        assert value.dtype == np.float32
        assert np.array_equal(valid, ~np.isnan(expected)), path
        np.testing.assert_allclose(value[0][valid], expected[valid], err_msg=str(path))


def test_jpeg_values_are_refused_where_one_means_void(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 90, np.uint8)).save(tmp_path / "a.jpg")
    assert Regression("a", maximum=255).read(tmp_path / "a.jpg")[0].mean() == pytest.approx(90, abs=1)
    with pytest.raises(LabelError, match=r"a\.jpg.*JPEG"):
        Regression("a", maximum=255, void=(0,)).read(tmp_path / "a.jpg")


def test_16_bits_with_alpha_are_refused_for_they_would_lose_8(tmp_path: Path) -> None:
    png_16_bit(tmp_path / "la.png", np.full((2, 3, 2), 700))
    for task in (SEMSEG, Regression("heat"), Binary("mask")):
        with pytest.raises(LabelError, match=r"la\.png is 16-bit grey with alpha"):
            task.read(tmp_path / "la.png")


# -- unit vectors ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("frame", "matrix"),
    [
        (["x", "-y", "-z"], [[1, 0, 0], [0, -1, 0], [0, 0, -1]]),
        (["x", "z", "-y"], [[1, 0, 0], [0, 0, -1], [0, 1, 0]]),
        (["-z", "x", "y"], [[0, 1, 0], [0, 0, 1], [-1, 0, 0]]),
    ],
    ids=str,
)
def test_the_frame_says_what_the_channels_are_in_our_axes(
    frame: list[str], matrix: list[list[int]], tmp_path: Path
) -> None:
    """``matrix @ stored`` is the vector in our frame: row x has a 1 in the column of the channel that is x."""
    task = build_task("normals", {"kind": "normals", "frame": frame})
    assert isinstance(task, Normals)
    stored = np.random.default_rng(0).normal(size=(4, 5, 3))
    stored /= np.linalg.norm(stored, axis=-1, keepdims=True)
    stored[0, 0] = np.nan
    np.save(tmp_path / "n.npy", stored)
    value, valid = task.read(tmp_path / "n.npy")
    assert valid.sum() == 19
    np.testing.assert_allclose(value[:, valid].T, stored[valid] @ np.array(matrix).T, atol=1e-6)
    assert value[:, 0, 0].tolist() == [0, 0, -1]
    task.write(tmp_path / "back.png", value, valid)
    with Image.open(tmp_path / "back.png") as image:
        np.testing.assert_allclose((np.asarray(image) * (2 / 255) - 1)[valid], stored[valid], atol=0.5 / 127)
    assert np.array_equal(task.read(tmp_path / "back.png")[1], valid)
    assert build_task("normals", task.spec()) == task


@pytest.mark.parametrize("frame", [["x", "y"], ["x", "x", "z"], ["x", "y", "+z"], "xyy", ["x", "--y", "z"]], ids=str)
def test_a_frame_must_name_each_axis_once(frame: object) -> None:
    with pytest.raises(ConfigError, match="frame must have x, y and z once each"):
        build_task("normals", {"kind": "normals", "frame": frame})


def test_an_alpha_of_zero_is_void_in_normals_too(tmp_path: Path) -> None:
    rgba = np.full((1, 2, 4), [127, 127, 0, 255], np.uint8)
    rgba[0, 1, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "n.png")
    assert Normals("n").read(tmp_path / "n.png")[1].tolist() == [[True, False]]


# -- images ------------------------------------------------------------------------------------------------------------
def test_images_of_every_kind_become_8_bit_rgb(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rgb, deep = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), rng.integers(0, 65536, (6, 8), dtype=np.uint16)
    grey = rgb[..., 0]
    Image.fromarray(rgb).save(tmp_path / "rgb.png")
    Image.fromarray(np.dstack([rgb, grey])).save(tmp_path / "rgba.png")
    Image.fromarray(rgb).save(tmp_path / "rgb.tif")
    np.save(tmp_path / "rgb.npy", rgb)
    np.savez(tmp_path / "rgb.npz", rgb)
    for name in ("rgb.png", "rgba.png", "rgb.tif", "rgb.npy", "rgb.npz"):
        assert np.array_equal(read_image(tmp_path / name), rgb), name
        assert image_size(tmp_path / name) == (6, 8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.save(tmp_path / "grey.npy", grey[..., None])
    for name in ("grey.png", "grey.npy"):
        assert np.array_equal(read_image(tmp_path / name), np.dstack([grey] * 3)), name
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(deep).save(tmp_path / "deep.tif")
    np.save(tmp_path / "deep.npy", deep.astype(">u2"))
    for name in ("deep.png", "deep.tif", "deep.npy"):
        read = read_image(tmp_path / name)
        assert read.dtype == np.uint8
        assert np.array_equal(read, np.dstack([np.rint(deep / 257)] * 3)), name
    png_16_bit(tmp_path / "wide.png", np.dstack([deep] * 3))
    assert np.abs(read_image(tmp_path / "wide.png")[..., 0] - deep / 257).max() <= 1
    Image.fromarray(rgb).convert("CMYK").save(tmp_path / "cmyk.tif")
    assert read_image(tmp_path / "cmyk.tif").shape == (6, 8, 3)


def test_the_orientation_that_a_camera_noted_is_not_applied(tmp_path: Path) -> None:
    """Labels lie on the stored pixels."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (6, 8, 3)
    assert image_size(tmp_path / "a.jpg") == (6, 8)


def test_images_that_are_none_are_named(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 5), np.int32)).save(tmp_path / "int.tif")
    Image.fromarray(np.zeros((4, 5), np.float32)).save(tmp_path / "float.tif")
    np.save(tmp_path / "float.npy", np.zeros((4, 5, 3)))
    np.save(tmp_path / "many.npy", np.zeros((4, 5, 7), np.uint8))
    np.savez(tmp_path / "two.npz", a=np.zeros((4, 5), np.uint8), b=np.zeros((4, 5), np.uint8))
    (tmp_path / "text.jpg").write_text("none")
    for path in [*sorted(tmp_path.iterdir()), tmp_path / "missing.png"]:
        with pytest.raises(DataError, match=path.name.replace(".", r"\.")):
            read_image(path)


def test_torch_takes_what_is_read(tmp_path: Path) -> None:
    """Arrays in another byte order, or not writable, are refused by torch or warned of."""
    np.save(tmp_path / "a.npy", np.ones((2, 3), ">f4"))
    for task in (Regression("a"), Binary("b")):
        assert torch.from_numpy(task.read(tmp_path / "a.npy")[0]).shape == (1, 2, 3)


def test_normals_in_an_npz_of_several_arrays_can_be_examined(tmp_path: Path) -> None:
    vectors = np.zeros((4, 6, 3), np.float32)
    vectors[..., 2] = -1
    np.savez(tmp_path / "n.npz", normals=vectors, other=vectors[..., 0])
    sums = build_task("normals", {"kind": "normals"}).examine_stored(read_stored(tmp_path / "n.npz", "normals"))
    assert sums["lengths"].tolist() == [6, 0]  # a quarter of the pixels


def test_one_channel_of_floats_with_nan_is_a_plane_for_init_too(tmp_path: Path) -> None:
    plane = np.full((20, 20, 1), np.nan, np.float32)
    plane[5:] = 2.5
    np.save(tmp_path / "d.npy", plane)
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "image.png")
    look = scan_files([(tmp_path / "d.npy", tmp_path / "image.png")], "depth")
    assert (look.files, look.channels, look.middle) == (1, 1, 2.5)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_class_ids_of_floats_are_read_without_a_warning(dtype: type, tmp_path: Path) -> None:
    stored = IDS.astype(dtype)
    stored[0, 0] = np.nan
    np.save(tmp_path / "a.npy", stored)
    value, valid = SEMSEG.read(tmp_path / "a.npy")
    assert np.array_equal(valid, (IDS != 255) & ~np.isnan(stored))
    assert np.array_equal(value[0][valid], IDS[valid])
    stored[0, 1] = np.inf
    np.save(tmp_path / "a.npy", stored)
    with pytest.raises(LabelError, match=f"whole class ids, found inf.*{np.dtype(dtype)}"):
        SEMSEG.read(tmp_path / "a.npy")
