"""PASCAL VOC masks: ``SegmentationClass/ID.png`` with a palette, ``ImageSets/Segmentation/SPLIT.txt``.

``labelmap.txt`` (``name:red,green,blue::``, as CVAT and Datumaro write it) lists the classes, which are then told by
colour; without it the ids are those of VOC's 21 classes. 255 is no label.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial

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
    same_size,
)
from tasktokens.datasets.formats.pictures import classes_of_ids, decode_png, encode_png, stored_ids
from tasktokens.errors import DataError
from tasktokens.tasks.class_files import look_up
from tasktokens.utils.legends import Colour

CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The classes of PASCAL VOC by id."""

_MASKS, _LISTS, _LEGEND = "SegmentationClass/", "ImageSets/Segmentation/", "labelmap.txt"
_VOID_COLOUR: Colour = (224, 224, 192)
"""That of VOC's borders."""


@FORMATS.register("voc")
class Voc(Format):
    """PASCAL VOC segmentation masks: PNG with a palette."""

    map_folders = ("SegmentationClass", "SegmentationObject")

    def recognises(self, archive: Archive) -> bool:
        """PNG files in a folder ``SegmentationClass``."""
        return any(_MASKS in f"/{name}" for name in archive.find(".png"))

    def read(self, archive: Archive) -> Annotations:
        """One entry per mask; the lists below ``ImageSets/Segmentation`` are the splits."""
        legend = _read_legend(archive)
        classes = tuple(legend.values()) if legend else CLASSES
        colours = {colour: number for number, colour in enumerate(legend)}
        entries = []
        for path in archive.find(".png"):
            if _MASKS in f"/{path}":
                what = archive.where(path)
                id = path.split(_MASKS, 1)[1].removesuffix(".png")
                draw = partial(_draw, read=archive.reader(path), colours=colours, count=len(classes), what=what)
                entries.append(Entry(id, None, draw))
        return Annotations(classes, tuple(entries), _splits(archive))

    def write(self, out: zipfile.ZipFile, vocabulary: Vocabulary, items: Iterable[ExportItem]) -> None:
        """Masks, images, the list ``review.txt`` and ``labelmap.txt``."""
        void = next(c for c in (_VOID_COLOUR, *((n, n, n) for n in range(255, -1, -1))) if c not in vocabulary.colours)
        if len(set(vocabulary.colours)) < len(vocabulary.names):
            raise DataError(f"task '{vocabulary.task}' has two classes of one colour, which VOC tells classes by")
        ids = []
        for item in items:
            stored = stored_ids(item.classes, len(vocabulary.names), f"the label of image '{item.id}'")
            add_file(out, f"{_MASKS}{item.id}.png", encode_png(stored, vocabulary.colours, void))
            add_image(out, item, "JPEGImages")
            ids.append(item.id)
        legend = [*zip(vocabulary.names, vocabulary.colours, strict=True), (vocabulary.void, void)]
        add_file(out, _LEGEND, "".join(f"{name}:{r},{g},{b}::\n" for name, (r, g, b) in legend))
        add_file(out, f"{_LISTS}review.txt", "".join(f"{id}\n" for id in ids))


def _read_legend(archive: Archive) -> dict[Colour, str]:
    """Class name by colour, in the order of the file; empty without one."""
    names = archive.find(_LEGEND)
    if not names:
        return {}
    legend: dict[Colour, str] = {}
    try:
        for line in archive.read(names[0]).decode("utf-8").splitlines():
            if line.strip() and not line.startswith("#"):
                name, colour, *_ = line.rsplit(":", 3)
                red, green, blue = (int(part) for part in colour.split(","))
                if legend.setdefault((red, green, blue), name) != name:
                    raise ValueError(f"the colour {colour} stands for two classes")
    except ValueError as error:
        raise DataError(f"{archive.where(names[0])} must have lines 'name:red,green,blue::' ({error})") from error
    return legend


def _splits(archive: Archive) -> dict[str, tuple[str, ...]] | None:
    splits = {}
    for path in archive.find(".txt"):
        if _LISTS in f"/{path}":
            words = archive.read(path).decode("utf-8", errors="replace").splitlines()
            splits[path.rpartition("/")[2].removesuffix(".txt")] = tuple(word.strip() for word in words if word.strip())
    named = {name: ids for name, ids in splits.items() if name != "trainval" or len(splits) == 1}
    return named or None


def _draw(size: Size, read: Callable[[], bytes], colours: Mapping[Colour, int], count: int, what: str) -> Array:
    pixels, palette = decode_png(read(), what)
    if not colours:
        classes = classes_of_ids(pixels, count, what)
    else:
        shown = palette[pixels] if palette is not None else pixels[..., :3] if pixels.ndim == 3 else None
        if shown is None:
            raise DataError(f"{what} is grey, while {_LEGEND} names colours; export it with its palette")
        wide = shown.astype(np.int64)
        packed = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
        table = {r << 16 | g << 8 | b: number for (r, g, b), number in colours.items()}
        table.setdefault(_VOID_COLOUR[0] << 16 | _VOID_COLOUR[1] << 8 | _VOID_COLOUR[2], VOID)
        classes = look_up(packed, table).astype(np.int16)
        if (classes < VOID).any():
            y, x = np.argwhere(classes < VOID)[0].tolist()
            raise DataError(f"{what} has the colour {shown[y, x].tolist()}, which {_LEGEND} does not name")
    same_size((classes.shape[0], classes.shape[1]), size, what)
    return classes
