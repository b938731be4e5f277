"""What a picture file stores as a label, as Pillow decodes it: its numbers, what is transparent, and what was lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from tasktokens.errors import LabelError
from tasktokens.tasks.lossy import lossy_compression
from tasktokens.utils.orientation import picture_array
from tasktokens.utils.tiff import nodata_value

Array = npt.NDArray[Any]
_MODES = ("1", "L", "P", "LA", "PA", "RGB", "RGBA", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_TIFF_SUBFILE, _TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_SAMPLE_FORMAT = 254, 258, 262, 339


class PictureContent(NamedTuple):
    """The attributes of `tasktokens.tasks.stored.StoredLabel` that a picture file has.

    Attributes:
        array, opaque, palette, lossy, odd_grey, cut_to_8_bits, nodata: those of `StoredLabel`.
    """

    array: Array
    opaque: Array | None
    palette: Array | None
    lossy: str | None
    odd_grey: str | None
    cut_to_8_bits: bool
    nodata: float | None


def _colour_mode(image: Image.Image) -> str:
    """As the file says: versions 12 of Pillow take a YCbCr TIFF without JPEG for RGB, and then cannot decode it."""
    tags = getattr(image, "tag_v2", {})
    return "YCbCr" if tags.get(262) == 6 and tags.get(259) not in (6, 7) else image.mode


def picture_content(path: Path, image: Image.Image) -> PictureContent:
    """Decode a picture file that was opened. Raises `LabelError` where its numbers would change."""
    pages = _page_count(image)
    if pages > 1:
        raise LabelError(
            f"label file {path} holds {pages} pages or frames, and which of them is the label cannot be told; save one"
        )
    mode = _colour_mode(image)
    if mode not in _MODES:
        raise LabelError(
            f"label file {path} has the colour mode {mode}; expected grey, a palette or RGB, perhaps with alpha"
        )
    _check_depth_kept(path, image)
    # What the file says, before decoding, which forgets some of it.
    raw = [str(tile.args) for tile in getattr(image, "tile", ())]
    lossy, odd, cut = lossy_compression(path, image), _odd_grey(image, raw), _is_cut_to_8_bits(image, raw)
    array = _as_declared(image, picture_array(image))
    array = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    opaque = None
    if image.mode in ("LA", "PA", "RGBA"):
        array, opaque = array[..., :-1], array[..., -1] > 0
        array = array[..., 0] if image.mode != "RGBA" else array
    elif "transparency" in image.info:
        opaque = _opaque(image, array, raw)
    return PictureContent(array, opaque, _palette(image), lossy, odd, cut, nodata_value(image))


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


def _as_declared(image: Image.Image, array: Array) -> Array:
    """Decoded pixels with the type that the file declares, where Pillow's modes have none for it."""
    tags = getattr(image, "tag_v2", {})
    signed = 2 in tags.get(_TIFF_SAMPLE_FORMAT, (1,))
    if image.mode == "1":  # whose true is the byte 255
        return np.asarray(array.view(np.uint8) > 0)
    if image.mode == "L" and signed:
        return array.view(np.int8)
    if image.mode == "I" and tags.get(_TIFF_BITS) == (32,) and not signed:
        return array.view(np.uint32)
    return array


def _is_cut_to_8_bits(image: Image.Image, raw: list[str]) -> bool:
    """Whether channels of 16 bits come as 8, as Pillow reads all but grey."""
    return image.mode in ("RGB", "RGBA") and any(";16" in args or "65535" in args for args in raw)


def _odd_grey(image: Image.Image, raw: list[str]) -> str | None:
    """Grey of 2 or 4 bits comes scaled to 255, a PNM by its own maximum, and where zeros are white inverted: right for
    a mask."""
    if getattr(image, "tag_v2", {}).get(_TIFF_PHOTOMETRIC) == 0:
        return "is a TIFF whose zeros are white (MinIsWhite), so that its numbers can be read in two ways"
    if image.format == "PPM":
        if image.mode == "1":
            return "is a PBM, whose zeros are white, so that its numbers can be read in two ways"
        tiles = getattr(image, "tile", ())
        most = next((tile.args[1] for tile in tiles if tile.codec_name.startswith("ppm")), 255)
        if most not in (255, 65535):
            return f"is a PNM with the maximum {most}, whose numbers can be read as they are or as shares of it"
    bits = _few_bits(raw)
    if bits and image.mode == "L":
        return f"is grey of {bits} bits, whose numbers can be read as 0 to {2**bits - 1} or as 0 to 255"
    return None


def _few_bits(raw: list[str]) -> int | None:
    """2 or 4 where grey has so few bits per pixel."""
    return next((bits for bits in (2, 4) for args in raw if f"L;{bits}" in args), None)


def _palette(image: Image.Image) -> Array | None:
    if image.mode not in ("P", "PA"):
        return None
    colours = np.zeros((256, 3), np.uint8)  # an index beyond the palette's end is black
    known = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    colours[: len(known)] = known
    return colours


def _opaque(image: Image.Image, array: Array, raw: list[str]) -> Array | None:
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
        bits = _few_bits(raw)
        return np.asarray(array != (key * (255 // (2**bits - 1)) if bits else key))
    return None
