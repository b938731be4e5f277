"""Reading and writing label files: PNG, TIFF, JPEG and BMP, npy and npz, with errors that name the file."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tasktokens.errors import LabelError, TaskTokensError
from tasktokens.utils.orientation import picture_array
from tasktokens.utils.safe_io import open_picture, read_npy, read_npz, require_regular_file

Array = npt.NDArray[Any]
LOSSY_ENDINGS = (".jpg", ".jpeg")


def read_array(path: Path, key: str | None = None) -> Array:
    """Read a label file as stored: (H, W) or (H, W, channels), in the machine's byte order.

    A palette image gives its indices: they are the class ids, its colours are decoration.

    Args:
        key: the array to take from an npz that holds more than one.

    Raises:
        LabelError: the file cannot be read, or which of its arrays is meant cannot be told.
    """
    try:
        if path.suffix.lower() == ".npy":
            array = read_npy(path)
        elif path.suffix.lower() == ".npz":
            array = _read_npz(path, key)
        else:
            with open_picture(path) as image:
                _check_depth_kept(path, image)
                array = picture_array(image)
    except FileNotFoundError as error:
        raise LabelError(f"label file {path} does not exist") from error
    except TaskTokensError:
        raise
    except Exception as error:  # whatever a file does to a decoder, it is the file that is named
        raise LabelError(
            f"label file {path} cannot be read ({error}); replace it or remove it to leave the label out"
        ) from error
    if array.dtype.kind not in "biuf":
        raise LabelError(f"label file {path} must hold real numbers, found {array.dtype}")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _read_npz(path: Path, key: str | None) -> Array:
    require_regular_file(path)
    with zipfile.ZipFile(path) as archive:
        members = {name.removesuffix(".npy"): name for name in archive.namelist()}
        if key not in members and len(members) != 1:
            names = ", ".join(members) or "none"
            raise LabelError(f"label file {path} holds the arrays {names}; keep one, or name one '{key}'")
        return read_npz(archive, members[key] if key in members else next(iter(members.values())))


def _check_depth_kept(path: Path, image: Image.Image) -> None:
    """16 bits with alpha would come as 8 bits without a word, and a millimetre as nothing."""
    if any(str(tile.args).startswith(("LA;16", "('LA;16")) for tile in getattr(image, "tile", ())):
        raise LabelError(f"label file {path} is 16-bit grey with alpha; save it without alpha, void as a void value")


def read_plane(path: Path, key: str | None = None) -> tuple[Array, Array]:
    """Read a one-channel label file. Returns plane (H, W) and valid (H, W) bool.

    An alpha channel of zero marks void; a grey picture that was saved as RGB counts as one channel.
    """
    array = read_array(path, key)
    shape = array.shape
    valid = np.ones(shape[:2], dtype=bool)
    if array.ndim == 3 and shape[-1] in (2, 4):
        array, valid = array[..., :-1], array[..., -1] > 0
    array = one_channel(array)
    if array.ndim != 2:
        raise LabelError(f"label file {path} must have one channel, found an array of shape {shape}")
    return array, valid


def one_channel(array: Array) -> Array:
    """(H, W) of (H, W, 1), and of three equal channels, which is grey that was saved as RGB; others as they are."""
    if array.ndim == 3 and (array.shape[-1] == 1 or (array.shape[-1] == 3 and (array == array[..., :1]).all())):
        return array[..., 0]
    return array


def read_colours(path: Path, key: str | None = None) -> tuple[Array, Array]:
    """Read a colour-coded label file: colours (H, W, 3) uint8 and valid (H, W) bool, false where alpha is zero."""
    if path.suffix.lower() in (".npy", ".npz"):
        array = read_array(path, key)
    else:
        read_array(path)  # for its errors
        with open_picture(path) as image:
            array = picture_array(image, None if image.mode.startswith(("I", "F")) else "RGBA")
    if array.ndim != 3 or array.shape[-1] not in (3, 4) or array.dtype != np.uint8:
        raise LabelError(f"label file {path} must hold 8-bit RGB, found {array.dtype} of shape {array.shape}")
    return array[..., :3], array[..., 3] > 0 if array.shape[-1] == 4 else np.ones(array.shape[:2], dtype=bool)


def check_lossless(path: Path, name: str) -> None:
    """Raise `LabelError` for a JPEG: compression changes ids and colours, most of all at the borders."""
    if path.suffix.lower() in LOSSY_ENDINGS:
        raise LabelError(
            f"label file {path} of task '{name}' is a JPEG, whose compression changes values; export it as PNG"
        )


def write_png(path: Path, array: Array) -> None:
    """Write uint8 (H, W), (H, W, 2: value and alpha), (H, W, 3), (H, W, 4) or uint16 (H, W) as PNG, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(array)).save(path.with_suffix(".png"))


def write_floats(path: Path, plane_HW: Array, valid_HW: Array | None = None) -> None:
    """Write a float32 plane as npy, making its folder; NaN where it is not valid."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plane = plane_HW.astype(np.float32)
    np.save(path.with_suffix(".npy"), plane if valid_HW is None else np.where(valid_HW, plane, np.float32(np.nan)))


def to_float32(value: Array, neutral: float) -> tuple[Array, Array]:
    """Values as float32, and which of them a float32 can hold; ``neutral`` stands for the others."""
    with np.errstate(over="ignore"):
        small = value.astype(np.float32)
    held = np.isfinite(small)
    return np.where(held, small, np.float32(neutral)), held


def unit_interval(path: Path, plane: Array, white: float | None = None) -> Array:
    """Scale a stored plane to [0, 1]: integers by ``white`` (default: the type's maximum), bool and floats as they are.

    Raises `LabelError` where a value lies outside.
    """
    if plane.dtype in (np.uint8, np.uint16) and white is None:
        return plane.astype(np.float32) / np.float32(np.iinfo(plane.dtype).max)
    whole = np.issubdtype(plane.dtype, np.integer)
    with np.errstate(over="ignore"):  # what a float32 cannot hold lies outside
        value = plane.astype(np.float32) / np.float32(white if whole and white is not None else 1)
    known = np.isfinite(plane)
    if known.any() and (value[known].min() < 0 or value[known].max() > 1):
        raise LabelError(
            f"label file {path} must hold values from 0 to {white if whole and white is not None else 1:g}, found "
            f"{plane[known].min():g} to {plane[known].max():g}"
        )
    return value
