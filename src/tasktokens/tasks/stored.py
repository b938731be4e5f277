"""What a label file stores, before a kind of task says what the numbers mean."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasktokens.errors import LabelError, TaskTokensError
from tasktokens.tasks.stored_picture import picture_content
from tasktokens.tasks.void import is_void
from tasktokens.utils.safe_io import open_picture, read_npy, read_npz, require_regular_file

Array = npt.NDArray[Any]
ARRAY_FILES = (".npy", ".npz")
"""Endings of NumPy files."""


@dataclass(frozen=True)
class StoredLabel:
    """A label file as it is stored.

    Attributes:
        path: the file.
        task: the name of the task, for messages; None: unknown.
        array: (H, W) or (H, W, channels) in the machine's byte order, without alpha; of a palette file its indices.
        opaque: (H, W) bool, false where the file is transparent (alpha, a transparent colour, a palette's
            transparency); None where nothing is.
        palette: colours (256, 3) uint8 of a palette file, else None.
        lossy: the name of a compression that changed the values, else None.
        odd_grey: why the numbers of a grey file can be read in two ways, else None.
        cut_to_8_bits: whether the file has colour channels of 16 bits, of which only the upper 8 were read.
        nodata: what a TIFF's tag GDAL_NODATA names as "no data"; such pixels are void for every kind of task.
    """

    path: Path
    task: str | None
    array: Array
    opaque: Array | None = None
    palette: Array | None = None
    lossy: str | None = None
    odd_grey: str | None = None
    cut_to_8_bits: bool = False
    nodata: float | None = None

    @property
    def valid(self) -> Array:
        """(H, W) bool: pixels that are neither transparent nor "no data" by the file's own tag; a new array."""
        valid = np.ones(self.array.shape[:2], dtype=bool) if self.opaque is None else self.opaque.copy()
        if self.nodata is not None:
            named = is_void(self.array, (self.nodata,))
            valid &= ~(named if named.ndim == 2 else named.all(axis=-1))
        return valid

    def ids(self) -> Array:
        """(H, W): numbers that name something; of a palette file the indices. Raises `LabelError`."""
        self.check_lossless()
        self.check_exact()
        return self._plane(self.array)

    def numbers(self, lossless: bool) -> Array:
        """(H, W): amounts; of a palette file the grey value of each pixel's colour, as every viewer shows it.

        Args:
            lossless: whether the numbers must be exact. A probability need not be.

        Raises:
            LabelError: more than one channel, a palette of colours, or numbers that compression changed.
        """
        if lossless:
            self.check_lossless()
            self.check_exact()
        if self.palette is None:
            return self._plane(self.array)
        used = np.unique(self.array if self.opaque is None else self.array[self.opaque])
        coloured = [colour for colour in self.palette[used].tolist() if len({*colour}) > 1]
        if coloured:
            raise LabelError(
                f"label file {self.where} has a palette with the colour {coloured[0]}, which is no grey value; save it "
                f"as grey, or, if the palette's indices are meant as class ids, use the kind classes"
            )
        return self.palette[:, 0][self.array]

    def colours(self) -> Array:
        """(H, W, 3) uint8, grey and palettes included. Raises `LabelError` for others, and for lossy files."""
        self.check_lossless()
        if self.cut_to_8_bits:
            self.check_exact()
        array = self.array if self.palette is None else self.palette[self.array]
        if array.ndim == 2 and array.dtype in (np.uint8, bool) and self.path.suffix.lower() not in ARRAY_FILES:
            grey = array.astype(np.uint8) * np.uint8(255) if array.dtype == bool else array
            array = np.repeat(grey[..., None], 3, axis=2)
        if array.ndim != 3 or array.shape[-1] != 3 or array.dtype != np.uint8:
            raise LabelError(
                f"label file {self.where} must hold 8-bit RGB, found {array.dtype}, {describe_shape(array.shape)}"
            )
        return array

    def check_lossless(self) -> None:
        """Raise `LabelError` where compression changed the values: most of all at the borders it invents some."""
        if self.lossy:
            raise LabelError(
                f"label file {self.where} is a {self.lossy} by its content, whose compression changes values; export "
                f"it again as PNG (a conversion does not bring the values back)"
            )

    @property
    def where(self) -> str:
        """The file, and the task where it is known, for messages."""
        return f"{self.path}" + (f" of task '{self.task}'" if self.task else "")

    def check_exact(self) -> None:
        """Raise `LabelError` where the numbers that were read are perhaps not those that were written."""
        if self.odd_grey and self.array.any():
            raise LabelError(f"label file {self.where} {self.odd_grey}; save it with 8 bits per pixel, black as 0")
        if self.cut_to_8_bits:
            raise LabelError(
                f"label file {self.where} has colour channels of 16 bits, of which only the upper 8 can be read; save "
                f"it as 16-bit grey, or as npy"
            )

    def _plane(self, array: Array) -> Array:
        plane = one_channel(array)
        if plane.ndim != 2:
            found = describe_shape(array.shape)
            advice = "" if "transpose" in found else "; of one score per class store the argmax; arrays have no alpha"
            raise LabelError(f"label file {self.where} must have one channel, found {found}{advice}")
        return plane


