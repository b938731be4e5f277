"""Names of classes that lie beside the labels, as annotation tools write them, and pairs of left and right in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tasktokens.utils.safe_io import read_text

Colour = tuple[int, int, int]
_LISTS = ("classes.txt", "labels.txt", "class_names.txt", "obj.names")
_COLOUR_MAP = "labelmap.txt"


@dataclass(frozen=True)
class ClassNames:
    """What a folder says about its classes.

    Attributes:
        file: where it says so; empty where it does not.
        names: by id, of a list with a name per line.
        numbered: name by id, of a list whose lines begin with the id, such as ``7: road``.
        colours: by name, of CVAT's ``labelmap.txt``.
    """

    file: str = ""
    names: tuple[str, ...] = ()
    numbered: Mapping[int, str] = field(default_factory=dict)
    colours: Mapping[str, Colour] = field(default_factory=dict)


def read_class_names(*folders: Path) -> ClassNames:
    """The names in the first of the folders that has a ``labelmap.txt`` or a list such as ``classes.txt``."""
    for folder in folders:
        lines = _lines(folder / _COLOUR_MAP)
        colours = {match[1].strip(): (int(match[2]), int(match[3]), int(match[4]))
                   for line in lines if (match := _COLOUR.match(line))}  # fmt: skip
        if colours and max(map(max, colours.values())) <= 255 and len({*colours.values()}) == len(colours):
            return ClassNames(_COLOUR_MAP, colours=colours)
        for file in _LISTS:
            names = _without_count(_lines(folder / file))
            if names and len({*names}) == len(names) and max(map(len, names)) <= 80:
                numbered = _numbered(names)
                return ClassNames(file, numbered=numbered) if numbered else ClassNames(file, names=tuple(names))
    return ClassNames()


_COLOUR = re.compile(r"^([^#:][^:]*):(\d{1,3}),\s*(\d{1,3}),\s*(\d{1,3})(?::|$)")


def _without_count(lines: list[str]) -> list[str]:
    """Without a first line that says how many follow."""
    return lines[1:] if lines and lines[0] == str(len(lines) - 1) and len(lines) > 1 else lines


def _numbered(lines: list[str]) -> dict[int, str]:
    """Name by id where every line begins with one, in any usual form; else nothing, as for ``2 door car``."""
    found = [_NUMBERED.fullmatch(line) for line in lines]
    names = {int(match[1]): match[2] for match in found if match}
    ids = list(names)
    whole = ids == sorted(ids) and len(ids) == len(lines) and len({*names.values()}) == len(lines)
    return names if whole and (len(ids) > 2 or ids[0] in (0, 1)) and ids[-1] < 65536 else {}


_NUMBERED = re.compile(r"(\d+)(?:\s*[:;,=.)]\s*|\s+)[\"']?(\S.*?)[\"']?,?")


def _lines(path: Path) -> list[str]:
    try:
        text = read_text(path)
    except (OSError, ValueError):
        return []
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
