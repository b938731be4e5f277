"""Files that are written row by row hold what was given to them, read by NumPy and Pillow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasktokens.errors import WriteError
from tasktokens.utils import rows
from tasktokens.utils.rows import NpyRows, PngRows


@pytest.mark.parametrize(
    ("dtype", "channels"), [("uint8", ()), ("uint16", ()), ("uint8", (2,)), ("uint8", (3,)), ("uint8", (4,))]
)
@pytest.mark.parametrize("height", [1, 37])
def test_a_png_is_read_back(
    dtype: str, channels: tuple[int, ...], height: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "_BLOCK", 500)  # several chunks
    array = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (height, 23, *channels), dtype=dtype)
    writer = PngRows(tmp_path / "new" / "a.png", array.shape, dtype)
    for top in range(0, height, 10):
        writer.add(array[top : top + 10])
    writer.close()
    with Image.open(tmp_path / "new" / "a.png") as image:
        image.verify()  # the checksums
    with Image.open(tmp_path / "new" / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), array)


def test_label_maps_are_about_as_small_as_by_pillow(tmp_path: Path) -> None:
    array = np.zeros((300, 400), np.uint8)
    array[80:200, 50:300], array[150:280, 120:220] = 3, 7
    writer = PngRows(tmp_path / "a.png", array.shape, np.uint8)
    writer.add(array)
    writer.close()
    Image.fromarray(array).save(tmp_path / "b.png", compress_type=3)
    assert (tmp_path / "a.png").stat().st_size < 2 * (tmp_path / "b.png").stat().st_size


def test_an_npy_is_read_back(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    writer = NpyRows(tmp_path / "a.npy", array.shape, np.float32)
    writer.add(array[:4])
    writer.add(array[4:])
    writer.close()
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), array)


def test_rows_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    writer = PngRows(tmp_path / "a.png", (4, 5), np.uint8)
    for wrong in (np.zeros((1, 6), np.uint8), np.zeros((1, 5), np.uint16), np.zeros((5, 5), np.uint8)):
        with pytest.raises(ValueError, match="were expected"):
            writer.add(wrong)
    with pytest.raises(ValueError, match="4 rows"):
        writer.close()
    writer.abandon()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
def test_a_full_disk_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.npy").symlink_to("/dev/full")
    with pytest.raises(WriteError, match="no space"):  # noqa: PT012, when the buffer is written is up to Python
        writer = NpyRows(tmp_path / "a.npy", (3000, 1000), np.uint8)
        writer.add(np.zeros((3000, 1000), np.uint8))
        writer.close()
