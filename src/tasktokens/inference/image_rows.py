"""Images that are read from top to bottom, some rows at a time: what fits no memory is never decoded whole.

| file | what is in memory |
|---|---|
| TIFF, also BigTIFF, of strips or tiles: grey or RGB(A) of 8 or 16 bits | the rows that are asked for, and a row of strips or tiles |
| npy of (H, W) or (H, W, 1, 3 or 4), uint8 or uint16 | the rows that are asked for |
| any other, and TIFF of other kinds | all of it: three bytes per pixel, more while it is decoded |

Pixels are those of `tasktokens.datasets.index.read_image`: as they are stored, 16 bits as 8, grey as RGB, without alpha.
"""  # noqa: E501

from __future__ import annotations

import math
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tasktokens.datasets.index import picture_facts, read_image
from tasktokens.errors import DataError, TaskTokensError
from tasktokens.tasks.base import Array
from tasktokens.utils.pixels import as_rgb
from tasktokens.utils.safe_io import MAX_PIXELS, check_pixels, limit, require_regular_file

LARGER = 64
"""An image that is read by rows may have so many times the pixels of one that is decoded whole."""


class ImageRows(ABC):
    """An image that is read by rows.

    Attributes:
        height, width: in pixels.
        orientation: its EXIF orientation, which is not applied.
        frames: pages or frames, of which this is the first.
    """

    height: int
    width: int
    orientation: int = 1
    frames: int = 1

    @abstractmethod
    def rows(self, top: int, bottom: int) -> Array:
        """Rows ``top`` to ``bottom``, (n, W, 3) uint8 RGB. Raises `DataError` where they cannot be read."""


class ArrayRows(ImageRows):
    """An image that is in memory, (H, W, 3) uint8."""

    def __init__(self, image_HW3: Array) -> None:
        self.image = image_HW3
        self.height, self.width = image_HW3.shape[:2]

    def rows(self, top: int, bottom: int) -> Array:
        """A view of them."""
        return self.image[top:bottom]


@contextmanager
def open_rows(path: Path) -> Iterator[ImageRows]:
    """Open an image file; see the module for what is in memory meanwhile. Raises `DataError` naming the file."""
    try:
        if path.suffix.lower() == ".npy" and (stored := _NpyRows.of(path)) is not None:
            yield stored
            return
        if _is_tiff(path):
            with _open_tiff(path) as tiff:
                if tiff is not None:
                    yield tiff
                    return
        whole = ArrayRows(read_image(path))
    except FileNotFoundError as error:
        raise DataError(f"image {path} does not exist") from error
    except TaskTokensError as error:
        raise _with_hint(error, path) from error
    except (OSError, ValueError) as error:
        raise DataError(f"image {path} cannot be read ({error}); replace it or remove it") from error
    facts = picture_facts(path)
    whole.orientation, whole.frames = facts.orientation, facts.frames
    yield whole


def _with_hint(error: TaskTokensError, path: Path) -> TaskTokensError:
    """What to do about an image that is too large to be decoded whole."""
    if MAX_PIXELS not in str(error):
        return error
    if not _is_tiff(path):
        return DataError(f"{error}, or save it as a tiled TIFF, which is read by rows")
    try:
        import tifffile  # noqa: F401
    except ImportError:
        return DataError(f"{error}, or read it by rows: pip install 'tasktokens[tiles]'")
    return error


def _check_size(height: int, width: int) -> None:
    """Raise `ValueError` for an empty image, and for more pixels than anybody has: writing them would fill the disk."""
    if height < 1 or width < 1:
        raise ValueError("it has no pixels")
    most = LARGER * limit(MAX_PIXELS)
    if height * width > most:
        raise ValueError(
            f"it claims {width}x{height} pixels, more than {most}; if that is meant, set {MAX_PIXELS} higher"
        )


