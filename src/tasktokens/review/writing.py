"""Files of corrected labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tasktokens.errors import LabelError
from tasktokens.review.folder import Key, ReviewFolder
from tasktokens.tasks.base import Array
from tasktokens.utils.safe_io import open_picture, read_npy


def different(value: Array, valid: Array, new_value: Array, new_valid: Array) -> Array:
    """The pixels (H, W) bool in which two labels differ: in their value, or in whether they have one."""
    return np.asarray((valid != new_valid) | (valid & new_valid & (value != new_value).any(axis=0)))


def write_label(folder: ReviewFolder, key: Key, value: Array, valid: Array, place: Path) -> Path:
    """A label as a file of its task in a new folder. Read again, it must be the same: else `LabelError`.

    Where pixels became void and nothing else changed, the others are stored as they were, not rounded once more.
    """
    task, label = folder.tasks[key.task], folder.labels[key]
    if not label.plain:
        raise LabelError(
            f"label file {label.path} is resized when it is read ('resize: true'), so that a correction in the size "
            f"of the image cannot be stored; bring the files to the images' size first (tasktokens prepare)"
        )
    task.write(place / "label.png", value, None if valid.all() else valid)
    written = next(place.iterdir())
    old_value, old_valid = task.read(label.path)
    if np.array_equal(old_value[:, valid], value[:, valid]) and not (valid & ~old_valid).any():
        written = _keep_stored(label.path, written, old_valid & ~valid)
    again, again_valid = task.read(written)
    if different(value, valid, again.astype(value.dtype), again_valid).any():
        raise LabelError(
            f"the corrected label of task '{key.task}' for '{key.id}' would be read as another with the settings "
            f"{task.spec()} of dataset.yaml; a void id, or a finer scale, is missing there"
        )
    return written


def _keep_stored(old: Path, written: Path, void_HW: Array) -> Path:
    """The file to use: the pixels of the old one, but for those that became void, if it can be told how it says that.

    Arrays of floats say it by NaN; pictures in the way of the new file, where the two store pixels alike.
    """
    if old.suffix.lower() == ".npy":
        stored = read_npy(old)
        if not np.issubdtype(stored.dtype, np.floating):
            return written
        stored = stored.copy()
        stored[void_HW] = np.nan
        written.unlink()
        np.save(written.with_suffix(".npy"), stored)
        return written.with_suffix(".npy")
    if old.suffix.lower() != ".png" or written.suffix != ".png":
        return written
    with open_picture(old) as picture, open_picture(written) as new:
        stored, void = np.array(picture), np.array(new)
        if (stored.shape, stored.dtype) != (void.shape, void.dtype) or picture.mode in ("P", "1"):
            return written
    stored[void_HW] = void[void_HW]
    Image.fromarray(stored).save(written, "PNG")
    return written
