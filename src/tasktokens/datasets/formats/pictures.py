"""Class maps as pictures: PNG from and to bytes, with the checks of `tasktokens.utils.safe_io`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tasktokens.datasets.formats.base import VOID
from tasktokens.errors import DataError
from tasktokens.utils.legends import Colour
from tasktokens.utils.safe_io import check_pixels

Array = npt.NDArray[Any]

VOID_ID = 255
"""What 8-bit maps hold where there is no label."""


def decode_png(content: bytes, what: str) -> tuple[Array, Array | None]:
    """A PNG as stored, (H, W) or (H, W, channels), and the colours (256, 3) of its palette, if it has one.

    Raises `DataError` naming ``what``.
    """
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            check_pixels(image.height, image.width)
            palette = None
            if image.mode == "P":
                flat = np.array((image.getpalette("RGB") or [])[: 3 * 256], np.uint8)
                palette = np.pad(flat, (0, 3 * 256 - len(flat))).reshape(256, 3)
            return np.array(image), palette
    except Exception as error:  # whatever a file does to the decoder, it is the file that is named
        raise DataError(f"{what} is no readable PNG ({error}); export or download it again") from error


def encode_png(array: Array, colours: Sequence[Colour] = (), void: Colour = (0, 0, 0)) -> bytes:
    """uint8 (H, W), (H, W, 3) or (H, W, 4) as PNG; ``colours`` by id, and ``void`` for other ids, make a palette."""
    image = Image.fromarray(np.ascontiguousarray(array))
    if colours:
        palette = [*colours, *[void] * (256 - len(colours))]
        image.putpalette([part for colour in palette for part in colour])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()


def stored_ids(classes_HW: Array, count: int, what: str) -> Array:
    """A class map as uint8 ids, `VOID_ID` where there is no label. Raises `DataError` where 256 classes leave none."""
    void = classes_HW == VOID
    if count > VOID_ID and void.any():
        raise DataError(f"{what} has {count} classes and pixels without a label, which 8 bits cannot hold; use cvat")
    return np.where(void, VOID_ID, classes_HW).astype(np.uint8)


def classes_of_ids(ids: Array, count: int, what: str) -> Array:
    """The reverse of `stored_ids`: (H, W) int16. Raises `DataError` for other ids or more than one channel."""
    if ids.ndim != 2 or ids.dtype.kind not in "bui":
        raise DataError(f"{what} must hold one class id per pixel, found {ids.dtype} of shape {ids.shape}")
    wide = ids.astype(np.int32)
    void = (wide == VOID_ID) & (count <= VOID_ID)
    wrong = np.unique(wide[~void & ((wide < 0) | (wide >= count))])
    if wrong.size:
        raise DataError(f"{what} holds the class id {wrong[0]}; expected 0 to {count - 1}, or {VOID_ID} for no label")
    return np.where(void, VOID, wide).astype(np.int16)
