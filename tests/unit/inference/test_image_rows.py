"""Images that are read by rows: the pixels of the array that was written, whatever the layout; bad files are named."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from tasktokens.datasets.index import read_image
from tasktokens.errors import DataError
from tasktokens.inference import image_rows
from tasktokens.inference.image_rows import ArrayRows, open_rows

SHAPE = (70, 101)
LAYOUTS: dict[str, dict[str, Any]] = {
    "tiles": {"tile": (32, 48)},
    "deflated tiles": {"tile": (32, 48), "compression": "zlib"},
    "LZW, differences": {"tile": (16, 16), "compression": "lzw", "predictor": 2},
    "strips": {"rowsperstrip": 7},
    "deflated strips": {"rowsperstrip": 7, "compression": "zlib"},
    "one strip": {"rowsperstrip": 1000},
    "big endian": {"byteorder": ">", "rowsperstrip": 7},
    "BigTIFF": {"bigtiff": True, "tile": (16, 16)},
    "planes in strips": {"planarconfig": "separate", "rowsperstrip": 7},
    "planes in deflated tiles": {"planarconfig": "separate", "tile": (32, 32), "compression": "zlib"},
}


def draw(channels: int, dtype: str = "uint8") -> Any:
    shape = SHAPE if channels == 1 else (*SHAPE, channels)
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


def as_rgb8(array: Any) -> Any:
    """What the pixels are as 8-bit RGB, by the rules of docs/reference/data.md."""
    if array.dtype == np.uint16:
        array = np.rint(array / 257).astype(np.uint8) if array.ndim == 2 else (array // 256).astype(np.uint8)
    return np.stack([array] * 3, axis=-1) if array.ndim == 2 else array[..., :3]


def write_tiff(path: Path, array: Any, **layout: Any) -> Path:
    stored = np.moveaxis(array, -1, 0) if layout.get("planarconfig") == "separate" else array
    colours = {"photometric": "rgb"} if array.ndim == 3 else {"photometric": "minisblack"}
    extra = {"extrasamples": ["unassalpha"]} if array.shape[-1] == 4 else {}
    tifffile.imwrite(path, stored, **colours, **extra, **layout)
    return path


def read_in_parts(path: Path) -> Any:
    with open_rows(path) as image:
        assert (image.height, image.width) == SHAPE
        return np.concatenate([image.rows(0, 11), image.rows(11, 12), image.rows(12, 55), image.rows(55, 70)])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_tiff_gives_the_pixels_that_were_written(layout: str, channels: int, dtype: str, tmp_path: Path) -> None:
    if channels == 1 and "planes" in layout:
        pytest.skip("grey is one plane")
    array = draw(channels, dtype)
    path = write_tiff(tmp_path / "a.tif", array, **LAYOUTS[layout])
    np.testing.assert_array_equal(read_in_parts(path), as_rgb8(array))
    with open_rows(path) as image:
        assert not isinstance(image, ArrayRows)


@pytest.mark.parametrize("mode", ["P", "1", "CMYK", "LA"])
def test_other_kinds_of_tiff_are_what_they_are_without_tiles(mode: str, tmp_path: Path) -> None:
    Image.fromarray(draw(3)).convert(mode).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_in_parts(tmp_path / "a.tif"), read_image(tmp_path / "a.tif"))


def test_jpeg_within_a_tiff_is_rgb(tmp_path: Path) -> None:
    smooth = np.asarray(Image.fromarray(draw(3)).resize((3, 2)).resize(SHAPE[::-1], Image.Resampling.BICUBIC))
    tifffile.imwrite(tmp_path / "a.tif", smooth, tile=(64, 64), compression="jpeg", photometric="ycbcr")
    found = read_in_parts(tmp_path / "a.tif").astype(int)
    assert np.abs(found - read_image(tmp_path / "a.tif")).max() <= 4  # two decoders
    assert np.abs(found - smooth).mean() < 4


@pytest.mark.parametrize("ending", [".png", ".jpg", ".bmp", ".npy", ".webp"])
def test_other_files_give_the_pixels_of_read_image(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{ending}"
    np.save(path, draw(3)) if ending == ".npy" else Image.fromarray(draw(3)).save(path)
    np.testing.assert_array_equal(read_in_parts(path), read_image(path))


@pytest.mark.parametrize(("shape", "dtype"), [(SHAPE, "uint8"), (SHAPE, ">u2"), ((*SHAPE, 4), "uint8")])
def test_an_npy_is_read_by_rows(shape: tuple[int, ...], dtype: str, tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 255, shape).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(read_in_parts(tmp_path / "a.npy"), read_image(tmp_path / "a.npy"))
    with open_rows(tmp_path / "a.npy") as image:
        assert not isinstance(image, ArrayRows)


def test_orientation_and_pages_are_told_and_not_applied(tmp_path: Path) -> None:
    array = draw(3)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for number in range(2):
            turned = [(274, "H", 1, 6, True)]
            writer.write(array if number == 0 else array[:30], photometric="rgb", extratags=turned, metadata=None)
        writer.write(array[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)  # a smaller copy
    with open_rows(tmp_path / "a.tif") as image:
        assert (image.orientation, image.frames) == (6, 2)
    np.testing.assert_array_equal(read_in_parts(tmp_path / "a.tif"), array)


# -- what cannot be read -----------------------------------------------------------------------------------------------
def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.tif does not exist"), open_rows(tmp_path / "no.tif"):
        pass


@pytest.mark.parametrize("layout", ["deflated tiles", "deflated strips", "one strip", "strips"])
def test_a_damaged_tiff_is_named(layout: str, tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", draw(3), **LAYOUTS[layout])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"a\.tif cannot be read"):
        read_in_parts(path)


def test_a_short_npy_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", draw(3))
    data = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(data[:-100])
    with pytest.raises(DataError, match=r"a\.npy cannot be read \(its header claims"):
        read_in_parts(tmp_path / "a.npy")


def test_only_what_is_decoded_at_a_time_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = draw(3)
    monkeypatch.setenv("TASKTOKENS_MAX_PIXELS", str(20 * 128))
    tiled = write_tiff(tmp_path / "a.tif", array, tile=(16, 16), compression="zlib")
    np.testing.assert_array_equal(read_in_parts(tiled), array)
    raw = write_tiff(tmp_path / "b.tif", array, rowsperstrip=1000)
    np.testing.assert_array_equal(read_in_parts(raw), array)
    packed = write_tiff(tmp_path / "c.tif", array, rowsperstrip=1000, compression="zlib")
    with pytest.raises(DataError, match=r"pieces of 101x70 pixels.*save it in tiles"):
        read_in_parts(packed)
    Image.fromarray(array).save(tmp_path / "d.png")
    with pytest.raises(DataError, match=r"claims 101x70 pixels.*save it as a tiled TIFF"):
        read_in_parts(tmp_path / "d.png")
    monkeypatch.setenv("TASKTOKENS_MAX_PIXELS", "100")
    with pytest.raises(DataError, match="more than 6400"):
        read_in_parts(tiled)


def test_without_tifffile_small_ones_are_read_and_large_ones_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tifffile", None)
    path = tmp_path / "a.tif"
    Image.fromarray(draw(3)).save(path)
    np.testing.assert_array_equal(read_in_parts(path), draw(3))
    monkeypatch.setenv("TASKTOKENS_MAX_PIXELS", "1000")
    with pytest.raises(DataError, match=r"pip install 'tasktokens\[tiles\]'"):
        read_in_parts(path)


def test_sizes_at_which_no_file_is_meant_are_refused() -> None:
    with pytest.raises(ValueError, match="no pixels"):
        image_rows._check_size(0, 5)
