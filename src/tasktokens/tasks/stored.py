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
from PIL import Image

from tasktokens.errors import LabelError, TaskTokensError
from tasktokens.tasks.lossy import lossy_compression
from tasktokens.utils.orientation import picture_array
from tasktokens.utils.safe_io import open_picture, read_npy, read_npz, require_regular_file

Array = npt.NDArray[Any]
ARRAY_FILES = (".npy", ".npz")
_MODES = ("1", "L", "P", "LA", "PA", "RGB", "RGBA", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_TIFF_SUBFILE, _TIFF_PHOTOMETRIC = 254, 262


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
    """

    path: Path
    task: str | None
    array: Array
    opaque: Array | None = None
    palette: Array | None = None
    lossy: str | None = None
    odd_grey: str | None = None

    @property
    def valid(self) -> Array:
        """(H, W) bool: pixels that are not transparent; a new array."""
        return np.ones(self.array.shape[:2], dtype=bool) if self.opaque is None else self.opaque.copy()

    def ids(self) -> Array:
        """(H, W): numbers that name something; of a palette file the indices. Raises `LabelError`."""
        self.check_lossless()
        self._check_grey()
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
            self._check_grey()
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
        array = self.array if self.palette is None else self.palette[self.array]
        if array.ndim == 2 and array.dtype in (np.uint8, bool) and self.path.suffix.lower() not in ARRAY_FILES:
            grey = array.astype(np.uint8) * np.uint8(255) if array.dtype == bool else array
            array = np.repeat(grey[..., None], 3, axis=2)
        if array.ndim != 3 or array.shape[-1] != 3 or array.dtype != np.uint8:
            raise LabelError(f"label file {self.where} must hold 8-bit RGB, found {array.dtype} of shape {array.shape}")
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

    def _check_grey(self) -> None:
        if self.odd_grey and self.array.any():
            raise LabelError(f"label file {self.where} {self.odd_grey}; save it with 8 bits per pixel, black as 0")

    def _plane(self, array: Array) -> Array:
        plane = one_channel(array)
        if plane.ndim != 2:
            raise LabelError(f"label file {self.where} must have one channel, found an array of shape {array.shape}")
        return plane


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
                stored = _of_picture(path, key, image)
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
    """What `read_stored` returns to this thread meanwhile, for a look at files that somebody else reads anyway."""
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
    # Four channels of floats are no picture with alpha.
    if array.ndim == 3 and (array.shape[-1] == 2 or (array.shape[-1] == 4 and array.dtype.kind != "f")):
        return StoredLabel(path, key, array[..., :-1], array[..., -1] > 0)
    return StoredLabel(path, key, array)


def _read_npz(path: Path, key: str | None) -> Array:
    require_regular_file(path)
    with zipfile.ZipFile(path) as archive:
        members = {name.removesuffix(".npy"): name for name in archive.namelist()}
        if key not in members and len(members) != 1:
            names = ", ".join(members) or "none"
            raise LabelError(f"label file {path} holds the arrays {names}; keep one, or name one '{key}'")
        return read_npz(archive, members[key] if key in members else next(iter(members.values())))


# -- pictures ----------------------------------------------------------------------------------------------------------
def _of_picture(path: Path, key: str | None, image: Image.Image) -> StoredLabel:
    pages = _page_count(image)
    if pages > 1:
        raise LabelError(
            f"label file {path} holds {pages} pages or frames, and which of them is the label cannot be told; save one"
        )
    if image.mode not in _MODES:
        raise LabelError(
            f"label file {path} has the colour mode {image.mode}; expected grey, a palette or RGB, perhaps with alpha"
        )
    _check_depth_kept(path, image)
    lossy, odd = lossy_compression(path, image), _odd_grey(image)
    array = picture_array(image)
    array = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    opaque = None
    if image.mode in ("LA", "PA", "RGBA"):
        array, opaque = array[..., :-1], array[..., -1] > 0
        array = array[..., 0] if image.mode != "RGBA" else array
    elif "transparency" in image.info:
        opaque = _opaque(image, array)
    return StoredLabel(path, key, array, opaque, _palette(image), lossy, odd)


def _page_count(image: Image.Image) -> int:
    """Pages or frames; smaller copies of a page, as geographic TIFFs have, do not count."""
    count = int(getattr(image, "n_frames", 1))
    if count == 1 or image.format != "TIFF":
        return count
    pages = 0
    for number in range(count):
        image.seek(number)
        pages += not int(getattr(image, "tag_v2", {}).get(_TIFF_SUBFILE, 0)) & 1
    image.seek(0)
    return pages


def _check_depth_kept(path: Path, image: Image.Image) -> None:
    """16 bits with alpha would come as 8 bits without a word, and a millimetre as nothing."""
    if any(str(tile.args).startswith(("LA;16", "('LA;16")) for tile in getattr(image, "tile", ())):
        raise LabelError(f"label file {path} is 16-bit grey with alpha; save it without alpha, void as a void value")


def _odd_grey(image: Image.Image) -> str | None:
    """Grey of 2 or 4 bits comes scaled to 255, and a TIFF whose zeros are white comes inverted: right for a mask."""
    raw = [str(tile.args[0] if isinstance(tile.args, tuple) else tile.args) for tile in getattr(image, "tile", ())]
    if getattr(image, "tag_v2", {}).get(_TIFF_PHOTOMETRIC) == 0:
        return "is a TIFF whose zeros are white (MinIsWhite), so that its numbers can be read in two ways"
    bits = next((bits for bits in (2, 4) for args in raw if args.startswith(f"L;{bits}")), None)
    if bits and image.mode == "L":
        return f"is grey of {bits} bits, whose numbers can be read as 0 to {2**bits - 1} or as 0 to 255"
    return None


def _palette(image: Image.Image) -> Array | None:
    if image.mode not in ("P", "PA"):
        return None
    colours = np.zeros((256, 3), np.uint8)  # an index beyond the palette's end is black
    known = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    colours[: len(known)] = known
    return colours


def _opaque(image: Image.Image, array: Array) -> Array | None:
    """What is not transparent by a palette's alpha table, or by a colour that stands for "transparent"."""
    key = image.info["transparency"]
    if image.mode == "P":
        alpha = np.full(256, 255, np.uint8)
        if isinstance(key, int):
            alpha[key] = 0
        else:
            alpha[: len(key)] = np.frombuffer(bytes(key), np.uint8)
        opaque: Array = alpha[array] > 0
        return opaque
    if image.mode == "RGB" and isinstance(key, tuple):
        deep = max(key) > 255  # of 16 bits; the picture comes with 8
        return np.asarray((array != np.array([value >> 8 if deep else value for value in key])).any(axis=-1))
    if image.mode == "1" and isinstance(key, int):
        return np.asarray(array != bool(key))
    if isinstance(key, int):
        raw = [str(tile.args) for tile in getattr(image, "tile", ())]
        factor = next((255 // (2**bits - 1) for bits in (2, 4) for args in raw if f"L;{bits}" in args), 1)
        return np.asarray(array != key * factor)
    return None


def palette_greys(stored: StoredLabel) -> Array | None:
    """(H, W) grey values of a palette file of one or two greys, which is a mask, whatever its indices; else None."""
    if stored.palette is None:
        return None
    used = np.unique(stored.array if stored.opaque is None else stored.array[stored.opaque])
    if len(used) > 2 or (stored.palette[used] != stored.palette[used][:, :1]).any():
        return None
    return np.asarray(stored.palette[:, 0][stored.array])
