"""COCO instances and stuff: one JSON of images, categories and masks as polygons or run lengths.

https://cocodataset.org/#format-data. Polygons are drawn by pycocotools, as the data set's own masks are; pixels that
two categories claim have no label, since the format has no layers. Written are one mask per class and image with
``score`` and ``source``; pixels without a label are in no mask.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from tasktokens.datasets.formats.archive import Archive
from tasktokens.datasets.formats.base import (
    FORMATS,
    VOID,
    Annotations,
    Array,
    Entry,
    ExportItem,
    Format,
    Size,
    Vocabulary,
    add_file,
    add_image,
    paint,
    same_size,
)
from tasktokens.datasets.formats.runs import coco_counts, coco_mask
from tasktokens.errors import DataError
from tasktokens.utils import strict_json
from tasktokens.utils.safe_io import check_pixels, load_json

_OTHERS = ("captions_", "person_keypoints_", "image_info_")
"""Beginnings of COCO's files that hold no masks."""


@FORMATS.register("coco")
class Coco(Format):
    """COCO instances or stuff: JSON with polygons or run lengths."""

    needs = ("pycocotools",)

    def recognises(self, archive: Archive) -> bool:
        """JSON files with images, categories and segmentations."""
        return any(is_coco(archive.read(name)) for name in mask_files(archive)[:1])

    def read(self, archive: Archive) -> Annotations:
        """All JSON files; a file's name, such as ``instances_train2017.json``, says which split it is."""
        names = mask_files(archive)
        if not names:
            raise DataError(f"{archive.path} holds no JSON file of COCO")
        files = [(name, read_parts(archive, name, "segmentation")) for name in names]
        numbers, classes = category_numbers(archive, files)
        entries = []
        for name, (images, _, found) in files:
            where = archive.where(name)
            entries += [_entry(image, found.get(id, ()), numbers, where) for id, image in images.items()]
        return Annotations(classes, tuple(entries), splits_of(files))

    def write(self, out: zipfile.ZipFile, vocabulary: Vocabulary, items: Iterable[ExportItem]) -> None:
        """``annotations.json`` and the images."""
        images, annotations = [], list[dict[str, Any]]()
        for number, item in enumerate(items, 1):
            images.append(describe_image(number, item))
            for of, mask in item.masks():
                if of != VOID:
                    annotations.append({"id": len(annotations) + 1, **_annotation(number, of, mask, item)})
            add_image(out, item)
        values = {"images": images, "categories": categories(vocabulary), "annotations": annotations}
        add_file(out, "annotations.json", strict_json.dumps(values, ensure_ascii=False))


# -- shared with panoptic ----------------------------------------------------------------------------------------------
Parts = tuple[dict[Any, Mapping[str, Any]], dict[int, str], dict[Any, list[Mapping[str, Any]]]]
"""Images by id, category names by id, annotations by the id of their image."""


def mask_files(archive: Archive) -> list[str]:
    """The JSON files that may hold masks."""
    return [name for name in archive.find(".json") if not PurePosixPath(name).name.startswith(_OTHERS)]


def is_coco(content: bytes) -> bool:
    """Whether a JSON has what COCO's instances and stuff have."""
    keys = (b'"images"', b'"categories"', b'"annotations"')
    return all(key in content for key in keys) and b'"segments_info"' not in content


def split_of(name: str) -> str:
    """The split that a file's name says.

    Examples:
        >>> split_of("annotations/instances_val2017.json"), split_of("annotations.json")
        ('val', 'train')
    """
    found = re.search(r"(?:^|[^a-z])(train|val|test)", PurePosixPath(name).stem.lower())
    return found[1] if found else "train"


def splits_of(files: Sequence[tuple[str, Parts]]) -> dict[str, tuple[str, ...]] | None:
    """Image names by the split that their file is; None where a single file says nothing but ``train``."""
    splits = {split_of(name): tuple(str(image["file_name"]) for image in parts[0].values()) for name, parts in files}
    return splits if len(files) > 1 or "train" not in splits else None


