"""The label files of PASCAL-Context: parts and label maps in MATLAB files, distilled saliency and normals in PNGs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from tasktokens.datasets.geometry import Camera, facing
from tasktokens.errors import LabelError
from tasktokens.tasks import Normals
from tasktokens.tasks.base import Array
from tasktokens.tasks.files import read_array
from tasktokens.utils.safe_io import check_inflated_size

CLASSES_21 = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""Names of the 21 classes, by id."""
PERSON = 15
"""The number of ``person`` among the 21 classes."""

PARTS_7 = ("background", "head", "torso", "upper arm", "lower arm", "upper leg", "lower leg")
"""Names of the 7 human parts, by id."""
PART_NAMES = {
    "head": ("hair", "head", "lear", "rear", "lebrow", "rebrow", "leye", "reye", "mouth", "nose"),
    "torso": ("neck", "torso"),
    "upper arm": ("luarm", "ruarm"),
    "lower arm": ("llarm", "rlarm", "lhand", "rhand"),
    "upper leg": ("luleg", "ruleg"),
    "lower leg": ("llleg", "rlleg", "lfoot", "rfoot"),
}
"""The names in PASCAL-Part that make up each class; a leading l or r is left or right."""
_PART = {name: PARTS_7.index(part) for part, names in PART_NAMES.items() for name in names}

NORMALS_CLASSES = (
    *(3, 4, 6, 9, 10, 11, 13, 15, 17, 18, 22, 23, 29, 30, 33, 34, 36, 37, 38, 39, 41, 43, 46, 49, 50, 51, 53, 55, 56),
    *(59, 61, 62, 65, 66, 68, 69, 72, 73, 78, 83, 84, 85, 87, 88, 95, 96, 101, 104, 105, 107, 111, 113, 115, 122, 124),
    *(135, 141, 142, 143, 146, 150, 154, 157, 158, 159, 165, 172, 174, 181, 183, 184, 191, 193, 195, 197, 199, 202),
    *(213, 215, 216, 219, 220, 223, 225, 228, 230, 232, 233, 238, 239, 242, 243, 246, 250, 251, 252, 255, 260, 261),
    *(263, 269, 272, 273, 275, 281, 283, 284, 285, 286, 287, 288, 290, 291, 292, 293, 295, 304, 307, 309, 310, 314),
    *(315, 319, 323, 329, 330, 331, 336, 342, 345, 349, 350, 351, 352, 355, 357, 368, 370, 371, 374, 379, 380, 383),
    *(384, 397, 401, 403, 405, 407, 408, 411, 412, 413, 414, 417, 419, 421, 423, 427, 429, 430, 432, 440, 441, 442),
    *(443, 444, 446, 454, 457),
)
"""Classes of the LabelMap whose name is one of the 894 of NYU Depth, and tvmonitor (427)."""
FACING_SHARE = 0.75
"""Least share of a map's normals that must point to the camera; random directions give a half."""


def read_parts(path: Path) -> tuple[Array, Array]:
    """Parts of all people: value (1, H, W) uint8, valid (H, W), which is False everywhere if nobody has parts.

    Raises `LabelError` for a file without the structure of PASCAL-Part, and for a part that it does not know.
    """
    anno = _load(path, "anno")
    try:
        objects = _many(anno["objects"])
        value = np.zeros(np.shape(objects[0]["mask"]), np.uint8)
        people = [_many(thing["parts"]) for thing in objects if int(thing["class_ind"]) == PERSON]
        # Where parts overlap, the last one counts, as published.
        for part in (part for parts in people for part in parts):
            value[np.asarray(part["mask"]).astype(bool)] = _class_of(path, str(part["part_name"]))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise LabelError(
            f"label file {path} must hold anno.objects with class_ind, mask (H, W) and parts (part_name, mask) of "
            f"PASCAL-Part ({type(error).__name__}: {error})"
        ) from error
    if value.ndim != 2:
        raise LabelError(f"label file {path} must hold masks (H, W), found shape {value.shape}")
    return value[None], np.full(value.shape, any(people))


