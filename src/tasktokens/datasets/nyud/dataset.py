"""NYU Depth v2: 1449 pictures of rooms (795 for training, 654 for test) with classes, depth and normals.

Silberman, Hoiem, Kohli and Fergus, "Indoor segmentation and support inference from RGBD images", ECCV 2012;
https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html. Kinect pictures of 480 x 640. The authors ask for the citation;
we know of no licence that they state, so look at their page before you pass the pictures on.

Tasks: ``semseg`` (13 or 40 classes), ``depth`` in metres (0.71 to 10), ``normals`` (unit vectors, x right, y down, z
forward, pointing to the camera) and, in the layout of ATRC, ``edge``. Splits: ``train`` and ``test``, the official
ones; what MTAN and ATRC call ``val`` is the official test set and has the name ``test`` here, so that nobody selects a
model on it unawares.

Four layouts are known, by their files:

    MTAN      {train,val}/{image,label,depth,normal}/{i}.npy, 288 x 384 (Liu et al., CVPR 2019)
              image (H, W, 3) float 0..1; label (H, W), -1 void, 13 classes; depth (H, W, 1) metres, 0 or NaN void;
              normal (H, W, 3), (0, 0, 0) void
    ATRC      images/*.png|jpg, segmentation/*.png (0 void, 1..40), depth/*.npy metres, normals/*.png (2 v / 255 - 1) or
              npy, edge/*.png (0 or 255) or npy, gt_sets/{train,val}.txt; 425 x 560 (Bruggemann et al., ICCV 2021)
    official  nyu_depth_v2_labeled.mat with splits.mat and classMapping40.mat (see `nyud_mat`)
    compact   image/{id}.jpg, depth/{id}.png (8 bit, metres = (v + 0.5) / 25.5, 0 void), semseg40/{id}.png (0 void,
              1..40), train.txt, test.txt, 288 x 384; normals are computed from the depth on reading

In the last two the normals have no file of their own: where depth is hidden and normals are not, its file is opened for
them.

The published splits of labels count the training images by position: of the MTAN files, of ``gt_sets/train.txt``, of
the official training indices in rising order, and of ``train.txt``. That these four orders are the same is likely (each
lists 795 official training images) but documented nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

from tasktokens.data.visibility import VisibleLabels
from tasktokens.datasets.index import DatasetIndex, ImageFile, LabelFile
from tasktokens.datasets.layouts import unknown_layout
from tasktokens.datasets.mtan import numbered, read_unit_image
from tasktokens.datasets.nyud.files import (
    PUBLISHED,
    compact_depth,
    compact_normals,
    forty_classes,
    npy_depth,
    nyud_tasks,
    published_normals,
    read_edge,
    thirteen_classes,
)
from tasktokens.datasets.nyud.mat import MAT_FILE, MAT_HELP, open_mat
from tasktokens.datasets.published import published_labels
from tasktokens.errors import ConfigError, DataError
from tasktokens.tasks import Edge, Normals
from tasktokens.tasks.base import Array

Reader = Callable[[Path], tuple[Array, Array]]
"""From a path to value (C, H, W) and valid (H, W)."""


class Layout(NamedTuple):
    """One of the ways in which the data set lies on disk: it is this one where all of ``marks`` are there.

    Attributes:
        name: as messages and the documentation call it.
        marks: files by which it is recognised.
        needs: files that it must have, for the message where it lacks one.
        open: makes the index from the root and the number of classes (13 or 40).
        help: more for the message, such as where to get the files.
    """

    name: str
    marks: tuple[str, ...]
    needs: tuple[str, ...]
    open: Callable[[Path, int], DatasetIndex]
    help: str = ""


def open_nyud(root: Path, classes: int = 13) -> DatasetIndex:
    """List NYU Depth v2 in whichever layout lies in a folder; nothing is decoded.

    Args:
        root: the folder.
        classes: 13 or 40 (the MTAN files have 13 only).

    Raises:
        DataError: no layout fits, or the files of a layout are incomplete or broken; the message names them.
        ConfigError: the layout does not have this number of classes.
    """
    layout = find_layout(root)
    missing = [name for name in layout.needs if not (root / name).exists()]
    if missing:
        raise DataError(
            f"{root} looks like the {layout.name} layout of NYU Depth v2 but lacks {', '.join(missing)}; "
            f"expected {', '.join(layout.needs)}{layout.help}"
        )
    return layout.open(root, classes)


def find_layout(root: Path) -> Layout:
    """The layout that the files in a folder have. Raises `DataError` naming what each needs and what was found."""
    for layout in LAYOUTS:
        if all((root / mark).exists() for mark in layout.marks):
            return layout
    known = [f"{layout.name}: {', '.join(layout.needs)}" for layout in LAYOUTS]
    raise unknown_layout(root, "NYU Depth v2", known, _fits)


def _fits(root: Path) -> bool:
    return any(all((root / mark).exists() for mark in layout.marks) for layout in LAYOUTS)


def _published(train: Sequence[str]) -> dict[str, VisibleLabels]:
    return published_labels(PUBLISHED, train)


# -- MTAN --------------------------------------------------------------------------------------------------------------
def _open_mtan(root: Path, classes: int) -> DatasetIndex:
    if classes != 13:
        raise ConfigError(
            f"the MTAN files in {root} have 13 classes only, found classes={classes}; set data.classes=13"
        )
    tasks = nyud_tasks(classes)
    readers: dict[str, tuple[str, Reader]] = {
        "semseg": ("label", thirteen_classes),
        "depth": ("depth", npy_depth),
        "normals": ("normal", partial(published_normals, task=cast(Normals, tasks["normals"]))),
    }
    images: dict[str, ImageFile] = {}
    labels: dict[str, dict[str, LabelFile]] = {name: {} for name in tasks}
    splits = {"train": numbered(root / "train" / "image"), "test": numbered(root / "val" / "image")}
    for paths, folder in zip(splits.values(), ("train", "val"), strict=True):
        if not paths:
            raise DataError(f"{root / folder / 'image'} must hold 0.npy, 1.npy and so on; found none")
    ids = {name: tuple(_mtan_id(path) for path in paths) for name, paths in splits.items()}
    for paths in splits.values():
        for path in paths:
            id = _mtan_id(path)
            images[id] = ImageFile(path, read_unit_image)
            for name, (folder, reader) in readers.items():
                file = path.parent.parent / folder / path.name
                if file.is_file():
                    labels[name][id] = LabelFile(file, reader)
    for name, files in labels.items():
        if not files:
            raise DataError(
                f"{root}/train/{readers[name][0]} holds no label of any image; expected files such as 0.npy"
            )
    # The published rows count from 0.npy on: a copy with gaps has other positions.
    whole = [path.stem for path in splits["train"]] == [str(i) for i in range(len(splits["train"]))]
    return DatasetIndex(root, images, tasks, labels, ids, _published(ids["train"]) if whole else {})


def _mtan_id(image: Path) -> str:
    return f"{image.parent.parent.name}/{image.stem}"


# -- ATRC --------------------------------------------------------------------------------------------------------------
def _open_atrc(root: Path, classes: int) -> DatasetIndex:
    tasks = nyud_tasks(classes)
    normals = partial(published_normals, task=cast(Normals, tasks["normals"]))
    folders: dict[str, tuple[str, tuple[str, ...], Reader]] = {
        "semseg": ("segmentation", (".png",), partial(forty_classes, classes=classes)),
        "depth": ("depth", (".npy",), npy_depth),
        "normals": ("normals", (".png", ".npy"), normals),
    }
    if (root / "edge").is_dir():
        tasks["edge"] = Edge("edge", max_distance=0.011)
        folders["edge"] = ("edge", (".png", ".npy"), partial(read_edge, task=tasks["edge"]))
    lists = {"train": root / "gt_sets" / "train.txt", "test": root / "gt_sets" / "val.txt"}
    splits, images = _listed(lists, root / "images", (".png", ".jpg"))
    labels = {
        name: _labelled(images, root / folder, endings, reader) for name, (folder, endings, reader) in folders.items()
    }
    return DatasetIndex(root, images, tasks, labels, splits, _published(splits["train"]))


# -- compact -----------------------------------------------------------------------------------------------------------
def _open_compact(root: Path, classes: int) -> DatasetIndex:
    tasks = nyud_tasks(classes)
    lists = {"train": root / "train.txt", "test": root / "test.txt"}
    splits, images = _listed(lists, root / "image", (".jpg", ".png"))
    forty = partial(forty_classes, classes=classes)
    normals = partial(compact_normals, task=cast(Normals, tasks["normals"]))
    labels = {
        "semseg": _labelled(images, root / "semseg40", (".png",), forty),
        "depth": _labelled(images, root / "depth", (".png",), compact_depth),
        "normals": _labelled(images, root / "depth", (".png",), normals),
    }
    return DatasetIndex(root, images, tasks, labels, splits, _published(splits["train"]))


# -- lists of files ----------------------------------------------------------------------------------------------------
def _listed(
    lists: dict[str, Path], folder: Path, endings: tuple[str, ...]
) -> tuple[dict[str, tuple[str, ...]], dict[str, ImageFile]]:
    """The ids that each list names, one per line, and their images. Raises `DataError` for an image that is missing."""
    files = _by_stem(folder, endings)
    splits = {name: _ids(path) for name, path in lists.items()}
    for name, ids in splits.items():
        missing = [id for id in ids if id not in files]
        if missing or not ids:
            what = f"'{missing[0]}' ({len(missing)} such), for which there is no image" if missing else "no image"
            raise DataError(f"{lists[name]} lists {what} in {folder} ({', '.join(endings)})")
    return splits, {id: ImageFile(files[id]) for ids in splits.values() for id in ids}


def _ids(path: Path) -> tuple[str, ...]:
    try:
        return tuple(path.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); expected one id per line") from error


def _labelled(images: Iterable[str], folder: Path, endings: tuple[str, ...], reader: Reader) -> dict[str, LabelFile]:
    """The labels in a folder. Raises `DataError` where not one image has any: then the files are of another kind."""
    files = _by_stem(folder, endings)
    labels = {id: LabelFile(files[id], reader) for id in images if id in files}
    if not labels:
        raise DataError(
            f"{folder} holds no label of any listed image; expected files such as {next(iter(images))}{endings[0]}"
        )
    return labels


def _by_stem(folder: Path, endings: tuple[str, ...]) -> dict[str, Path]:
    """Files of a folder by name without ending; the first of the endings wins."""
    if not folder.is_dir():
        raise DataError(f"{folder} must be a folder of {', '.join(endings)} files")
    paths = [path for path in sorted(folder.iterdir()) if path.suffix in endings and not path.name.startswith(".")]
    return {path.stem: path for path in sorted(paths, key=lambda path: -endings.index(path.suffix))}


LAYOUTS = (
    Layout("official", (MAT_FILE,), (MAT_FILE, "splits.mat", "classMapping40.mat"), open_mat, MAT_HELP),
    Layout(
        "MTAN",
        ("train/image", "train/normal", "val/image"),
        tuple(f"{split}/{kind}" for split in ("train", "val") for kind in ("image", "label", "depth", "normal")),
        _open_mtan,
    ),
    Layout(
        "ATRC",
        ("gt_sets", "images"),
        ("images", "segmentation", "depth", "normals", "gt_sets/train.txt", "gt_sets/val.txt"),
        _open_atrc,
    ),
    Layout("compact", ("semseg40",), ("image", "depth", "semseg40", "train.txt", "test.txt"), _open_compact),
)
"""The known layouts, tried in this order."""
