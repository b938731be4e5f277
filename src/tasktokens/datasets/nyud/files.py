"""Tasks, classes and camera of NYU Depth v2, and how the files of its layouts are read.

Frame of the published normals. Eigen and Fergus's distribution, from which the MTAN files were made, stores a normal as
``(x, z, -y)`` of our frame (x right, y down, z forward, pointing to the camera). Worked out on the genuine map of image
433 against normals computed from its 16-bit depth: of all 48 ways to order and sign three axes this one gives a median
angle of 2.1 degrees at 480 x 640, and the next best 21. For the MTAN and ATRC files themselves we assume the same
frame (their users negate the first channel in a mirrored image, which fits it), and `published_normals` checks it on
every map that is read: a visible surface faces the camera, and in a wrong frame many would not.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tasktokens.datasets.geometry import Camera, dequantise_depth, facing, normals_from_depth
from tasktokens.errors import ConfigError, LabelError
from tasktokens.tasks import Depth, Normals, Segmentation, Task
from tasktokens.tasks.base import Array
from tasktokens.tasks.files import read_array

CLASSES_13 = (
    "bed", "books", "ceiling", "chair", "floor", "furniture", "objects", "picture", "sofa", "table", "tv", "wall",
    "window",
)  # fmt: skip
"""Names of the 13 classes, by id."""
CLASSES_40 = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf",
    "picture", "counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat",
    "clothes", "ceiling", "books", "refrigerator", "television", "paper", "towel", "shower curtain", "box",
    "whiteboard", "person", "night stand", "toilet", "sink", "lamp", "bathtub", "bag", "otherstructure",
    "otherfurniture", "otherprop",
)  # fmt: skip
"""Names of the 40 classes, by id."""
PUBLISHED = {"one": "nyud_one_label.csv", "random": "nyud_random_labels.csv"}
"""Files of published label splits, by rule."""

FORTY_TO_THIRTEEN = (
    *(12, 5, 6, 1, 4, 9, 10, 12, 13, 6, 8, 6, 13, 10, 6, 13, 6, 7, 7, 5),
    *(7, 3, 2, 6, 11, 7, 7, 7, 7, 7, 7, 6, 7, 7, 7, 7, 7, 7, 6, 7),
)
"""For each of the 40 classes its class of the 13, counted from 1 (the same as ``class13Mapping.mat``)."""

CAMERA = Camera(fx=518.858, fy=519.470, cx=325.582, cy=253.736)
"""The published colour camera of the pictures of 480 x 640."""
HALF_WINDOW = 10
"""Pixels at 480 x 640: with 8, 10 and 12 the median angle to the published normals of image 433 is 3.7, 2.1 and 3.8."""
FACING_SHARE = 0.9
"""Least share of a map's normals that must face the camera: of image 433, 0.9999 do, and up to 0.89 in other frames
(0.96 in the mirror image, which therefore passes)."""
FARTHEST = 20.0
"""Metres that no pixel of the Kinect reaches (the official depths end at 10)."""
COMPACT_STEP = 1 / 25.5
"""Metres of one of the 255 steps of the compact layout's depth."""


def nyud_tasks(classes: int) -> dict[str, Task]:
    """Segmentation into 13 or 40 classes, depth in metres and normals. Raises `ConfigError` for another number."""
    if classes not in (13, 40):
        raise ConfigError(f"NYU Depth v2 has 13 or 40 classes, found classes={classes}")
    return {
        "semseg": Segmentation("semseg", classes=CLASSES_13 if classes == 13 else CLASSES_40),
        "depth": Depth("depth", minimum=0.67, maximum=10.0),
        "normals": Normals("normals"),
    }


def class_table(classes: int) -> Array:
    """(41,) int64: for 0 = void and each of the 40 classes counted from 1, the class from 0, or -1 for void."""
    if classes == 40:
        return np.arange(-1, 40)
    return np.array([-1, *(id - 1 for id in FORTY_TO_THIRTEEN)])


def look_up(path: Path, ids: Array, table: Array) -> tuple[Array, Array]:
    """Translate stored class ids by a table whose void is -1: value (1, H, W) uint8 and valid (H, W).

    Raises `LabelError` where ``ids`` is no (H, W) array of whole numbers or goes beyond the table.
    """
    if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer):
        raise LabelError(
            f"label file {path} must hold one whole number per pixel, found {ids.dtype} of shape {ids.shape}"
        )
    if ids.size and not 0 <= ids.min() <= ids.max() < len(table):
        raise LabelError(
            f"label file {path} holds class {int(ids.min())} to {int(ids.max())}; expected 0 (void) to {len(table) - 1}"
        )
    found = table[ids]
    return np.where(found < 0, 0, found).astype(np.uint8)[None], found >= 0


def forty_classes(path: Path, classes: int) -> tuple[Array, Array]:
    """Read a PNG of the 40 classes counted from 1, 0 = void, as 13 or 40 classes from 0."""
    return look_up(path, read_array(path), class_table(classes))


