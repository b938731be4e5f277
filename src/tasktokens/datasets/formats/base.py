"""What a format of annotations is: it writes class maps into a zip and reads them from a zip, a folder or a file."""

from __future__ import annotations

import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from tasktokens.datasets.formats.archive import Archive
from tasktokens.errors import DataError
from tasktokens.registry import Registry
from tasktokens.utils.legends import Colour

Array = npt.NDArray[Any]

VOID, ABSENT = -1, -2
"""In a class map (H, W) int16: no label, said by the file; and no annotation, about which the file says nothing."""

Decision = Literal["", "accepted", "rejected", "open"]
"""What a file says about an image: nothing, or that a person accepted or rejected its label, or has not looked yet."""

Size = tuple[int, int]
"""(height, width)."""


@dataclass(frozen=True)
class Vocabulary:
    """The classes of a task as a format spells them.

    Attributes:
        task: the task's name.
        names: class names by number.
        colours: RGB of each class.
    """

    task: str
    names: tuple[str, ...]
    colours: tuple[Colour, ...]

    @property
    def void(self) -> str:
        """A name for "no label" that is no class: ``void``, or that with underscores."""
        name = "void"
        while name in self.names:
            name += "_"
        return name

    @property
    def labels(self) -> tuple[tuple[str, Colour], ...]:
        """Names with colours, void last."""
        return (*zip(self.names, self.colours, strict=True), (self.void, (0, 0, 0)))


@dataclass(frozen=True, eq=False)
class ExportItem:
    """A label that is written for an annotation tool.

    Attributes:
        id: the image's, such as ``kitchen/0001``.
        file: name of the image's file, its id with an ending.
        classes: (H, W) int16: class numbers, `VOID`.
        confidence: (H, W) float32 in [0, 1], or None where there is none.
        source: where the label comes from: ``given``, ``discovered``, ``accepted``, ``corrected``.
        image: the image file, or None to leave images out.
    """

    id: str
    file: str
    classes: Array
    confidence: Array | None
    source: str
    image: Path | None = None

    @property
    def size(self) -> Size:
        """(height, width)."""
        height, width = self.classes.shape
        return height, width

    def score(self, mask_HW: Array | None = None) -> float:
        """Mean confidence of the label, or of a part of it, to four digits; 1 where there is none."""
        known = self.classes != VOID if mask_HW is None else mask_HW
        if self.confidence is None or not known.any():
            return 1.0 if self.confidence is None else 0.0
        return round(float(self.confidence[known].mean()), 4)

    def masks(self) -> Iterable[tuple[int, Array]]:
        """Each class that occurs with its mask (H, W) bool; `VOID` last."""
        found = sorted(np.unique(self.classes).tolist(), key=lambda number: (number < 0, number))
        return ((number, self.classes == number) for number in found)


@dataclass(frozen=True, eq=False)
class Entry:
    """What a file says about one image; nothing is decoded yet.

    Attributes:
        name: as the file names the image, such as ``kitchen/0001.jpg``.
        size: (height, width) as the file says, or None.
        draw: from (height, width) to a class map (H, W) int16 of numbers into `Annotations.names`, `VOID`, `ABSENT`;
            picklable where the archive is a folder. Raises `DataError` for damaged content.
        decision: what a person decided.
        empty: whether there is no annotation at all.
        image: reads the image file, for formats that hold images; else None.
    """

    name: str
    size: Size | None
    draw: Callable[[Size], Array]
    decision: Decision = ""
    empty: bool = False
    image: Callable[[], bytes] | None = None


@dataclass(frozen=True, eq=False)
class Annotations:
    """What a file or a folder of annotations holds.

    Attributes:
        names: labels by the numbers that `Entry.draw` uses; one that stands for "no label" is among them.
        entries: one per image.
        splits: image names by split, where the format says so.
    """

    names: tuple[str, ...]
    entries: tuple[Entry, ...]
    splits: Mapping[str, tuple[str, ...]] | None = None


class Format(ABC):
    """A format of annotations. A subclass has a docstring whose first line describes it for ``tasktokens list``.

    Attributes:
        needs: modules that must be installed (extra ``review``).
        map_folders: beginnings of the names of folders that hold maps, which are no photographs.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    map_folders: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def recognises(self, archive: Archive) -> bool:
        """Whether an archive seems to hold this format; only names and beginnings of files are looked at."""

    @abstractmethod
    def read(self, archive: Archive) -> Annotations:
        """List what an archive says. Raises `DataError` naming the file that is wrong."""

    @abstractmethod
    def write(self, out: zipfile.ZipFile, vocabulary: Vocabulary, items: Iterable[ExportItem]) -> None:
        """Write class maps, each item as it comes. Raises `DataError` where the format cannot hold one."""


FORMATS: Registry[type[Format]] = Registry("format of annotations", "tasktokens.datasets.formats")
"""The formats by name; a module of this package, or of another by an entry point, registers one."""


def usable_format(name: str) -> Format:
    """A format whose libraries are installed. Raises `ConfigError` for another name, `DataError` saying what to do."""
    format = FORMATS[name]
    missing = [module for module in format.needs if find_spec(module) is None]
    if missing:
        raise DataError(f'the format {name} needs {", ".join(missing)}: pip install "tasktokens[review]"')
    return format()


def add_file(out: zipfile.ZipFile, name: str, content: bytes | str) -> None:
    """Add a file to a zip with a fixed date, so that the same labels make the same bytes."""
    member = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    stored = name.lower().endswith((".png", ".jpg", ".jpeg", ".parquet"))
    member.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    member.external_attr = 0o644 << 16
    out.writestr(member, content)


def add_image(out: zipfile.ZipFile, item: ExportItem, folder: str = "images") -> None:
    """Add an item's image file under its own name, unless images are left out."""
    if item.image is not None:
        add_file(out, f"{folder}/{item.file}", item.image.read_bytes())


def same_size(found: Size, expected: Size, what: str) -> None:
    """Raise `DataError` where what was drawn for an image has another size."""
    if found != expected:
        raise DataError(
            f"{what} is {found[1]}x{found[0]} pixels, its image {expected[1]}x{expected[0]}; annotations must have "
            f"the size of their image"
        )


def paint(layers: Sequence[tuple[int, Callable[[Size], Array]]], size: Size, on_top: bool) -> Array:
    """Masks drawn into one class map (H, W) int16, `ABSENT` where there is none.

    Args:
        layers: class number (or `VOID`) and from (height, width) to its mask (H, W) bool.
        size: (height, width).
        on_top: whether a later mask covers an earlier one, as in tools with an order of layers; else pixels that two
            classes claim are `VOID`, since nothing says which is right.
    """
    drawn = np.full(size, ABSENT, np.int16)
    for number, draw in layers:
        mask = draw(size)
        if on_top:
            drawn[mask] = number
        else:
            claimed = mask & (drawn != ABSENT) & (drawn != number)
            drawn[mask] = number
            drawn[claimed] = VOID
    return drawn
