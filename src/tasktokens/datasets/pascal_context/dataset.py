"""PASCAL-Context with five tasks: 4998 training and 5105 validation photographs, in the layout of ATRC.

Images and classes: Everingham et al., PASCAL VOC, IJCV 2010; Mottaghi et al., "The role of context for object detection
and semantic segmentation in the wild", CVPR 2014. Parts: Chen et al., "Detect what you can", CVPR 2014. Put together,
with labels distilled from networks, by Maninis et al., "Attentive single-tasking of multiple tasks", CVPR 2019, and
released by Bruggemann et al., "Exploring relational context for multi-task dense prediction", ICCV 2021. The pictures
are from Flickr, under its terms; we know of no licence for the label files: look before you pass them on.

    JPEGImages/{id}.jpg
    semseg/VOC12/{id}.png            21 classes, 255 void; where there is none: semseg/pascal-context/{id}.png
    human_parts/{id}.mat             PASCAL-Part: anno.objects, each with class_ind, mask, parts (part_name, mask)
    sal_distill/{id}.png             salient above 127 (distilled)
    normals_distill/{id}.png         2 v / 255 - 1 (distilled)
    pascal-context/trainval/{id}.mat LabelMap (H, W), 459 classes
    ImageSets/Context/{train,val}.txt  ids, one per line
    ImageSets/Parts/{train,val}.txt  JSON: for each id the classes of its objects; optional

Tasks, each with labels where its files exist:

- ``semseg``: 21 classes.
- ``human_parts``: 7 classes, merged as published: hair and all of the face are head, the neck is torso, a hand goes
  with the lower arm, a foot with the lower leg. People without annotated parts are background, as published. A picture
  with no person (class 15 in ImageSets/Parts) has no label; without those lists its file is read, and is all void.
- ``saliency``: salient or not.
- ``normals``: valid on the classes of the LabelMap that NYU Depth knows too, as published, since the network that they
  come from was trained there; so a label needs both files. The frame of the files is documented nowhere. We take x to
  the left, y up, z towards the camera, which is the negative of ours on all axes, for two reasons: the published
  transforms negate the first channel in a mirror and turn the first two as (left, up) or (right, down), and that
  network, PixelNet as far as we know, saw NYU normals of Ladicky et al., which point left, up and to the viewer. This
  is not verified on genuine files; a map of which too little would face the camera is refused.
- ``edge``: where the LabelMap changes to the right or below, one pixel wide (published: on both sides, then thinned).

Splits: ``train``, ``val``, and ``test``, which is ``val`` under the name that runs evaluate: the published tables are
measured on it. The published splits of labels name images, so they are exact; where they show human parts of a picture
without a person, nothing is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import cast

from tasktokens.data.visibility import VisibleLabels
from tasktokens.datasets.index import DatasetIndex, ImageFile, LabelFile
from tasktokens.datasets.layouts import unknown_layout
from tasktokens.datasets.pascal_context.labels import (
    CLASSES_21,
    PARTS_7,
    PERSON,
    read_edges,
    read_normals,
    read_parts,
    read_saliency,
)
from tasktokens.datasets.published import published_labels
from tasktokens.errors import DataError
from tasktokens.tasks import Edge, Normals, Saliency, Segmentation, Task
from tasktokens.utils.safe_io import read_json

PUBLISHED = {"one": "pascal_context_one_label.csv", "random": "pascal_context_random_labels.csv"}
"""File of the published label split for each rule."""

_KNOWN = "ATRC: JPEGImages, semseg, human_parts, sal_distill, normals_distill, pascal-context and ImageSets/Context"


def open_pascal_context(root: Path) -> DatasetIndex:
    """List PASCAL-Context; nothing is decoded.

    Raises `DataError` where the folder has another layout, a list is missing, or a listed image is.
    """
    if not _fits(root):
        raise unknown_layout(root, "PASCAL-Context", [_KNOWN], _fits)
    splits = {name: _ids(root / "ImageSets" / "Context" / f"{name}.txt") for name in ("train", "val")}
    photographs = _by_id(root / "JPEGImages", "jpg")
    for name, ids in splits.items():
        missing = [id for id in ids if id not in photographs]
        if missing:
            raise DataError(
                f"{root}/ImageSets/Context/{name}.txt lists '{missing[0]}' ({len(missing)} such), which is not in "
                f"{root}/JPEGImages; complete the data set"
            )
    images = {id: ImageFile(photographs[id]) for ids in splits.values() for id in ids}
    alone = frozenset(id for name in splits for id in _without_person(root / "ImageSets" / "Parts" / f"{name}.txt"))
    tasks = pascal_tasks()
    labels = {
        name: {id: file for id, file in of_task.items() if id in images and not (name == "human_parts" and id in alone)}
        for name, of_task in _label_files(root, tasks).items()
    }
    published = {
        rule: _without_parts(split, alone) for rule, split in published_labels(PUBLISHED, splits["train"]).items()
    }
    return DatasetIndex(root, images, tasks, labels, splits | {"test": splits["val"]}, published)


def pascal_tasks() -> dict[str, Task]:
    """The five tasks, in the order of the published splits."""
    return {
        "semseg": Segmentation("semseg", classes=CLASSES_21),
        "human_parts": Segmentation("human_parts", classes=PARTS_7),
        "saliency": Saliency("saliency"),
        "normals": Normals("normals"),
        "edge": Edge("edge"),
    }


def _fits(root: Path) -> bool:
    return (root / "JPEGImages").is_dir() and (root / "ImageSets" / "Context").is_dir()


def _label_files(root: Path, tasks: Mapping[str, Task]) -> dict[str, dict[str, LabelFile]]:
    """For each task its label files by id."""
    classes = _by_id(root / "semseg" / "pascal-context", "png") | _by_id(root / "semseg" / "VOC12", "png")
    maps = _by_id(root / "pascal-context" / "trainval", "mat")
    normals = _by_id(root / "normals_distill", "png")
    task = cast(Normals, tasks["normals"])
    return {
        "semseg": {id: LabelFile(path, tasks["semseg"].read, plain=True) for id, path in classes.items()},
        "human_parts": {id: LabelFile(path, read_parts) for id, path in _by_id(root / "human_parts", "mat").items()},
        "saliency": {id: LabelFile(path, read_saliency) for id, path in _by_id(root / "sal_distill", "png").items()},
        "normals": {
            id: LabelFile(path, partial(read_normals, task=task, label_map=maps[id]))
            for id, path in normals.items()
            if id in maps
        },
        "edge": {id: LabelFile(path, read_edges) for id, path in maps.items()},
    }


def _by_id(folder: Path, ending: str) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob(f"*.{ending}")) if not path.name.startswith(".")}


def _ids(path: Path) -> tuple[str, ...]:
    """The lines of a list."""
    try:
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the list {path} of images ({error}); it must have one id per line") from error
    if not lines:
        raise DataError(f"the list {path} of images is empty")
    return tuple(dict.fromkeys(lines))


def _without_person(path: Path) -> list[str]:
    """Ids in which a list of ImageSets/Parts names no person; none where there is no such list."""
    if not path.is_file():
        return []
    try:
        objects = read_json(path)
        return [id for id, classes in objects.items() if PERSON not in classes]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(
            f"{path} must be JSON that gives for each id the classes of its objects, such as "
            f'{{"2008_000008": [13, 15]}} ({error}); repair or remove it'
        ) from error


def _without_parts(split: VisibleLabels, alone: frozenset[str]) -> VisibleLabels:
    """A published split that shows no parts where there is no person, since there is nothing to see."""
    return {
        id: tuple(task for task in shown if not (task == "human_parts" and id in alone)) for id, shown in split.items()
    }
