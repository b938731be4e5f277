"""Cityscapes-style PNG: ``gtFine/SPLIT/ID_gtFine_labelIds.png`` with class ids, ``_color.png`` to look at.

``label_colors.txt`` lists the classes (red green blue name), whose ids are 0, 1, ... in that order; 255 is no label.
(The official Cityscapes, with its 34 ids, is the data set ``cityscapes``.)
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np

from tasktokens.datasets.formats.archive import Archive
from tasktokens.datasets.formats.base import (
    FORMATS,
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
from tasktokens.datasets.formats.pictures import VOID_ID, classes_of_ids, decode_png, encode_png, stored_ids
from tasktokens.errors import DataError

LEGEND = "label_colors.txt"
_ENDING = "_gtFine_labelIds.png"


@FORMATS.register("cityscapes_png")
class CityscapesPng(Format):
    """Cityscapes-style PNG of class ids and colours."""

    map_folders = ("gtFine",)

    def recognises(self, archive: Archive) -> bool:
        """Files that end in ``_gtFine_labelIds.png``, with a list of the classes."""
        return bool(archive.find(_ENDING.lower()) and archive.find(LEGEND))

    def read(self, archive: Archive) -> Annotations:
        """One entry per map of ids; the folder below ``gtFine`` is its split."""
        classes = _read_legend(archive)
        entries, splits = [], dict[str, list[str]]()
        for path in archive.find(_ENDING.lower()):
            inside = path[: -len(_ENDING)].split("gtFine/", 1)[-1]
            split, slash, id = inside.partition("/")
            if not slash:
                raise DataError(f"{archive.where(path)} does not lie in gtFine/SPLIT; keep the folders of the export")
            draw = partial(_draw, read=archive.reader(path), count=len(classes), what=archive.where(path))
            entries.append(Entry(id, None, draw))
            splits.setdefault(split, []).append(id)
        return Annotations(classes, tuple(entries), {name: tuple(ids) for name, ids in splits.items()})

    def write(self, out: zipfile.ZipFile, vocabulary: Vocabulary, items: Iterable[ExportItem]) -> None:
        """Ids and colours of each label below ``gtFine/review``, the images, and the list of the classes."""
        count = len(vocabulary.names)
        palette = np.zeros((256, 3), np.uint8)
        palette[:count] = vocabulary.colours
        for item in items:
            ids = stored_ids(item.classes, count, f"the label of image '{item.id}'")
            add_file(out, f"gtFine/review/{item.id}{_ENDING}", encode_png(ids))
            add_file(out, f"gtFine/review/{item.id}_gtFine_color.png", encode_png(palette[ids]))
            add_image(out, item, "imgsFine/leftImg8bit/review")
        lines = [f"{r} {g} {b} {name}" for (r, g, b), name in zip(vocabulary.colours, vocabulary.names, strict=True)]
        add_file(out, LEGEND, "\n".join(lines) + "\n")


def _read_legend(archive: Archive) -> tuple[str, ...]:
    names = archive.find(LEGEND)
    if len(names) != 1:
        raise DataError(f"{archive.path} must hold one {LEGEND} that lists the classes, found {len(names)}")
    try:
        lines = [line for line in archive.read(names[0]).decode("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{archive.where(names[0])} is no text in UTF-8") from error
    found = [re.fullmatch(r"\s*\d+\s+\d+\s+\d+\s+(.*\S)\s*", line) for line in lines]
    if not found or not all(found) or len(found) > VOID_ID + 1:
        raise DataError(f"{archive.where(names[0])} must have lines 'red green blue name', at most {VOID_ID + 1}")
    return tuple(match[1] for match in found if match)


def _draw(size: Size, read: Callable[[], bytes], count: int, what: str) -> Array:
    ids, _ = decode_png(read(), what)
    classes = classes_of_ids(ids, count, what)
    same_size((classes.shape[0], classes.shape[1]), size, what)
    return classes
