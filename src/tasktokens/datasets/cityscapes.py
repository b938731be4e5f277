"""Cityscapes: streets of 50 cities, 2975 training and 500 validation images, with classes and disparity.

Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016;
https://www.cityscapes-dataset.com. Free for research and other non-commercial use under the data set's own terms, after
registration; it must not be passed on.

Tasks: ``semseg``, the 7 categories or the 19 train ids (classes that the benchmark ignores are void), and ``depth``:

- ``inverse``, what the published tables of multi-task papers call depth: the stored disparity / 65535, 0 to about 0.49,
  larger is nearer, 0 void. The official files store disparity 0 (sky and what is very far) as 1, which stays valid as
  published, at 1/65535; the loss clamps it to the far end of the range.
- ``metres``: baseline x fx / disparity by the camera file of the image; disparity 0 is void. Official files only.

Splits: ``train``, ``val``, and ``test``, which is ``val`` under the name that runs evaluate: the published tables are
measured on it. The official test images and ``train_extra`` have no fine labels and are left out.

Two layouts are known, by their files; a label whose file is missing is a missing label:

    MTAN      {train,val}/{image,label_7,label_19,depth}/{i}.npy, 128 x 256 (Liu et al., CVPR 2019)
              image (H, W, 3) float 0..1; labels (H, W), -1 void; depth (H, W, 1) inverse depth, 0 void
    official  {leftImg8bit,gtFine,disparity,camera}/{train,val}/{city}/{city}_{sequence}_{frame}_{type}.{png,json}
              gtFine_labelIds 8 bit, 0..33; disparity 16 bit: 0 void, (v - 1) / 256 pixels

The published split of labels counts training images by position in the MTAN files. Which official image each of these
is, is documented nowhere; for the official layout the rows are taken in the sorted order of the file names, an
assumption: the same number of labels per task, perhaps of other images.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from tasktokens.datasets.base import DATASETS, FolderOfFiles
from tasktokens.datasets.index import DatasetIndex, ImageFile, LabelFile
from tasktokens.datasets.layouts import unknown_layout
from tasktokens.datasets.mtan import numbered, read_unit_image
from tasktokens.datasets.published import published_labels
from tasktokens.errors import ConfigError, DataError, LabelError
from tasktokens.tasks import Depth, Segmentation, Task
from tasktokens.tasks.base import Array
from tasktokens.tasks.files import read_array
from tasktokens.utils.safe_io import read_json

CATEGORIES = ("flat", "construction", "object", "nature", "sky", "human", "vehicle")
"""Names of the 7 categories, by id."""
CLASSES_19 = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
"""Names of the 19 evaluation classes, by train id."""
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The stored id of each of the 19 classes."""
CATEGORY = (0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 5, 6, 6, 6, 6, 6, 6)
"""The category of each of the 19 classes."""

PUBLISHED = {"one": "cityscapes_one_label.csv"}
"""File of the published label split for each rule."""

_KNOWN = (
    "MTAN: train/image/0.npy with label_7, label_19, depth beside image",
    "official: leftImg8bit/train/<city>/<city>_<sequence>_<frame>_leftImg8bit.png with gtFine, disparity, camera "
    "beside leftImg8bit",
)
_SPLITS = ("train", "val")
_Files = dict[str, dict[str, LabelFile]]


def open_cityscapes(root: Path, classes: int = 7, depth: str = "inverse") -> DatasetIndex:
    """List Cityscapes in whichever layout lies in a folder; nothing is decoded.

    Args:
        root: the folder.
        classes: 7 (the categories) or 19 (the train ids).
        depth: ``inverse`` (disparity / 65535) or ``metres``.

    Raises:
        DataError: no layout fits, or it has no images; says what was found.
        ConfigError: a number of classes or a kind of depth that the data does not have.
    """
    tasks = _tasks(classes, depth)
    if _is_official(root):
        return _open_official(root, tasks, classes, depth)
    if not _is_mtan(root):
        raise unknown_layout(root, "Cityscapes", _KNOWN, lambda path: _is_official(path) or _is_mtan(path))
    if depth == "metres":
        raise ConfigError(
            f"the MTAN files in {root} hold inverse depth, and metres cannot be had from it without the cameras; "
            "set data.depth=inverse, or use the official files"
        )
    return _open_mtan(root, tasks, classes)