def describe_shape(shape: tuple[int, ...]) -> str:
    """A shape that is not the expected one, and what to do where that is known.

    Examples:
        >>> describe_shape((3, 480, 640))
        'an array of shape (3, 480, 640): channels go last, so transpose it to (480, 640, 3)'
    """
    text = f"an array of shape {shape}"
    if len(shape) == 3 and shape[0] <= 4 < min(shape[1:]):
        height, width = shape[1:]
        last = f"({height}, {width})" if shape[0] == 1 else f"({height}, {width}, {shape[0]})"
        return f"{text}: channels go last, so transpose it to {last}"
    return text


def one_channel(array: Array) -> Array:
    """(H, W) of (H, W, 1), and of three equal channels, which is grey that was saved as RGB; others as they are."""
    if array.ndim == 3 and (array.shape[-1] == 1 or (array.shape[-1] == 3 and (array == array[..., :1]).all())):
        return array[..., 0]
    return array


def read_stored(path: Path, key: str | None = None) -> StoredLabel:
    """Read a label file once: a picture, npy or npz.

    Args:
        key: the task's name, which is also the array to take from an npz that holds more than one.

    Raises:
        LabelError: the file cannot be read, holds several pages, or which of its arrays is meant cannot be told.
    """
    try:
        if path.suffix.lower() == ".npy":
            stored = _of_array(path, key, read_npy(path))
        elif path.suffix.lower() == ".npz":
            stored = _of_array(path, key, _read_npz(path, key))
        else:
            with open_picture(path) as image:
                stored = StoredLabel(path, key, *picture_content(path, image))
    except FileNotFoundError as error:
        raise LabelError(f"label file {path} does not exist") from error
    except TaskTokensError:
        raise
    except Exception as error:  # whatever a file does to a decoder, it is the file that is named
        raise LabelError(
            f"label file {path} cannot be read ({error}); replace it or remove it to leave the label out"
        ) from error
    reads: list[StoredLabel] | None = getattr(_recorder, "reads", None)
    if reads is not None:
        reads.append(stored)
    return stored


@contextmanager
def recorded_reads() -> Iterator[list[StoredLabel]]:
    """What `read_stored` returns to this thread meanwhile, to examine files that other code reads anyway."""
    _recorder.reads = []
    try:
        yield _recorder.reads
    finally:
        _recorder.reads = None


_recorder = threading.local()


# -- arrays ------------------------------------------------------------------------------------------------------------
def _of_array(path: Path, key: str | None, array: Array) -> StoredLabel:
    if array.dtype.kind not in "biuf":
        raise LabelError(f"label file {path} must hold real numbers, found {array.dtype}")
    array = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    return StoredLabel(path, key, array)


def array_names(path: Path) -> list[str]:
    """The arrays of an npz. Raises `OSError` or `zipfile.BadZipFile`."""
    require_regular_file(path)
    with zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def _read_npz(path: Path, key: str | None) -> Array:
    require_regular_file(path)
    with zipfile.ZipFile(path) as archive:
        members = {name.removesuffix(".npy"): name for name in archive.namelist()}
        if key not in members and len(members) != 1:
            names = ", ".join(members) or "none"
            raise LabelError(f"label file {path} holds the arrays {names}; keep one, or name one '{key}'")
        return read_npz(archive, members[key] if key in members else next(iter(members.values())))


def palette_greys(stored: StoredLabel) -> Array | None:
    """(H, W) grey values of a palette file of one or two greys, which is a mask, whatever its indices; else None."""
    if stored.palette is None:
        return None
    used = np.unique(stored.array if stored.opaque is None else stored.array[stored.opaque])
    if len(used) > 2 or (stored.palette[used] != stored.palette[used][:, :1]).any():
        return None
    return np.asarray(stored.palette[:, 0][stored.array])
