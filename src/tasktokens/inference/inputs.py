"""What a model takes as an image: files, PIL images, arrays and tensors, all converted to (H, W, 3) uint8."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image
from torch import Tensor

from tasktokens.datasets.index import read_image
from tasktokens.errors import DataError
from tasktokens.tasks.base import Array
from tasktokens.utils.pixels import as_rgb

ImageLike: TypeAlias = str | Path | Image.Image | Array | Tensor
"""One image: see `as_image`."""

_KINDS = "a path, a PIL image, an array (H, W, 3) or a tensor (3, H, W), both uint8"


def as_image(image: object) -> Array:
    """One image as (H, W, 3) uint8 RGB.

    Args:
        image: the path of an image file, a PIL image, an array (H, W) or (H, W, 1, 3 or 4) of uint8 or uint16 in RGB
            order, or a tensor (3, H, W) or (1, H, W) of uint8. Grey is repeated, alpha is left out, 16 bits are scaled
            to 8. Floats are rejected, since 0..1 and 0..255 cannot be told apart. The pixels of files and PIL
            images stay as they are stored: an EXIF orientation is not applied.

    Raises:
        DataError: a file that is missing or no image, a URL, or another type, dtype or shape.

    Examples:
        >>> import numpy as np
        >>> as_image(np.zeros((4, 6), np.uint8)).shape
        (4, 6, 3)
        >>> as_image(np.zeros((4, 6, 3)))
        Traceback (most recent call last):
        tasktokens.errors.DataError: the array holds float64 of shape (4, 6, 3), expected uint8: if it is in [0, 1], \
give (255 * x).round().astype('uint8')
    """
    if isinstance(image, str | Path):
        return _read(image)
    if isinstance(image, Image.Image):
        return _checked(_decoded(image), "PIL image")
    if isinstance(image, Tensor):
        return _checked(_channels_last(image), "tensor")
    if isinstance(image, np.ndarray):
        return _checked(image, "array")
    raise DataError(f"an image must be {_KINDS}, found {type(image).__name__}")


def _read(path: str | Path) -> Array:
    if scheme := re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", str(path)):
        raise DataError(f"{path} is a URL ({scheme[1]}); only local files are read: download it and give its path")
    if Path(path).is_dir():
        raise DataError(
            f"{path} is a folder; give its images, or use tasktokens.predict to write files for all of them"
        )
    return read_image(Path(path))


def _decoded(image: Image.Image) -> Array:
    """Its pixels, which PIL reads from the file only now."""
    try:
        return np.asarray(image if image.mode[0] in "IF" else image.convert("RGB"))
    except Exception as error:  # whatever a file does to a decoder
        name = getattr(image, "filename", "") or "the PIL image"
        raise DataError(f"image {name} cannot be read ({error}); replace it or leave it out") from error


def _channels_last(image_CHW: Tensor) -> Array:
    if image_CHW.ndim != 3 or image_CHW.shape[0] not in (1, 3):
        last = image_CHW.ndim == 3 and image_CHW.shape[2] in (1, 3)
        advice = "; its channels are last: give x.permute(2, 0, 1)" if last else ""
        raise DataError(f"a tensor must have the shape (3, H, W), found {tuple(image_CHW.shape)}{advice}")
    array: Array = image_CHW.detach().cpu().permute(1, 2, 0).numpy()
    return array


def _checked(array: Array, kind: str) -> Array:
    if array.dtype.kind == "f":
        scaled = "(255 * x).round()" + (".to(torch.uint8)" if kind == "tensor" else ".astype('uint8')")
        raise DataError(
            f"the {kind} holds {array.dtype} of shape {array.shape}, expected uint8: if it is in [0, 1], give {scaled}"
        )
    if array.ndim == 3 and array.shape[2] not in (1, 3, 4) and array.shape[0] in (1, 3):
        raise DataError(
            f"the {kind} has the shape {array.shape}, expected (H, W, 3): give x.transpose(1, 2, 0), or a tensor"
        )
    if 0 in array.shape:
        raise DataError(f"the {kind} has no pixels: its shape is {array.shape}")
    return as_rgb(array, f"the {kind}")
