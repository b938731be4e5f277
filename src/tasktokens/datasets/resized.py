"""Labels that are not of the size of their image (``resize: true`` in ``dataset.yaml``)."""

from __future__ import annotations

from pathlib import Path

import torch

from tasktokens.datasets.index import exif_orientation, image_size
from tasktokens.datasets.upright import is_turned, same_shape, turned_label
from tasktokens.errors import LabelError
from tasktokens.tasks import Task
from tasktokens.tasks.base import Array
from tasktokens.utils.orientation import swaps_sides


def read_resized(path: Path, task: Task, image: Path, upright: bool = False) -> tuple[Array, Array]:
    """Read a label and bring it to its image's size by the task's own rule (``resize: true``).

    With ``upright`` that is the size of the picture as it is shown (`exif_orientation`).

    Raises `LabelError` where the two have another shape: then one is cropped, and no rule can know where.
    """
    value, valid = task.read(path)
    (height, width), (new_height, new_width) = valid.shape, image_size(image)
    orientation = exif_orientation(image)
    if upright and swaps_sides(orientation):
        new_height, new_width = new_width, new_height
    if (height, width) == (new_height, new_width):
        return value, valid
    if not upright and is_turned(orientation, (height, width), (new_height, new_width)):
        raise LabelError(f"label file {path}: {turned_label(orientation, (height, width), (new_height, new_width))}")
    if not same_shape((height, width), (new_height, new_width)):
        raise LabelError(
            f"label file {path} is {width}x{height} pixels, its image {image.name} is {new_width}x{new_height}: "
            f"another shape, which resizing would distort; crop one of them"
        )
    resized = task.resize(torch.from_numpy(value), torch.from_numpy(valid)[None], (new_height, new_width))
    return resized[0].numpy(), resized[1][0].numpy()