def thirteen_classes(path: Path) -> tuple[Array, Array]:
    """Read an npy of MTAN: the 13 classes from 0, -1 = void; stored as integers or as whole floats."""
    stored = read_array(path)
    ids = np.rint(np.nan_to_num(stored, nan=-1)).astype(np.int64) if stored.dtype.kind == "f" else stored
    if ids.dtype.kind not in "iu" or not (np.isnan(stored) | (ids == stored)).all():
        raise LabelError(f"label file {path} must hold whole class ids, -1 to 12; found fractions or {stored.dtype}")
    return look_up(path, ids.astype(np.int64) + 1, np.arange(-1, 13))


def npy_depth(path: Path) -> tuple[Array, Array]:
    """Read an npy of metres, (H, W) or (H, W, 1), as in `metres`."""
    stored = read_array(path)
    if stored.ndim == 3 and stored.shape[-1] == 1:
        stored = stored[..., 0]
    return metres(path, stored)


def metres(path: Path, stored: Array) -> tuple[Array, Array]:
    """Depth (H, W) as value (1, H, W) float32 metres and valid (H, W); 0, NaN and infinite are void.

    Raises `LabelError` where it is negative, too far for the sensor (then it is in other units) or of another shape.
    """
    if stored.ndim != 2 or stored.dtype.kind != "f":
        raise LabelError(
            f"label file {path} must hold one float per pixel, found {stored.dtype} of shape {stored.shape}"
        )
    valid = np.isfinite(stored) & (stored != 0)
    found = stored[valid]
    if found.size and not 0 < found.min() <= found.max() < FARTHEST:
        raise LabelError(
            f"label file {path} must hold metres below {FARTHEST:g}, 0 for void; "
            f"found {found.min():g} to {found.max():g}"
        )
    return np.where(valid, stored, 1).astype(np.float32)[None], valid


def published_normals(path: Path, task: Normals) -> tuple[Array, Array]:
    """Read a map of normals stored as (x, z, -y) of our frame: value (3, H, W) unit vectors and valid (H, W).

    Raises `LabelError` where most of them would not face the camera: then the file has another frame.
    """
    stored, valid = task.read(path)
    value = np.where(valid, np.stack([stored[0], -stored[2], stored[1]]), _neutral(task))
    height, width = valid.shape
    # The layouts are crops or other sizes of the original; for this question the scaled camera is near enough.
    towards = facing(value, CAMERA.scaled(width / 640, height / 480))[valid]
    if towards.size and towards.mean() < FACING_SHARE:
        raise LabelError(
            f"only {towards.mean():.0%} of the normals in {path} face the camera; expected them stored as (x, z, -y) "
            "with x right, y down, z forward, as published: convert them, or use the own-folder layout "
            "(docs/reference/data.md)"
        )
    return value.astype(np.float32), valid


def computed_normals(depth: Array, task: Normals) -> tuple[Array, Array]:
    """Normals from a whole picture's depth (H, W) in metres at any scale: value (3, H, W) and valid (H, W)."""
    height, width = depth.shape
    camera = CAMERA.scaled(width / 640, height / 480)
    half_window = max(1, round(HALF_WINDOW * width / 640))
    normals = np.moveaxis(normals_from_depth(depth, camera, half_window=half_window), -1, 0)
    valid = (normals != 0).any(axis=0)
    return np.where(valid, normals, _neutral(task)).astype(np.float32), valid


def _neutral(task: Normals) -> Array:
    return np.array(task.neutral, np.float32)[:, None, None]


def read_edge(path: Path, task: Task) -> tuple[Array, Array]:
    """Read edges as PNG (0 or 255) or as npy, where any number but 0 is an edge."""
    if path.suffix != ".npy":
        return task.read(path)
    stored = read_array(path).squeeze()
    if stored.ndim != 2:
        raise LabelError(f"label file {path} must have one channel, found an array of shape {stored.shape}")
    return (np.nan_to_num(stored) != 0).astype(np.float32)[None], np.isfinite(stored)


def compact_depth(path: Path) -> tuple[Array, Array]:
    """Read 8-bit depth as metres (1, H, W), the middle of each step; 0 is void."""
    stored = read_array(path)
    if stored.ndim != 2 or stored.dtype != np.uint8:
        raise LabelError(f"label file {path} must be 8-bit with one channel, found {stored.dtype} of {stored.shape}")
    metres = (stored.astype(np.float32) + np.float32(0.5)) * np.float32(COMPACT_STEP)
    return np.where(stored > 0, metres, np.float32(1))[None], stored > 0


def compact_normals(path: Path, task: Normals) -> tuple[Array, Array]:
    """Normals computed from 8-bit depth, whose stairs are first made slopes again (0.16 s a picture of 288 x 384)."""
    metres, valid = compact_depth(path)
    return computed_normals(dequantise_depth(np.where(valid, metres[0], 0), COMPACT_STEP), task)
