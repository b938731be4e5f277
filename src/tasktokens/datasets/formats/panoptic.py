"""COCO panoptic: per image a PNG of segment ids (R + 256 G + 65536 B), and one JSON of their categories.

https://cocodataset.org/#format-data. Written is one segment per class and image, with ``score`` and ``source``; id 0 is
no label. Read are all segments by category; which of several instances a pixel belongs to is not kept.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from tasktokens.datasets.formats.archive import Archive
from tasktokens.datasets.formats.base import (
    ABSENT,
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
    same_size,
)
from tasktokens.datasets.formats.coco import (
    box,
    categories,
    category_numbers,
    describe_image,
    mask_files,
    read_parts,
    splits_of,
)
from tasktokens.datasets.formats.pictures import decode_png, encode_png
from tasktokens.errors import DataError
from tasktokens.tasks.class_files import look_up
from tasktokens.utils import strict_json


@FORMATS.register("panoptic")
class Panoptic(Format):
    """COCO panoptic: PNG of segment ids with a JSON."""

    map_folders = ("panoptic",)

    def recognises(self, archive: Archive) -> bool:
        """JSON files with ``segments_info``."""
        return any(b'"segments_info"' in archive.read(name) for name in mask_files(archive)[:1])

    def read(self, archive: Archive) -> Annotations:
        """All JSON files; the PNG lie in a folder of the JSON's name, or anywhere if their names are unique."""
        names = mask_files(archive)
        files = [(name, read_parts(archive, name, "segments_info")) for name in names]
        if not files:
            raise DataError(f"{archive.path} holds no JSON file of COCO panoptic")
        numbers, classes = category_numbers(archive, files)
        entries = []
        for name, (images, _, found) in files:
            maps = _maps(archive, name)
            for id, image in images.items():
                entries.append(_entry(archive, name, image, found.get(id, []), numbers, maps))
        return Annotations(classes, tuple(entries), splits_of(files))

    def write(self, out: zipfile.ZipFile, vocabulary: Vocabulary, items: Iterable[ExportItem]) -> None:
        """``panoptic.json``, ``panoptic/{id}.png`` and the images."""
        images, annotations = [], []
        for number, item in enumerate(items, 1):
            ids = np.where(item.classes == VOID, 0, item.classes.astype(np.int32) + 1)
            # Classes are at most 256, so two bytes hold them.
            pixels = np.stack([ids & 255, ids >> 8, np.zeros_like(ids)], axis=-1).astype(np.uint8)
            file = f"{item.id}.png"
            add_file(out, f"panoptic/{file}", encode_png(pixels))
            add_image(out, item)
            images.append(describe_image(number, item))
            segments = [_segment(of, mask, item) for of, mask in item.masks() if of != VOID]
            annotations.append({"image_id": number, "file_name": file, "segments_info": segments})
        values = {"images": images, "categories": categories(vocabulary), "annotations": annotations}
        add_file(out, "panoptic.json", strict_json.dumps(values, ensure_ascii=False))


def _segment(of: int, mask: Array, item: ExportItem) -> dict[str, Any]:
    return {
        "id": of + 1,
        "category_id": of + 1,
        "area": int(mask.sum()),
        "bbox": box(mask),
        "iscrowd": 0,
        "score": item.score(mask),
        "source": item.source,
    }


def _maps(archive: Archive, name: str) -> Callable[[str], str | None]:
    """From a file name of the JSON to the name in the archive."""
    stem = PurePosixPath(name).stem
    pictures = archive.find(".png")
    by_path = {path: path for path in pictures}
    of_name: dict[str, list[str]] = {}
    for path in pictures:
        of_name.setdefault(PurePosixPath(path).name, []).append(path)

    def find(file: str) -> str | None:
        beside = PurePosixPath(name).parent / stem / file
        if str(beside) in by_path:
            return str(beside)
        found = [path for path in of_name.get(PurePosixPath(file).name, []) if f"/{path}".endswith(f"/{file}")]
        inside = [path for path in found if stem in PurePosixPath(path).parts]
        return (inside or found)[0] if len(inside or found) == 1 else None

    return find


def _entry(
    archive: Archive,
    name: str,
    image: Mapping[str, Any],
    annotations: list[Mapping[str, Any]],
    numbers: Mapping[int, int],
    find: Callable[[str], str | None],
) -> Entry:
    file, size = str(image["file_name"]), (int(image["height"]), int(image["width"]))
    what = f"image '{file}' of {archive.where(name)}"
    if not annotations:
        return Entry(file, size, _nothing, empty=True)
    if len(annotations) > 1:
        raise DataError(f"{what} has {len(annotations)} panoptic annotations; keep one")
    try:
        png = str(annotations[0]["file_name"])
        table = {int(each["id"]): numbers[int(each["category_id"])] for each in annotations[0]["segments_info"]}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{what} has a segment with wrong or missing {error}; export it again") from error
    path = find(png)
    if path is None:
        raise DataError(f"{what} names the map {png}, of which {archive.path} holds none, or several")
    draw = partial(_draw, read=archive.reader(path), table=table, size_in_file=size, what=archive.where(path))
    return Entry(file, size, draw)


def _nothing(size: Size) -> Array:
    return np.full(size, ABSENT, np.int16)


def _draw(size: Size, read: Callable[[], bytes], table: Mapping[int, int], size_in_file: Size, what: str) -> Array:
    pixels, _ = decode_png(read(), what)
    if pixels.ndim != 3 or pixels.shape[2] < 3 or pixels.dtype != np.uint8:
        raise DataError(f"{what} must be an RGB picture of segment ids, found {pixels.dtype} of shape {pixels.shape}")
    same_size(size_in_file, size, what)
    same_size((pixels.shape[0], pixels.shape[1]), size, what)
    wide = pixels.astype(np.int64)
    ids = wide[..., 0] + 256 * wide[..., 1] + 65536 * wide[..., 2]
    unknown = set(np.unique(ids).tolist()) - {0, *table}
    if unknown:
        raise DataError(f"{what} holds the segment {min(unknown)}, which its JSON does not list")
    return look_up(ids, {0: ABSENT, **table}).astype(np.int16)
