"""PNG and npy files that are written row by row: what fits no memory never has to be there as a whole."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from tasktokens.utils.atomic import writing

Array = npt.NDArray[Any]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""The number of a kind of PNG by its channels: grey, grey and alpha, RGB, RGBA."""
_SUB, _UP = 1, 2
"""Filters that store the difference of each pixel to the one before, and to the one above."""
_BLOCK = 2**20


class RowWriter:
    """A file that rows (n, W) or (n, W, C) are added to, from top to bottom.

    Args:
        path: to write to.
        shape: of the whole array, (H, W) or (H, W, C).
        dtype: its type.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self.path, self.shape, self.dtype = path, shape, np.dtype(dtype)
        self.count = 0
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = path.open("wb")
            self._begin()

    def add(self, rows: Array) -> None:
        """The next rows. Raises `ValueError` where they are of another type or width, or too many."""
        if rows.dtype != self.dtype or rows.shape[1:] != self.shape[1:] or self.count + len(rows) > self.shape[0]:
            raise ValueError(
                f"rows of {self.dtype}, {self.shape[0] - self.count} of {self.shape[1:]} or fewer, were expected; "
                f"found {rows.dtype}, {rows.shape}"
            )
        with writing(self.path):
            self._write(rows)
        self.count += len(rows)

    def close(self) -> None:
        """All rows were added. Raises `ValueError` where some are missing."""
        if self.count < self.shape[0]:
            raise ValueError(f"{self.shape[0]} rows were expected, found {self.count}")
        with writing(self.path):
            self._end()
            self._file.close()

    def abandon(self) -> None:
        """Close a file that stays unfinished; nothing where it is closed."""
        self._file.close()

    def _begin(self) -> None:
        raise NotImplementedError

    def _write(self, rows: Array) -> None:
        raise NotImplementedError

    def _end(self) -> None:
        """Nothing unless the format has an end."""


class PngRows(RowWriter):
    """A PNG of uint8 or uint16 with 1 to 4 channels; label maps are about as small as Pillow makes them.

    Source: PNG (Third Edition), W3C 2025, sections 5, 9 and 10.
    """

    def _begin(self) -> None:
        channels = self.shape[2] if len(self.shape) == 3 else 1
        self._pixel = channels * self.dtype.itemsize
        self._above = np.zeros(self.shape[1] * self._pixel, np.uint8)
        # Runs of equal differences are nearly all there is to find in label maps (`tasks.files`).
        self._packer = zlib.compressobj(6, strategy=zlib.Z_RLE)
        self._packed = bytearray()
        kind = (self.shape[1], self.shape[0], 8 * self.dtype.itemsize, _COLOUR_TYPES[channels], 0, 0, 0)
        self._file.write(_SIGNATURE)
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", *kind))

    def _write(self, rows: Array) -> None:
        lines = rows.astype(self.dtype.newbyteorder(">")).reshape(len(rows), -1).view(np.uint8)
        sub, up = lines.copy(), lines.copy()
        sub[:, self._pixel :] -= lines[:, : -self._pixel]
        up[1:] -= lines[:-1]
        up[:1] -= self._above
        self._above = lines[-1]
        # As libpng chooses: by the sum of what is left.
        is_up = _size(up) < _size(sub)
        filtered = np.empty((len(rows), 1 + lines.shape[1]), np.uint8)
        filtered[:, 0] = np.where(is_up, _UP, _SUB)
        filtered[:, 1:] = np.where(is_up[:, None], up, sub)
        self._packed += self._packer.compress(filtered.data)
        if len(self._packed) > _BLOCK:
            self._flush()

    def _end(self) -> None:
        self._packed += self._packer.flush()
        self._flush()
        self._chunk(b"IEND", b"")

    def _flush(self) -> None:
        self._chunk(b"IDAT", bytes(self._packed))
        self._packed.clear()

    def _chunk(self, name: bytes, data: bytes) -> None:
        self._file.write(struct.pack(">I", len(data)) + name + data)
        self._file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(name))))


def _size(differences: Array) -> Array:
    """The sum of each line's bytes, taken as signed."""
    size: Array = np.minimum(differences, np.negative(differences)).sum(axis=1, dtype=np.int64)
    return size


class NpyRows(RowWriter):
    """An npy in the order of C."""

    def _begin(self) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def _write(self, rows: Array) -> None:
        self._file.write(np.ascontiguousarray(rows).data)
