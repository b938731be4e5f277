"""Label files of 1, 2, 4, 16 and 32 bits: the number that the file holds, or a refusal; never what a decoder made."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasktokens.errors import LabelError
from tasktokens.tasks import build_task

CLASSES = {"kind": "classes", "classes": list("abcd")}
DEPTH = {"kind": "depth", "range": [0.1, 10]}
AMOUNT = {"kind": "regression", "range": [0, 4e9]}
EXACT = [CLASSES, DEPTH, AMOUNT, {"kind": "classes", "colours": {"a": [0, 0, 0], "b": [1, 1, 1]}}]


def packed(values: list[int], bits: int) -> bytes:
    text = "".join(format(value, f"0{bits}b") for value in values)
    text += "0" * (-len(text) % 8)
    return bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8))


def png(path: Path, width: int, bits: int, colour_type: int, row: bytes, clear: bytes | None = None) -> Path:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, bits, colour_type, 0, 0, 0))
    key = b"" if clear is None else chunk(b"tRNS", clear)
    data = chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + key + data)
    return path


def tiff(path: Path, row: np.ndarray, sample_format: int) -> Path:
    data = row.tobytes()
    tags = [(256, row.size), (257, 1), (258, row.itemsize * 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1),
            (279, len(data)), (339, sample_format)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    at = struct.pack("<I", 8 + len(data))
    path.write_bytes(b"II*\0" + at + data + struct.pack("<H", len(tags)) + entries + bytes(4))
    return path


@pytest.mark.parametrize("ending", ["png", "bmp"])
def test_of_one_bit_the_set_pixels_are_class_1_not_the_void_255(ending: str, tmp_path: Path) -> None:
    ids = np.array([[0, 1, 1, 0], [1, 0, 0, 1]], bool)
    path = tmp_path / f"a.{ending}"
    from PIL import Image

    Image.fromarray(ids).save(path)
    assert Image.open(path).mode == "1"
    value, valid = build_task("t", CLASSES).read(path)
    assert valid.all()
    np.testing.assert_array_equal(value[0], ids)
    void = build_task("t", {"kind": "regression", "range": [0, 1], "void": [1]})
    np.testing.assert_array_equal(void.read(path)[1], ~ids)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("kind", ["binary", "edge", "saliency"])
def test_the_transparent_grey_is_void_whatever_the_bits(kind: str, bits: int, tmp_path: Path) -> None:
    most = 2**bits - 1
    values = [0, most, most // 3, 1, 0]
    path = png(tmp_path / "a.png", 5, bits, 0, packed(values, bits), struct.pack(">H", values[2]))
    value, valid = build_task("t", {"kind": kind}).read(path)
    np.testing.assert_array_equal(valid[0], np.array(values) != values[2])
    np.testing.assert_allclose(value[0, 0][valid[0]], (np.array(values) / most)[valid[0]], atol=1e-6)


@pytest.mark.parametrize("spec", EXACT, ids=lambda spec: "-".join(list(spec)[:2]))
@pytest.mark.parametrize("colour_type", [2, 6])
@pytest.mark.parametrize("values", [[0, 1, 2, 3], [0, 1000, 2000, 300], [0, 257, 514, 771]])
def test_colours_of_16_bits_are_no_numbers(
    spec: dict[str, Any], colour_type: int, values: list[int], tmp_path: Path
) -> None:
    row = b"".join(struct.pack(">HHHH", *[v] * 3, 65535)[: 2 * (3 + (colour_type == 6))] for v in values)
    path = png(tmp_path / "a.png", 4, 16, colour_type, row)
    with pytest.raises(LabelError, match=r"'t' has colour channels of 16 bits.*save it as 16-bit grey"):
        build_task("t", spec).read(path)


def test_normals_of_16_bits_are_read_to_a_degree(tmp_path: Path) -> None:
    vectors = np.array([[0, 0, -1], [0.6, 0, -0.8], [0, -0.6, -0.8]])
    row = np.rint((vectors + 1) / 2 * 65535).astype(">u2").tobytes()
    path = png(tmp_path / "a.png", 3, 16, 2, row)
    value, valid = build_task("t", {"kind": "normals"}).read(path)
    assert valid.all()
    assert (np.degrees(np.arccos((value[:, 0].T * vectors).sum(1).clip(-1, 1))) < 1).all()


@pytest.mark.parametrize("most", [1, 3, 15, 100, 254, 1023, 4095])
@pytest.mark.parametrize("spec", EXACT[:3], ids=lambda spec: spec["kind"])
def test_a_pgm_with_a_maximum_of_its_own_is_refused_and_is_a_mask(
    spec: dict[str, Any], most: int, tmp_path: Path
) -> None:
    values = np.array([0, most, 1, 0])
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 4 1 %d\n" % most + values.astype(">u2" if most > 255 else np.uint8).tobytes())
    with pytest.raises(LabelError, match=f"maximum {most}"):
        build_task("t", spec).read(path)
    if most < 256:
        value, _ = build_task("t", {"kind": "binary"}).read(path)
        np.testing.assert_allclose(value[0, 0], values / most, atol=1 / 255)


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32, np.uint8, np.uint16, np.uint32])
def test_a_tiff_of_integers_has_the_numbers_that_its_type_says(kind: Any, tmp_path: Path) -> None:
    limits = np.iinfo(kind)
    row = np.array([limits.min, limits.max, limits.max // 2 + 1, 5], np.int64).astype(kind)
    path = tiff(tmp_path / "a.tif", row, 2 if limits.min else 1)
    spec = {"kind": "regression", "range": [-4e9, 5e9]}
    np.testing.assert_array_equal(build_task("t", spec).read(path)[0][0, 0], row.astype(np.float32))
    for void in (limits.min, limits.max):
        _, valid = build_task("t", spec | {"void": [int(void)]}).read(path)
        np.testing.assert_array_equal(valid[0], row != void)