def read_parts(archive: Archive, name: str, key: str) -> Parts:
    """The parts of a JSON whose annotations have ``key``. Raises `DataError` where it is not that."""
    where = archive.where(name)
    try:
        values = load_json(archive.read(name).decode("utf-8"))
        images = {image["id"]: image for image in values["images"]}
        names = {int(category["id"]): str(category["name"]) for category in values["categories"]}
        annotations: dict[Any, list[Mapping[str, Any]]] = {}
        for annotation in values["annotations"]:
            if key not in annotation:
                raise ValueError(f"an annotation without '{key}'")
            if annotation["image_id"] not in images:
                raise ValueError(f"an annotation of the image {annotation['image_id']!r}, which is not listed")
            annotations.setdefault(annotation["image_id"], []).append(annotation)
        for image in images.values():
            check_pixels(int(image["height"]), int(image["width"]))
            str(image["file_name"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{where} is no JSON of COCO with masks ({_said(error)}); export it again") from error
    return images, names, annotations


def category_numbers(archive: Archive, files: Sequence[tuple[str, Parts]]) -> tuple[dict[int, int], tuple[str, ...]]:
    """Class number by category id, and the names, in the order of the ids. Files must agree on them."""
    names: dict[int, str] = {}
    for file, (_, found, _) in files:
        for id, name in found.items():
            if names.setdefault(id, name) != name:
                raise DataError(
                    f"{archive.where(file)} calls the category {id} '{name}', another file '{names[id]}'; open them "
                    f"one by one"
                )
    ids = sorted(names)
    classes = tuple(names[id] for id in ids)
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise DataError(f"{archive.path} has the category '{twice}' twice; give each a name of its own")
    return {id: number for number, id in enumerate(ids)}, classes


def describe_image(number: int, item: ExportItem) -> dict[str, Any]:
    """An image of a written JSON."""
    return {"id": number, "file_name": item.file, "height": item.size[0], "width": item.size[1]}


def categories(vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """The classes as stuff, whose ids begin at 1, as the format asks."""
    return [
        {"id": number, "name": name, "supercategory": vocabulary.task, "isthing": 0, "color": list(colour)}
        for number, (name, colour) in enumerate(zip(vocabulary.names, vocabulary.colours, strict=True), 1)
    ]


def box(mask_HW: Array) -> list[int]:
    """[left, top, width, height] of a mask that is not empty."""
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    return [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top]


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)


# -- masks -------------------------------------------------------------------------------------------------------------
def _annotation(image: int, of: int, mask: Array, item: ExportItem) -> dict[str, Any]:
    return {
        "image_id": image,
        "category_id": of + 1,
        "segmentation": {"size": list(item.size), "counts": coco_counts(mask)},
        "area": int(mask.sum()),
        "bbox": box(mask),
        "iscrowd": 0,
        "score": item.score(mask),
        "source": item.source,
    }


def _entry(
    image: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]], numbers: Mapping[int, int], where: str
) -> Entry:
    name, size = str(image["file_name"]), (int(image["height"]), int(image["width"]))
    what = f"image '{name}' of {where}"
    layers = []
    for annotation in annotations:
        number = numbers.get(annotation.get("category_id", -1))
        if number is None:
            raise DataError(f"{what} has the category {annotation.get('category_id')!r}, which is not listed")
        layers.append((number, partial(draw_segmentation, segmentation=annotation["segmentation"], what=what)))
    draw = partial(_draw, layers=tuple(layers), size_in_file=size, what=what)
    return Entry(name, size, draw, empty=not layers)


def _draw(size: Size, layers: tuple[Any, ...], size_in_file: Size, what: str) -> Array:
    same_size(size_in_file, size, what)
    return paint(layers, size, on_top=False)


def draw_segmentation(size: Size, segmentation: Any, what: str) -> Array:
    """COCO's polygons or run lengths as a mask (H, W) bool. Raises `DataError`."""
    height, width = size
    try:
        if isinstance(segmentation, list):
            return _draw_polygons(segmentation, height, width)
        same_size((int(segmentation["size"][0]), int(segmentation["size"][1])), size, f"a mask of {what}")
        return coco_mask(segmentation["counts"], height, width)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise DataError(f"a mask of {what} is damaged ({_said(error)}); export it again") from error


def _draw_polygons(polygons: list[Any], height: int, width: int) -> Array:
    from pycocotools import mask as coco

    checked = []
    for polygon in polygons:
        points = np.asarray(polygon, np.float64)
        if points.ndim != 1 or len(points) < 6 or len(points) % 2:
            raise ValueError("a polygon must be a list of x, y of at least three points")
        # pycocotools asks for memory by the length of the sides.
        if not np.isfinite(points).all() or np.abs(points).max() > 4 * max(height, width):
            raise ValueError("a polygon lies far outside its image")
        checked.append(points.tolist())
    if not checked:
        return np.zeros((height, width), bool)
    drawn: Array = coco.decode(coco.merge(coco.frPyObjects(checked, height, width)))
    return drawn.astype(bool)
