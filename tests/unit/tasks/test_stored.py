"""What label files store, for every kind of task, ending and type of number; the truth is written down with NumPy."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from tasktokens.errors import LabelError
from tasktokens.tasks import build_task

YES_NO = ("binary", "edge", "saliency")
CLASSES = {"kind": "classes", "classes": [f"c{i}" for i in range(256)], "void": []}
CODED = {"kind": "classes", "colours": {f"c{i}": [i, i, i] for i in range(256)}}
AMOUNTS = ({"kind": "depth", "scale": 1.0, "range": [1, 255]}, {"kind": "regression", "range": [0, 255]})
WITH_VOID = {"kind": "regression", "range": [0, 255], "void": [0]}
EXACT = (CLASSES, CODED, {"kind": "normals"}, {"kind": "vectors"}, AMOUNTS[0], WITH_VOID)
WHITE = tuple({"kind": kind, "white": 3} for kind in YES_NO)


def short(spec: dict[str, Any]) -> str:
    return "-".join([spec["kind"], *(name for name in spec if name in ("colours", "void", "white"))])


def palette_file(path: Path, indices: np.ndarray, colours: np.ndarray, **options: Any) -> None:
    image = Image.fromarray(indices, mode="L").convert("P")
    image.putdata(indices.flatten().tolist())
    image.putpalette(colours.astype(np.uint8).flatten().tolist())
    assert image.mode == "P"
    image.save(path, **options)


# -- palettes ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("ending", ["png", "bmp", "gif", "tif"])
@pytest.mark.parametrize("kind", YES_NO)
@given(indices=arrays(np.uint8, (4, 5), elements=st.integers(0, 3)), greys=st.permutations([0, 40, 200, 255]))
def test_the_grey_of_a_palette_is_the_probability_whatever_the_index(
    kind: str, ending: str, indices: np.ndarray, greys: list[int]
) -> None:
    table = np.array(greys)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{ending}"
        palette_file(path, indices, np.repeat(table[:, None], 3, axis=1))
        value, valid = build_task("m", {"kind": kind}).read(path)
    assert valid.all()
    np.testing.assert_allclose(value[0], table[indices] / 255, atol=1e-6)


@pytest.mark.parametrize("ending", ["png", "bmp", "gif", "tif"])
@pytest.mark.parametrize("spec", AMOUNTS, ids=short)
def test_the_grey_of_a_palette_is_the_amount(spec: dict[str, Any], ending: str, tmp_path: Path) -> None:
    indices, table = np.array([[0, 1, 2], [2, 1, 0]], np.uint8), np.array([200, 7, 90])
    palette_file(tmp_path / f"a.{ending}", indices, np.repeat(table[:, None], 3, axis=1))
    np.testing.assert_allclose(build_task("m", spec).read(tmp_path / f"a.{ending}")[0][0], table[indices])


@pytest.mark.parametrize("ending", ["png", "bmp", "gif", "tif"])
def test_of_a_palette_classes_take_the_index_and_colour_codes_and_vectors_the_colour(
    ending: str, tmp_path: Path
) -> None:
    indices = np.array([[0, 1, 2], [2, 2, 1]], np.uint8)
    colours = np.array([[255, 128, 128], [128, 255, 128], [128, 128, 0]], np.uint8)
    path = tmp_path / f"a.{ending}"
    palette_file(path, indices, colours)
    assert np.array_equal(build_task("m", CLASSES).read(path)[0][0], indices)
    coded = build_task("m", {"kind": "classes", "colours": dict(zip("cba", colours[::-1].tolist(), strict=True))})
    assert np.array_equal(coded.read(path)[0][0], 2 - indices)
    for kind in ("normals", "vectors"):
        vectors = colours[indices] / 127.5 - 1
        found = np.moveaxis(build_task("m", {"kind": kind}).read(path)[0], 0, -1)
        np.testing.assert_allclose(found, vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize("ending", ["png", "bmp", "gif", "tif"])
@pytest.mark.parametrize("spec", [*({"kind": kind} for kind in YES_NO), *AMOUNTS], ids=short)
def test_a_palette_of_colours_says_no_grey(spec: dict[str, Any], ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    palette_file(path, np.array([[0, 1]], np.uint8), np.array([[0, 0, 0], [128, 0, 0]]))
    with pytest.raises(LabelError, match=r"a\..*'m' has a palette with the colour \[128, 0, 0\].*save it as grey"):
        build_task("m", spec).read(path)
    # A colour that no pixel has does not matter.
    palette_file(path, np.array([[0, 0]], np.uint8), np.array([[9, 9, 9], [128, 0, 0]]))
    build_task("m", spec).read(path)


# -- transparency ------------------------------------------------------------------------------------------------------
def transparent_files(folder: Path, values: np.ndarray, clear: int) -> dict[str, np.ndarray]:
    """Files of the grey ``values`` below 4, transparent where they are ``clear``; what each should leave valid."""
    ramp = np.repeat(np.arange(4)[:, None], 3, axis=1)
    alpha = np.where(values == clear, 0, 255).astype(np.uint8)
    table = bytes([0 if i == clear else 200 for i in range(4)])
    palette_file(folder / "index.png", values, ramp, transparency=clear)
    palette_file(folder / "table.png", values, ramp, transparency=table)
    palette_file(folder / "index.gif", values, ramp, transparency=clear)
    Image.fromarray(values).save(folder / "key.png", transparency=clear)
    Image.fromarray(np.dstack([values] * 3)).save(folder / "rgb-key.png", transparency=(clear,) * 3)
    for ending in ("png", "tif"):
        Image.fromarray(np.dstack([values, alpha])).save(folder / f"la.{ending}")
        Image.fromarray(np.dstack([values] * 3 + [alpha])).save(folder / f"rgba.{ending}")
    Image.fromarray(np.dstack([values] * 3 + [alpha])).save(folder / "rgba.webp", lossless=True, exact=True)
    return {path.name: values != clear for path in folder.iterdir()}


@pytest.mark.parametrize("clear", [0, 2])
@pytest.mark.parametrize("spec", [CLASSES, CODED, *WHITE, *AMOUNTS], ids=short)
def test_what_is_transparent_is_void_in_every_kind(spec: dict[str, Any], clear: int, tmp_path: Path) -> None:
    values = np.array([[0, 1, 2, 3], [3, 2, 1, 0]], np.uint8)
    task = build_task("m", spec)
    for name, valid in transparent_files(tmp_path, values, clear).items():
        found, found_valid = task.read(tmp_path / name)
        expected = valid & (values != 0) if spec["kind"] == "depth" else valid
        assert np.array_equal(found_valid, expected), name
        true = values / 3 if "white" in spec else values
        np.testing.assert_allclose(found[0][expected], true[expected], atol=1e-6, err_msg=name)


def test_one_bit_files_are_ids_and_masks(tmp_path: Path) -> None:
    mask = np.array([[True, False, True]])
    for name in ("a.png", "a.tif", "a.bmp"):
        Image.fromarray(mask).save(tmp_path / name)
    np.save(tmp_path / "a.npy", mask)
    for path in sorted(tmp_path.iterdir()):
        assert build_task("m", CLASSES).read(path)[0][0].tolist() == [[1, 0, 1]], path
        for kind in YES_NO:
            assert build_task("m", {"kind": kind}).read(path)[0][0].tolist() == [[1, 0, 1]], path


@pytest.mark.parametrize("bits", [2, 4])
def test_numbers_of_grey_with_few_bits_could_be_read_in_two_ways(bits: int, tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def write(rows: bytes) -> None:
        header = struct.pack(">IIBBBBB", 8 // bits, 1, bits, 0, 0, 0, 0)
        body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + rows)) + chunk(b"IEND", b"")
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)

    write(b"\x1b" if bits == 2 else b"\x1f")
    for spec in (CLASSES, AMOUNTS[0]):
        with pytest.raises(LabelError, match=rf"a\.png.*grey of {bits} bits.*save it with 8 bits"):
            build_task("m", spec).read(tmp_path / "a.png")
    shown = np.array([0, 1, 2, 3]) / 3 if bits == 2 else np.array([1, 15]) / 15
    np.testing.assert_allclose(build_task("m", {"kind": "binary"}).read(tmp_path / "a.png")[0][0, 0], shown)
    write(b"\0")
    assert not build_task("m", CLASSES).read(tmp_path / "a.png")[0].any()


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB"])
def test_other_colour_modes_are_refused(mode: str, tmp_path: Path) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "a.tif")
    for spec in (CLASSES, {"kind": "binary"}, {"kind": "normals"}):
        with pytest.raises(LabelError, match=rf"a\.tif has the colour mode {mode}"):
            build_task("m", spec).read(tmp_path / "a.tif")


# -- lossy content -----------------------------------------------------------------------------------------------------
def lossy_bytes(form: str, picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    if form == "TIFF":
        picture.save(buffer, "TIFF", compression="jpeg")
    elif form == "JPEG2000":
        picture.save(buffer, form, irreversible=True)
    else:
        picture.save(buffer, form, quality=90)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "JPEG2000", "TIFF"])
@pytest.mark.parametrize("ending", ["png", "tif", "jpg", "webp", "bmp", "gif"])
def test_lossy_content_is_refused_for_exact_kinds_under_any_ending(form: str, ending: str, tmp_path: Path) -> None:
    grey = np.zeros((16, 16), np.uint8)
    grey[4:12, 4:12] = 255
    for picture in (Image.fromarray(grey), Image.fromarray(np.dstack([grey] * 3))):
        path = tmp_path / f"a.{ending}"
        path.write_bytes(lossy_bytes(form, picture))
        for spec in EXACT:
            with pytest.raises(LabelError, match=rf"a\.{ending} of task 'm' is a .* by its content, whose compression"):
                build_task("m", spec).read(path)
        for kind in YES_NO:
            value, valid = build_task("m", {"kind": kind}).read(path)
            assert valid.all()
            np.testing.assert_allclose(value[0], grey / 255, atol=0.1)


def test_lossless_content_is_read_under_any_ending(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 9, (12, 16), dtype=np.uint8)
    forms: dict[str, dict[str, Any]] = {"PNG": {}, "BMP": {}, "GIF": {}, "WEBP": {"lossless": True}, "TIFF": {}}
    for form, options in forms.items():
        Image.fromarray(ids).save(tmp_path / "a.jpg", form, **options)
        assert np.array_equal(build_task("m", CLASSES).read(tmp_path / "a.jpg")[0][0], ids), form
    for compression in ("tiff_lzw", "tiff_deflate", "packbits"):
        Image.fromarray(ids).save(tmp_path / "a.tif", compression=compression)
        assert np.array_equal(build_task("m", CLASSES).read(tmp_path / "a.tif")[0][0], ids), compression


def test_jpeg_2000_of_the_reversible_wavelet_may_have_left_out_bits(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 9, (64, 64), dtype=np.uint8)
    for ending, options in (("png", {}), ("tif", {"quality_mode": "rates", "quality_layers": [8]})):
        path = tmp_path / f"a.{ending}"
        Image.fromarray(ids).save(path, "JPEG2000", irreversible=False, **options)
        assert np.array_equal(np.asarray(Image.open(path)), ids) == (not options)
        with pytest.raises(LabelError, match="possibly lossy JPEG 2000"):
            build_task("m", CLASSES).read(path)


# -- pages -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("ending", ["tif", "gif", "png", "webp"])
@pytest.mark.parametrize("spec", [*EXACT, {"kind": "binary"}], ids=short)
def test_several_pages_are_no_label(spec: dict[str, Any], ending: str, tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((4, 5), i * 80, np.uint8)) for i in range(3)]
    options = {"lossless": True} if ending == "webp" else {}
    pages[0].save(tmp_path / f"a.{ending}", save_all=True, append_images=pages[1:], **options)
    with pytest.raises(LabelError, match=rf"a\.{ending} holds 3 pages or frames"):
        build_task("m", spec).read(tmp_path / f"a.{ending}")


def test_smaller_copies_of_a_page_are_no_further_pages(tmp_path: Path) -> None:
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    ids = np.arange(16, dtype=np.uint8).reshape(4, 4)
    overview = Image.fromarray(ids[::2, ::2])
    info = ImageFileDirectory_v2()
    info[254] = 1
    overview.encoderinfo = {"tiffinfo": info}
    Image.fromarray(ids).save(tmp_path / "a.tif", save_all=True, append_images=[overview])
    assert np.array_equal(build_task("m", CLASSES).read(tmp_path / "a.tif")[0][0], ids)
