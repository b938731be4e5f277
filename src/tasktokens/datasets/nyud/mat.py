"""The official files of NYU Depth v2: ``nyu_depth_v2_labeled.mat`` (2.8 GB), ``splits.mat`` and ``classMapping40.mat``.

The large file is HDF5 (MATLAB 7.3), whose axes come reversed: images (1449, 3, 640, 480) uint8, depths (1449, 640, 480)
metres, holes filled in by the authors, labels (1449, 640, 480) uint16, 0 = unlabelled, else one of 894 names counted
from 1. It holds no normals: they are computed from the depth and the camera (0.4 s a picture; ``tasktokens prepare``
does it once). ``splits.mat`` holds ``trainNdxs`` and ``testNdxs``, counted from 1. ``classMapping40.mat`` holds
``mapClass``, for each of the 894 names its class of the 40 (Gupta, Arbelaez and Malik, CVPR 2013), and
``allClassName``. The 13 classes follow from the 40 (Couprie et al., ICLR 2013; the same table as in
``class13Mapping.mat``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np

from tasktokens.datasets.index import DatasetIndex, ImageFile, LabelFile
from tasktokens.datasets.nyud.files import PUBLISHED, class_table, computed_normals, look_up, metres, nyud_tasks
from tasktokens.datasets.published import published_labels
from tasktokens.errors import DataError
from tasktokens.tasks import Normals
from tasktokens.tasks.base import Array
from tasktokens.utils.safe_io import check_inflated_size, check_pixels

MAT_FILE = "nyu_depth_v2_labeled.mat"
"""Name of the published MATLAB file."""
MAT_HELP = (
    ": the first two come from the data set's page (https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html), "
    "classMapping40.mat, which maps the 894 names to 40 classes, from https://github.com/ankurhanda/nyuv2-meta-data"
)
"""The files of this layout, for messages."""


def open_mat(root: Path, classes: int) -> DatasetIndex:
    """List the images of the official files, by their official number such as ``0001``; nothing is decoded.

    Raises `DataError` where a file is broken or disagrees with the others, or h5py is not installed.
    """
    tasks = nyud_tasks(classes)
    path = root / MAT_FILE
    with _hdf5(path) as file:
        count = _check_shapes(path, file)
        names = _names(path, file)
    splits = {
        name: tuple(f"{index:04d}" for index in _indices(root / "splits.mat", key, count))
        for name, key in (("train", "trainNdxs"), ("test", "testNdxs"))
    }
    table = class_table(classes)[np.concatenate([[0], _forty(root / "classMapping40.mat", names)])]
    ids = sorted(id for ids in splits.values() for id in ids)

    def files(reader: Any, **options: Any) -> dict[str, LabelFile]:
        return {id: LabelFile(path, partial(reader, index=int(id) - 1, **options)) for id in ids}

    labels = {
        "semseg": files(read_classes, table=table),
        "depth": files(read_depth),
        "normals": files(read_normals, task=cast(Normals, tasks["normals"])),
    }
    images = {id: ImageFile(path, partial(read_picture, index=int(id) - 1)) for id in ids}
    return DatasetIndex(root, images, tasks, labels, splits, published_labels(PUBLISHED, splits["train"]))


def read_picture(path: Path, index: int) -> Array:
    """Picture number ``index``, counted from 0: (480, 640, 3) uint8."""
    return np.ascontiguousarray(_read(path, "images", index).transpose(2, 1, 0))


def read_classes(path: Path, index: int, table: Array) -> tuple[Array, Array]:
    """Classes by ``table``, which gives for 0 (unlabelled) and each of the names the class, or -1 for void."""
    return look_up(path, _read(path, "labels", index).T.astype(np.int64), table)


def read_depth(path: Path, index: int) -> tuple[Array, Array]:
    """Depth in metres (1, 480, 640); 0 and NaN are void. Raises `LabelError` for other units."""
    return metres(path, _read(path, "depths", index).T)


def read_normals(path: Path, index: int, task: Normals) -> tuple[Array, Array]:
    """Normals computed from the depth: (3, 480, 640), valid where a plane fits."""
    depth, valid = read_depth(path, index)
    return computed_normals(np.where(valid, depth[0], 0), task)


def _read(path: Path, name: str, index: int) -> Array:
    # Opened each time: it takes a millisecond, and an open file must not be shared with forked loader processes.
    with _hdf5(path) as file:
        return np.asarray(file[name][index])


@contextmanager
def _hdf5(path: Path) -> Iterator[Any]:
    """The file opened for reading; whatever breaks in it is a `DataError`."""
    h5py = _h5py(path)
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError, AttributeError, RuntimeError, ValueError, TypeError, MemoryError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); expected the 2.8 GB file as downloaded: get it again"
        ) from error


def _h5py(path: Path) -> ModuleType:
    try:
        import h5py
    except ImportError as error:
        raise DataError(f'{path} is HDF5 and needs h5py: pip install "tasktokens[nyud]"') from error
    return cast(ModuleType, h5py)


def _check_shapes(path: Path, file: Any) -> int:
    """How many pictures there are. Raises `DataError` unless images, depths and labels agree."""
    found = {name: tuple(file[name].shape) if name in file else None for name in ("images", "depths", "labels")}
    images, depths, labels = found.values()
    if not (images and depths and labels) or len(images) != 4 or images[1] != 3 or depths != (images[0], *images[2:]):
        raise DataError(f"{path} must hold images (N, 3, 640, 480), depths and labels (N, 640, 480), found {found}")
    if labels != depths:
        raise DataError(f"{path}: labels must have the shape {depths} of depths, found {labels}")
    check_pixels(*depths[1:])
    return int(images[0])


def _names(path: Path, file: Any) -> list[str]:
    """The names of the labels, in order: a cell array of references to strings of 16-bit characters."""
    try:
        return [
            "".join(map(chr, np.asarray(file[item]).ravel().tolist())) for item in np.asarray(file["names"]).ravel()
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} holds no list of names of its labels ({error}); get it again") from error


def _indices(path: Path, key: str, count: int) -> list[int]:
    """Official numbers of a split, counted from 1."""
    numbers = np.asarray(_matlab(path, key)).ravel()
    if not numbers.size or numbers.dtype.kind not in "iuf" or not (numbers.min() >= 1 and numbers.max() <= count):
        raise DataError(f"{path}: {key} must hold numbers from 1 to {count}, the pictures of {MAT_FILE}")
    return [int(number) for number in numbers]


def _forty(path: Path, names: list[str]) -> Array:
    """For each name of the labels its class of the 40, counted from 1."""
    classes = np.asarray(_matlab(path, "mapClass")).ravel()
    listed = [str(np.asarray(cell).item()) for cell in np.asarray(_matlab(path, "allClassName")).ravel()]
    if len(classes) != len(names) or listed != names or not 1 <= classes.min() <= classes.max() <= 40:
        raise DataError(
            f"{path} must map the {len(names)} names of {MAT_FILE}, in their order, to 1..40; found {len(listed)} "
            f"names and {len(classes)} classes: take the classMapping40.mat that goes with the NYU Depth v2 labels"
        )
    return classes.astype(np.int64)


def _matlab(path: Path, key: str) -> Any:
    """One variable of a MATLAB file of version 5. Raises `DataError` where it cannot be had."""
    from scipy.io import loadmat

    try:
        check_inflated_size(path)
        return loadmat(path, variable_names=[key])[key]
    except KeyError as error:
        raise DataError(f"{path} holds no {key}; it is not the file that this layout needs") from error
    except Exception as error:  # scipy raises a dozen kinds for a damaged file
        raise DataError(f"{path} cannot be read as a MATLAB file ({error}); get it again") from error
