"""Names of classes that lie beside the labels, as annotation tools write them, and pairs of left and right in them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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
        colours: by name, of CVAT's ``labelmap.txt``.
    """

    file: str = ""
    names: tuple[str, ...] = ()
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
            names = _lines(folder / file)
            if names and len({*names}) == len(names) and max(map(len, names)) <= 80:
                return ClassNames(file, names=tuple(names))
    return ClassNames()


_COLOUR = re.compile(r"^([^#:][^:]*):(\d{1,3}),\s*(\d{1,3}),\s*(\d{1,3})(?::|$)")


def _lines(path: Path) -> list[str]:
    try:
        text = read_text(path)
    except (OSError, ValueError):
        return []
    return [line.strip() for line in text.splitlines() if line.strip()]


def mirror_pairs(names: Sequence[str]) -> list[list[str]]:
    """Pairs of names that differ by the words left and right (l and r, if set apart) alone, the left one first.

    >>> mirror_pairs(["none", "right-arm", "left-arm", "leg_l", "leg_r", "upright"])
    [['left-arm', 'right-arm'], ['leg_l', 'leg_r']]
    """
    known = {name.lower(): name for name in names}
    pairs = []
    for name in names:
        other = known.get(_LEFT.sub(lambda match: _RIGHT[match[0]], name.lower()))
        if other is not None and other != name:
            pairs.append([name, other])
    return pairs


_RIGHT = {"left": "right", "l": "r"}
_LEFT = re.compile(r"left|(?<![a-z0-9])l(?![a-z0-9])")
