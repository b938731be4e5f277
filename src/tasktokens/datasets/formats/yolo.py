"""YOLO segmentation: ``labels/ID.txt`` with one polygon per line, in shares of the image, and ``data.yaml``.

https://docs.ultralytics.com/datasets/segment. Written polygons follow the edges of pixels; a hole is joined to its
outline by a cut of no width, and pixels without a label lie in no polygon. Read by pixel centres that is exact, and a
label that would not be is refused; programs that fill polygons by whole points, such as OpenCV, draw them up to one
pixel larger. Pixels that polygons of two classes claim have no label. Boxes are refused.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable
from functools import partial
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
    paint,
)
from tasktokens.datasets.formats.polygons import fill_polygon, trace_mask
from tasktokens.errors import DataError
from tasktokens.utils.safe_io import dump_yaml, load_yaml

DESCRIPTION = "data.yaml"


@FORMATS.register("yolo")
class Yolo(Format):
    """YOLO segmentation: text files of polygons."""

    def recognises(self, archive: Archive) -> bool:
        """A YAML with ``names``, and text files below ``labels``."""
        return bool(_label_files(archive)) and any(b"names" in archive.read(name) for name in _yaml_files(archive))

    def read(self, archive: Archive) -> Annotations:
        """One entry per text file; a folder below ``labels`` called train, val or test is a split."""
        classes = _read_names(archive)
        entries, splits = [], dict[str, list[str]]()
        for path in _label_files(archive):
            id = f"/{path}".split("/labels/", 1)[1].removesuffix(".txt")
            what = archive.where(path)
            draw = partial(_draw, read=archive.reader(path), count=len(classes), what=what)
            entries.append(Entry(id, None, draw))
            first = id.split("/", 1)[0]
            if "/" in id and first in ("train", "val", "test"):
                splits.setdefault(first, []).append(id)
        return Annotations(classes, tuple(entries), {name: tuple(ids) for name, ids in splits.items()} or None)

    def write(self, out: zipfile.ZipFile, vocabulary: Vocabulary, items: Iterable[ExportItem]) -> None:
        """``data.yaml``, a text file per image, and the images. Raises `DataError` where polygons would be inexact."""
        for item in items:
            text = "".join(_lines(item))
            again = _drawn(text, item.size, len(vocabulary.names), f"the label of image '{item.id}'")
            if not np.array_equal(np.where(again == ABSENT, VOID, again), item.classes):
                raise DataError(f"the label of image '{item.id}' cannot be held exactly by polygons; use cvat")
            add_file(out, f"labels/{item.id}.txt", text)
            add_image(out, item)
        values = {"path": ".", "train": "images", "val": "images", "names": dict(enumerate(vocabulary.names))}
        add_file(out, DESCRIPTION, dump_yaml(values, allow_unicode=True))


def _lines(item: ExportItem) -> Iterable[str]:
    height, width = item.size
    for of, mask in item.masks():
        if of != VOID:
            for line in trace_mask(mask):
                yield f"{of} " + " ".join(f"{x / width:.10g} {y / height:.10g}" for x, y in line) + "\n"


def _label_files(archive: Archive) -> list[str]:
    return [name for name in archive.find(".txt") if "/labels/" in f"/{name}"]


def _yaml_files(archive: Archive) -> list[str]:
    return [name for ending in (".yaml", ".yml") for name in archive.find(ending) if not name.endswith("dataset.yaml")]


def _read_names(archive: Archive) -> tuple[str, ...]:
    files = _yaml_files(archive)
    if len(files) != 1:
        raise DataError(f"{archive.path} must hold one {DESCRIPTION} with the names of the classes, found {len(files)}")
    try:
        names: Any = load_yaml(archive.read(files[0]).decode("utf-8"))["names"]
        if isinstance(names, dict):
            names = [names[number] for number in range(len(names))]
        if not names or not all(isinstance(name, str | int) for name in names):
            raise ValueError("'names' must list the classes")
        return tuple(map(str, names))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{archive.where(files[0])} does not name the classes 0, 1, ... ({error})") from error


def _draw(size: Size, read: Callable[[], bytes], count: int, what: str) -> Array:
    try:
        text = read().decode("ascii")
    except UnicodeDecodeError as error:
        raise DataError(f"{what} is no text of numbers; export it again") from error
    return _drawn(text, size, count, what)


def _drawn(text: str, size: Size, count: int, what: str) -> Array:
    """The class map of a text, `ABSENT` outside of all polygons."""
    layers = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            of, points = int(words[0]), np.array(words[1:], np.float64)
            if not 0 <= of < count:
                raise ValueError(f"class {of}; expected 0 to {count - 1}")
            if len(points) == 4:
                raise ValueError("a box; expected a polygon")
            if len(points) % 2 or len(points) < 6 or not np.isfinite(points).all() or np.abs(points).max() > 2:
                raise ValueError(f"{len(points)} numbers; expected x and y of at least three points, from 0 to 1")
        except (ValueError, OverflowError) as error:
            raise DataError(f"line {number} of {what} has {error}") from error
        layers.append((of, partial(_fill, points=points.reshape(-1, 2))))
    return paint(layers, size, on_top=False)


def _fill(size: Size, points: Array) -> Array:
    height, width = size
    return fill_polygon(points * [width, height], height, width)