def _tasks(classes: int, depth: str) -> dict[str, Task]:
    if classes not in (7, 19):
        raise ConfigError(f"Cityscapes has 7 or 19 classes, found classes={classes}")
    if depth not in ("inverse", "metres"):
        raise ConfigError(f"depth of Cityscapes is 'inverse' or 'metres', found {depth!r}")
    inverse = Depth("depth", minimum=0.004, maximum=0.5, scale=1 / 65535, inverse=True)
    return {
        "semseg": Segmentation("semseg", classes=CATEGORIES if classes == 7 else CLASSES_19),
        "depth": inverse if depth == "inverse" else Depth("depth", minimum=3.0, maximum=300.0, scale=0.01),
    }


def _is_official(root: Path) -> bool:
    return any((root / "leftImg8bit" / split).is_dir() for split in _SPLITS)


def _is_mtan(root: Path) -> bool:
    return any((root / split / "image").is_dir() for split in _SPLITS)


def _with_test(splits: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Splits that have images, and ``test`` for ``val``."""
    found = {name: ids for name, ids in splits.items() if ids}
    return found | {"test": found["val"]} if "val" in found else found


# -- MTAN --------------------------------------------------------------------------------------------------------------
def _open_mtan(root: Path, tasks: dict[str, Task], classes: int) -> DatasetIndex:
    folder = f"label_{classes}"
    others = sorted({path.name for split in _SPLITS for path in (root / split).glob("label*") if path.is_dir()})
    if others and folder not in others:
        raise ConfigError(f"{root} has no folder {folder}; found {', '.join(others)}: set data.classes accordingly")
    images: dict[str, ImageFile] = {}
    labels: _Files = {name: {} for name in tasks}
    splits: dict[str, tuple[str, ...]] = {}
    for split in _SPLITS:
        paths = numbered(root / split / "image")
        splits[split] = tuple(f"{split}/{path.stem}" for path in paths)
        for path, id in zip(paths, splits[split], strict=True):
            images[id] = ImageFile(path, read_unit_image)
            ids, inverse = (root / split / name / path.name for name in (folder, "depth"))
            if ids.is_file():
                labels["semseg"][id] = LabelFile(ids, partial(read_mtan_classes, count=classes))
            if inverse.is_file():
                labels["depth"][id] = LabelFile(inverse, tasks["depth"].read, plain=True)
    if not images:
        raise DataError(f"{root} looks like the MTAN layout of Cityscapes but has no image/0.npy in train or val")
    # The published rows count from 0.npy on: a copy with gaps has other positions.
    whole = splits["train"] == tuple(f"train/{i}" for i in range(len(splits["train"])))
    published = published_labels(PUBLISHED, splits["train"]) if whole else {}
    return DatasetIndex(root, images, tasks, labels, _with_test(splits), published)


def read_mtan_classes(path: Path, count: int) -> tuple[Array, Array]:
    """Class ids of an npy, whole numbers of any type, -1 void: value (1, H, W) uint8, valid (H, W)."""
    ids = read_array(path)
    ids = ids[..., 0] if ids.ndim == 3 and ids.shape[-1] == 1 else ids
    if ids.ndim != 2 or ids.dtype.kind not in "iuf":
        raise LabelError(f"label file {path} must hold numbers (H, W), found {ids.dtype} of shape {ids.shape}")
    wrong = ids[~np.isin(ids, np.arange(-1, count))]
    if wrong.size:
        raise LabelError(f"label file {path} holds {wrong[0]:g}; expected class ids 0 to {count - 1}, or -1 for void")
    return np.where(ids < 0, 0, ids).astype(np.uint8)[None], ids >= 0


# -- official ----------------------------------------------------------------------------------------------------------
def _open_official(root: Path, tasks: dict[str, Task], classes: int, depth: str) -> DatasetIndex:
    images: dict[str, ImageFile] = {}
    labels: _Files = {name: {} for name in tasks}
    splits: dict[str, tuple[str, ...]] = {}
    for split in _SPLITS:
        ending = "_leftImg8bit.png"
        # Names begin with the city; what macOS adds to archives begins with a dot.
        paths = sorted((root / "leftImg8bit" / split).glob(f"*/[!.]*{ending}"))
        found = {f"{split}/{path.parent.name}/{path.name.removesuffix(ending)}": ImageFile(path) for path in paths}
        for id in found:
            ids, disparity, camera = (
                root / kind / f"{id}_{type}"
                for kind, type in (
                    ("gtFine", "gtFine_labelIds.png"), ("disparity", "disparity.png"), ("camera", "camera.json"),
                )
            )  # fmt: skip
            if ids.is_file():
                labels["semseg"][id] = LabelFile(ids, partial(read_label_ids, classes=classes))
            if depth == "inverse" and disparity.is_file():
                labels["depth"][id] = LabelFile(disparity, read_inverse, plain=True)
            if depth == "metres" and disparity.is_file() and camera.is_file():
                labels["depth"][id] = LabelFile(disparity, partial(read_metres, camera=camera))
        images |= found
        splits[split] = tuple(found)
    if not images:
        raise DataError(f"{root}/leftImg8bit has no <city>/*_leftImg8bit.png in train or val")
    published = published_labels(PUBLISHED, splits["train"])
    return DatasetIndex(root, images, tasks, labels, _with_test(splits), published)


def read_label_ids(path: Path, classes: int) -> tuple[Array, Array]:
    """Official label ids 0..33 as 7 or 19 classes: value (1, H, W) uint8, valid (H, W); ignored ids are void."""
    ids = read_array(path)
    if ids.ndim != 2 or ids.dtype != np.uint8:
        raise LabelError(f"label file {path} must be an 8-bit grey PNG, found {ids.dtype} of shape {ids.shape}")
    if ids.size and ids.max() > 33:
        raise LabelError(f"label file {path} holds {ids.max()}; expected label ids 0 to 33 (not train ids)")
    table = np.full(34, -1)
    table[list(LABEL_IDS)] = CATEGORY if classes == 7 else range(19)
    found = table[ids]
    return np.where(found < 0, 0, found).astype(np.uint8)[None], found >= 0


def read_inverse(path: Path) -> tuple[Array, Array]:
    """Stored disparity / 65535: value (1, H, W) float32, valid (H, W) where it is not 0."""
    stored = _disparity(path)
    return np.where(stored > 0, stored / np.float32(65535), np.float32(1))[None], stored > 0


def read_metres(path: Path, camera: Path) -> tuple[Array, Array]:
    """Depth in metres, baseline x fx / disparity: value (1, H, W) float32, valid (H, W) where disparity is above 0."""
    stored = _disparity(path)
    factor = _baseline_times_focal(camera)
    valid = stored > 1
    return np.where(valid, factor * 256 / np.where(valid, stored - 1, 1), 1).astype(np.float32)[None], valid


def _disparity(path: Path) -> Array:
    """The stored disparity (H, W) as float32."""
    stored = read_array(path)
    # Some versions of Pillow give 16-bit pixels as int32.
    if stored.ndim != 2 or stored.dtype.kind not in "iu" or stored.dtype.itemsize < 2:
        raise LabelError(f"disparity {path} must be a 16-bit grey PNG, found {stored.dtype} of shape {stored.shape}")
    return stored.astype(np.float32)


def _baseline_times_focal(path: Path) -> float:
    """Metres times pixels."""
    try:
        camera = read_json(path)
        factor = float(camera["extrinsic"]["baseline"]) * float(camera["intrinsic"]["fx"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LabelError(
            f"camera file {path} needs extrinsic.baseline and intrinsic.fx as JSON ({type(error).__name__}: {error})"
        ) from error
    if not 0 < factor < math.inf:
        raise LabelError(f"camera file {path} gives baseline x fx = {factor}; expected a number above 0")
    return factor


@DATASETS.register("cityscapes")
class CityscapesSource(FolderOfFiles):
    """Cityscapes in any of its usual layouts, recognised by its files."""

    kind: Literal["cityscapes"] = "cityscapes"
    classes: Literal[7, 19] = Field(7, description="classes of semantic segmentation: 7 groups, or the official 19")
    depth: Literal["inverse", "metres"] = Field("inverse", description="inverse: disparity / 65535, as published")
    how_to_get: ClassVar[str] = (
        "register at https://www.cityscapes-dataset.com and unpack into one folder "
        "leftImg8bit_trainvaltest.zip (11 GB), gtFine_trainvaltest.zip (241 MB), disparity_trainvaltest.zip (3.5 GB) "
        "and, for depth in metres, camera_trainvaltest.zip (2 MB); or MTAN's cityscapes2.zip (651 MB, linked in "
        "https://github.com/lorenmt/mtan), unpacked"
    )

    def open_index(self, size: tuple[int, int], progress: bool = False) -> DatasetIndex:
        """List the files below ``root``, of a layout that is recognised by its files."""
        return open_cityscapes(self.folder(), self.classes, self.depth)