class _NpyRows(ImageRows):
    """An npy in the order of C, from which rows are read."""

    def __init__(self, path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.path, self.offset, self.shape, self.dtype = path, offset, shape, dtype
        self.height, self.width = shape[:2]

    @staticmethod
    def of(path: Path) -> _NpyRows | None:
        """None for an npy of another kind, which `read_image` takes or refuses."""
        require_regular_file(path)
        with path.open("rb") as file:
            if np.lib.format.read_magic(file) != (1, 0):
                return None
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
            offset = file.tell()
        known = dtype.newbyteorder("=") in (np.uint8, np.uint16)
        if fortran or not known or len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
            return None
        _check_size(*shape[:2])
        if offset + math.prod(shape) * dtype.itemsize > path.stat().st_size:
            raise ValueError(f"its header claims the shape {shape}, for which the file is too short")
        return _NpyRows(path, offset, shape, dtype)

    def rows(self, top: int, bottom: int) -> Array:
        """Read from the file."""
        shape = (bottom - top, *self.shape[1:])
        before = top * math.prod(self.shape[1:]) * self.dtype.itemsize
        found = np.fromfile(self.path, self.dtype, math.prod(shape), offset=self.offset + before)
        return as_rgb(found.reshape(shape), f"image {self.path}")


# -- TIFF --------------------------------------------------------------------------------------------------------------
_CONTIGUOUS, _JPEG, _ASSOCIATED = 1, 7, 1
_MIN_IS_BLACK, _RGB, _YCBCR = 1, 2, 6
_ORIENTATION, _NONE = 274, 1
_FEW_PAGES = 64


def _is_tiff(path: Path) -> bool:
    require_regular_file(path)
    with path.open("rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@contextmanager
def _open_tiff(path: Path) -> Iterator[ImageRows | None]:
    """The first page of a TIFF; None without tifffile, and of a kind that Pillow has to convert."""
    try:
        from tifffile import TiffFile
    except ImportError:
        yield None
        return
    with _open_or_none(TiffFile, path) as tiff:
        page = None if tiff is None else tiff.pages[0]
        yield None if tiff is None or not _is_plain(page) else _TiffRows(path, tiff, page)


@contextmanager
def _open_or_none(opening: Any, path: Path) -> Iterator[Any]:
    """An open TIFF, or None for one whose structure is damaged, which Pillow may read or names."""
    try:
        tiff = opening(path)
        tiff.pages[0].shape  # noqa: B018, reads its tags
    except (ValueError, KeyError, IndexError, TypeError, ZeroDivisionError, struct.error):  # all that damage leads to
        yield None
        return
    with tiff:
        yield tiff


def _is_plain(page: Any) -> bool:
    """Whether Pillow would give the stored numbers themselves."""
    colours = page.photometric in (_MIN_IS_BLACK, _RGB) or (page.photometric == _YCBCR and page.compression == _JPEG)
    samples = 1 if page.photometric == _MIN_IS_BLACK else 3
    extra = page.samplesperpixel - samples
    return bool(
        colours
        and page.dtype in (np.uint8, np.uint16)
        and page.bitspersample == page.dtype.itemsize * 8
        and (extra == 0 or (samples == 3 and extra == 1 and _ASSOCIATED not in page.extrasamples))
        and page.imagedepth == 1
        and page.imagelength * page.imagewidth
    )


class _TiffRows(ImageRows):
    """A page of a TIFF, of which one row of strips or tiles is decoded at a time; the last one is kept."""

    def __init__(self, path: Path, tiff: Any, page: Any) -> None:
        self.path, self.file, self.page = path, tiff.filehandle, page
        self.height, self.width = page.imagelength, page.imagewidth
        _check_size(self.height, self.width)
        self.orientation = int(page.tags.valueof(_ORIENTATION, 1))
        self.frames = _page_count(tiff)
        self.separate = page.planarconfig != _CONTIGUOUS and page.samplesperpixel > 1
        self.is_raw = page.compression == _NONE and not page.is_tiled and page.fillorder == 1
        self.piece = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, self.width)
        self.piece = (min(self.piece[0], self.height) if not page.is_tiled else self.piece[0], self.piece[1])
        if not self.is_raw:
            self._check_piece()
        self.tables = None if self.is_raw else page.jpegtables
        self._number, self._decoded = -1, np.empty(0)

    def _check_piece(self) -> None:
        """What is decoded at a time must fit into memory."""
        try:
            check_pixels(self.piece[0], -(-self.width // self.piece[1]) * self.piece[1])
        except ValueError as error:
            raise DataError(
                f"image {self.path} is compressed in pieces of {self.piece[1]}x{self.piece[0]} pixels, too large for "
                f"memory; save it in tiles (gdal_translate -co TILED=YES, or vips tiffsave --tile)"
            ) from error

    def rows(self, top: int, bottom: int) -> Array:
        """Of the strips or tiles that they lie in."""
        length, parts = self.piece[0], []
        while top < bottom:
            number = top // length
            end = min(bottom, (number + 1) * length)
            inside = slice(top - number * length, end - number * length)
            parts.append(self._rgb(self._read(number, inside)))
            top = end
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _rgb(self, found_nWC: Array) -> Array:
        if found_nWC.shape[2] > 1 and found_nWC.dtype.itemsize == 2:
            found_nWC = (found_nWC >> 8).astype(np.uint8)  # as Pillow has it
        return as_rgb(found_nWC, f"image {self.path}")

    def _read(self, number: int, inside: slice) -> Array:
        """Some rows (n, W, C) of a row of strips or tiles."""
        try:
            if self.is_raw:
                return self._raw(number, inside)
            if number != self._number:
                self._decoded, self._number = self._decode(number), number
            return self._decoded[inside]
        except Exception as error:  # whatever a file does to a decoder
            where = f"rows from {number * self.piece[0]} on"
            raise DataError(f"image {self.path} cannot be read ({where}: {error}); replace it or remove it") from error

    def _raw(self, number: int, inside: slice) -> Array:
        """From strips that are not compressed, which may be one of the whole image."""
        samples = 1 if self.separate else self.page.samplesperpixel
        shape = (inside.stop - inside.start, self.width, samples)
        line = self.width * samples * self.page.dtype.itemsize
        planes, strips = self.page.samplesperpixel if self.separate else 1, -(-self.height // self.piece[0])
        found = []
        for plane in range(planes):
            index = plane * strips + number
            end = inside.stop * line
            if end > self.page.databytecounts[index]:
                raise ValueError("a strip is shorter than its rows")
            self.file.seek(self.page.dataoffsets[index] + inside.start * line)
            data = self.file.read(shape[0] * line)
            found.append(np.frombuffer(data, self.page.dtype.newbyteorder(self.page.parent.byteorder)).reshape(shape))
        return found[0] if planes == 1 else np.concatenate(found, axis=2)

    def _decode(self, number: int) -> Array:
        """A row of strips or tiles (length, W, C)."""
        length = min(self.piece[0], self.height - number * self.piece[0])
        across, down = -(-self.width // self.piece[1]), -(-self.height // self.piece[0])
        samples = self.page.samplesperpixel
        whole = np.zeros((length, self.width, samples), self.page.dtype.newbyteorder("="))
        for plane in range(samples if self.separate else 1):
            for column in range(across):
                index = (plane * down + number) * across + column
                self.file.seek(self.page.dataoffsets[index])
                data = self.file.read(self.page.databytecounts[index])
                segment, place, shape = self.page.decode(data or None, index, jpegtables=self.tables)
                if segment is None:
                    continue  # left out by its writer: no data
                left, size = place[3], (min(shape[1], length), min(shape[2], self.width - place[3]))
                planes = slice(plane, plane + 1) if self.separate else slice(None)
                whole[: size[0], left : left + size[1], planes] = segment[0, : size[0], : size[1]]
        return whole


def _page_count(tiff: Any) -> int:
    """Pages, without smaller copies and masks of them."""
    count = len(tiff.pages)
    return count if count > _FEW_PAGES else sum(int(page.subfiletype) in (0, 2) for page in tiff.pages)
