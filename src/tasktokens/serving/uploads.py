"""Reads an uploaded picture from memory; its header is looked at before anything is decoded."""

from __future__ import annotations

import io
from typing import NamedTuple

from PIL import Image

from tasktokens.errors import TaskTokensError
from tasktokens.inference.image_notes import PAGED, TURNED
from tasktokens.serving.limits import Limits, RefusedError
from tasktokens.tasks.base import Array
from tasktokens.utils.orientation import picture_array, picture_orientation
from tasktokens.utils.pixels import as_rgb
from tasktokens.utils.safe_io import FORMATS, open_picture


class Upload(NamedTuple):
    """An image that was read.

    Attributes:
        image_HW3: uint8 RGB, the stored pixels, as for `tasktokens.predict`.
        notes: what a person should know of it, such as an EXIF orientation that was not applied.
    """

    image_HW3: Array
    notes: tuple[str, ...]


def check_header(data: bytes, limits: Limits) -> None:
    """Refuse what is no picture, and pictures whose header claims too many pixels; nothing is decoded.

    Raises:
        RefusedError: 400 nothing, 413 too many pixels, 415 no picture of a known format.
    """
    _open(data, limits).close()


def read_upload(data: bytes, limits: Limits) -> Upload:
    """Decode a picture.

    Raises:
        RefusedError: see `check_header`; 422 a picture that is cut off, damaged, or of a kind that has no 8 or 16 bits.
    """
    with _open(data, limits) as image:
        notes = []
        if picture_orientation(image) > 1:
            notes.append(f"the image has {TURNED}")
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            notes.append(f"the image has {PAGED}")
        try:
            array = picture_array(image, None if image.mode[0] in "IF" else "RGB")
            return Upload(as_rgb(array, "the image"), tuple(notes))
        except TaskTokensError as error:
            raise RefusedError(422, str(error)) from error
        except Exception as error:  # whatever a file does to a decoder
            raise RefusedError(422, f"the image cannot be decoded ({_one_line(error)}); send a whole file") from error


def _open(data: bytes, limits: Limits) -> Image.Image:
    if not data:
        raise RefusedError(400, f"the file is empty; send a picture ({', '.join(FORMATS)})")
    try:
        image = open_picture(io.BytesIO(data))
    except Exception as error:  # Pillow raises whatever its parsers do
        if isinstance(error, ValueError) and "pixels" in str(error):
            raise _too_many_pixels(limits) from error
        raise RefusedError(415, f"the file is no picture that can be read; expected {', '.join(FORMATS)}") from error
    if image.width * image.height > limits.pixels:
        image.close()
        raise _too_many_pixels(limits, f"{image.width}x{image.height}")
    return image


def _too_many_pixels(limits: Limits, found: str = "more") -> RefusedError:
    return RefusedError(413, f"an image may have {limits.pixels} pixels, found {found}; send a smaller one")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