def _class_of(path: Path, name: str) -> int:
    """The class of a part of a person."""
    if name not in _PART:
        raise LabelError(f"label file {path} names a part '{name}' of a person; known: {', '.join(sorted(_PART))}")
    return _PART[name]


def _many(value: Any) -> list[Any]:
    """The elements of a MATLAB array of structures; scipy gives one alone as itself."""
    return [value] if isinstance(value, dict) else list(value)


def read_saliency(path: Path) -> tuple[Array, Array]:
    """Salient where a grey 8-bit PNG is above 127: value (1, H, W) float32 of 0 and 1, valid (H, W) everywhere."""
    grey = read_array(path)
    if grey.ndim != 2 or grey.dtype != np.uint8:
        raise LabelError(f"label file {path} must be an 8-bit grey PNG, found {grey.dtype} of shape {grey.shape}")
    return (grey > 127).astype(np.float32)[None], np.ones(grey.shape, dtype=bool)


def read_edges(path: Path) -> tuple[Array, Array]:
    """One where the LabelMap has another class to the right or below: value (1, H, W) float32, valid everywhere."""
    classes = read_label_map(path)
    edge = np.zeros(classes.shape, dtype=bool)
    edge[:, :-1] |= classes[:, :-1] != classes[:, 1:]
    edge[:-1] |= classes[:-1] != classes[1:]
    return edge.astype(np.float32)[None], np.ones(classes.shape, dtype=bool)


def read_normals(path: Path, task: Normals, label_map: Path) -> tuple[Array, Array]:
    """Distilled normals in our frame: value (3, H, W) unit vectors, valid (H, W) on the classes that NYU Depth knows.

    Raises `LabelError` where the two files differ in size, or too few normals face the camera (another frame).
    """
    stored, valid = task.read(path)
    classes = read_label_map(label_map)
    if classes.shape != valid.shape:
        raise LabelError(
            f"label file {path} is {valid.shape[1]}x{valid.shape[0]} pixels, the LabelMap of {label_map} is "
            f"{classes.shape[1]}x{classes.shape[0]}; they must have the same size"
        )
    valid &= np.isin(classes, NORMALS_CLASSES)
    neutral = np.array(task.neutral, np.float32)[:, None, None]
    value = np.where(valid, -stored, neutral)
    height, width = valid.shape
    # The cameras are unknown; 53 degrees on the longer side are a usual field of view.
    focal = max(height, width)
    towards = facing(value, Camera(focal, focal, (width - 1) / 2, (height - 1) / 2))[valid]
    if towards.size and towards.mean() < FACING_SHARE:
        raise LabelError(
            f"only {towards.mean():.0%} of the normals in {path} face the camera; expected x left, y up, z towards the "
            "camera: the files have another frame than those of ATRC are taken to have"
        )
    return value, valid


def read_label_map(path: Path) -> Array:
    """The LabelMap (H, W) of a MATLAB file, whole numbers."""
    classes = np.asarray(_load(path, "LabelMap"))
    if classes.ndim != 2 or classes.dtype.kind not in "iuf":
        raise LabelError(f"LabelMap of {path} must be numbers (H, W), found {classes.dtype} of shape {classes.shape}")
    return classes


def _load(path: Path, name: str) -> Any:
    """A variable of a MATLAB file of version 5."""
    try:
        check_inflated_size(path)
        values = loadmat(path, variable_names=[name], simplify_cells=True)
    except Exception as error:  # scipy raises a dozen kinds on broken files, some of them its own
        raise LabelError(
            f"label file {path} cannot be read as a MATLAB file ({type(error).__name__}: {error}); replace it, or "
            "remove it to leave the label out"
        ) from error
    if name not in values:
        raise LabelError(f"label file {path} holds no '{name}'")
    return values[name]
