"""Class ids and colours: which of them are classes, which mean "no label", and what they are called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasktokens.errors import DataError
from tasktokens.inspection.class_names import ClassNames
from tasktokens.inspection.scan import FolderScan
from tasktokens.tasks.mirror import mirrored_pairs

MOST_COLOURS = 64
"""More are a picture."""
VOID_IDS = (255, 65535)
"""Ids that usually mean "no label": the largest of 8 and of 16 bits."""

_NAMES = "write the names"

Inferred = tuple[dict[str, Any], str]
"""Settings of a task, and the comment that says what was seen."""


def classes_of_ids(scan: FolderScan, known: ClassNames) -> Inferred:
    """Classes of one-channel files of whole numbers. Raises `DataError` where the numbers name things, not classes."""
    values = sorted(scan.values or {0: 0})
    saw = f"{'palette' if scan.palette else scan.dtype}, ids {listed(values)}"
    if scan.palette_conflict:
        first, second = scan.palette_conflict
        raise DataError(
            f"{first} and {second} have palettes that order the same colours in different ways, so an id has no one "
            f"meaning; export all files with one palette, or as RGB"
        )
    check_not_instance_ids(values)
    if spread := evenly_spread(values):
        names = _names(known, len(spread), scan)
        saw += f"; {len(spread)} ids at equal distances up to {spread[-1]}, so {spread[-1]} is taken for a class"
        saw += f" (the other reading: no label; then leave out its class and write void: [{spread[-1]}]); {_NAMES}"
        return _with_mirror(_named(names, {"ids": {id: i for i, id in enumerate(spread)}, "void": []}), saw, names)
    void = [value for value in values if value < 0 or value in VOID_IDS or value in scan.nodata]
    ids = [value for value in values if value not in void] or [0]
    if any(value in VOID_IDS for value in void):
        saw += f"; {void[-1]} stands apart from the other ids and is taken for no label (the other reading: a class)"
    if named_void := [f"{value:g}" for value in scan.nodata if value in values]:
        saw += f"; the files name {', '.join(named_void)} as no data"
    if ids[-1] > 255 or (len(ids) <= 12 and ids[-1] >= 10 * len(ids)):
        if len(ids) > 256:
            raise DataError(
                f"{len(ids)} different values, and neighbours that are equal: ids of things, not of classes"
            )
        names, settings = _names_of(known, ids), {"ids": {id: i for i, id in enumerate(ids)}}
    elif 0 in void:
        names, settings = _names_of(known, ids), {"ids": {id: i for i, id in enumerate(ids)}}
    else:
        names, settings = _names(known, ids[-1] + 1, scan), {}
        if known.names and len(known.names) != len(names) and names[0] == "class_0":
            saw += f"; {known.file} has {len(known.names)} names for ids up to {ids[-1]}: not used"
    if known.numbered:
        saw += f"; names from {known.file} by its numbers" + f"; {_NAMES} of the others" * any(map(_is_no_name, names))
    else:
        saw += f"; {_NAMES}" if _is_no_name(names[0]) else f"; names from {known.file}"
    if len(ids) == 2 and ids[0] == 0 < ids[1] and ids[1] != 1 and not scan.palette:
        saw += f" (the other reading: yes and no, kind: binary, white: {ids[1]})"
    saw += "; an id that was not seen is an error until it has one" + ("; void: [0] if 0 means no label" * (0 in ids))
    return _with_mirror(_named(names, settings | {"void": void or [255]}), saw, names)


def _named(names: Sequence[str], settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a class task."""
    return {"kind": "classes", "classes": list(names)} | settings


def _with_mirror(spec: dict[str, Any], saw: str, names: Sequence[str]) -> Inferred:
    """Add the setting ``mirror`` where there are pairs of left and right."""
    pairs = [list(pair) for pair in mirrored_pairs(names)]
    if not pairs:
        return spec, saw
    return spec | {"mirror": pairs}, f"{saw}; a mirror swaps {', '.join(' and '.join(pair) for pair in pairs)}"


def _is_no_name(name: str) -> bool:
    return name.startswith("class_")


def _names_of(known: ClassNames, ids: Sequence[int]) -> list[str]:
    """Names of some ids, of a list that has the numbers."""
    return [known.numbered.get(id, f"class_{id}") for id in ids]


def _names(known: ClassNames, count: int, scan: FolderScan) -> list[str]:
    """Names for the ids from 0 on: of the list if it fits, of the palette's colours if they all have one."""
    if count <= len(known.names):
        return list(known.names)
    if known.numbered:
        listed_ids = [id for id in known.numbered if id not in VOID_IDS]
        return _names_of(known, range(max([count - 1, *listed_ids]) + 1))
    by_colour = {colour: name for name, colour in known.colours.items()}
    colours = scan.palette or {}
    if by_colour and all(colours[id] in by_colour for id in colours if id not in VOID_IDS):
        return [by_colour[colours[id]] if id in colours else f"class_{id}" for id in range(count)]
    return [f"class_{id}" for id in range(count)]


def evenly_spread(values: Sequence[int]) -> list[int]:
    """The values where three and more divide 0 to 255 (or 65535) into equal parts, as ids spread for viewing do.

    Examples:
        >>> evenly_spread([0, 127, 255]), evenly_spread([0, 85, 170, 255]), evenly_spread([0, 1, 2, 255])
        ([0, 127, 255], [0, 85, 170, 255], [])
    """
    values = sorted(values)
    if not 3 <= len(values) <= 64 or values[0] != 0 or values[-1] not in VOID_IDS:
        return []
    step = values[-1] / (len(values) - 1)
    return list(values) if all(abs(value - i * step) <= 1 for i, value in enumerate(values)) else []


def look_like_ids(values: Sequence[int]) -> bool:
    """Few whole numbers that begin low: ids, and not the levels of a probability."""
    used = [value for value in values if value >= 0 and value not in VOID_IDS]
    return 1 < len({*values}) <= 64 and bool(used) and max(used) <= max(31, 2 * len(used)) and {*values} != {0, 1}


def check_not_instance_ids(values: Sequence[int]) -> None:
    """Raise `DataError` for instance ids of the form class x 1000 + number."""
    by_class: dict[int, list[int]] = {}
    for value in values:
        if value >= 1000 and value not in VOID_IDS:
            by_class.setdefault(value // 1000, []).append(value)
    several = {of: ids for of, ids in by_class.items() if len(ids) > 1}
    if several and all(of < 256 for of in by_class):
        of, ids = max(several.items(), key=lambda item: len(item[1]))
        raise DataError(
            f"ids of things, not of classes: {listed(ids)} look like things of class {of} (class x 1000 + number); "
            f"save the classes (v // 1000 where v is 1000 or more) as files of their own"
        )


def classes_of_colours(scan: FolderScan, known: ClassNames) -> Inferred:
    """Classes of RGB-coded files. Raises `DataError` for pictures, and for colours that a colour map does not have."""
    if scan.colours is None or len(scan.colours) > MOST_COLOURS:
        raise DataError(
            f"three channels that are no unit vectors, and more than {MOST_COLOURS} colours: pictures, no labels"
        )
    if scan.lossy:
        raise DataError(
            f"{scan.lossy} files of what seem to be colour-coded classes, which compression has changed; export PNG"
        )
    saw = f"{len(scan.colours)} colours"
    if known.colours:
        strange = sorted({*scan.colours} - {*known.colours.values()})
        if strange:
            raise DataError(
                f"{len(strange)} of its {len(scan.colours)} colours are not in {known.file}, such as "
                f"{list(strange[0])}: ids of things, or of another set of classes"
            )
        colours = {name: list(colour) for name, colour in known.colours.items()}
        saw += f", names from {known.file}"
    else:
        colours = {f"class_{i}": list(colour) for i, colour in enumerate(sorted(scan.colours))}
        saw += "; one that was not seen will be an error"
    if scan.mixed:
        shown = ", ".join(sorted(scan.mixed)[:3]) + (f" and {len(scan.mixed) - 3} more" if len(scan.mixed) > 3 else "")
        saw += (
            f"; not taken from {shown}, with colours that no other file has, as smoothing makes them along borders: "
            f"an error until exported anew without smoothing"
        )
    return _with_mirror({"kind": "classes", "colours": colours}, saw, list(colours))


def listed(values: Sequence[int]) -> str:
    """Numbers for a sentence: twelve at most."""
    shown = [str(value) for value in values]
    return ", ".join(shown if len(shown) <= 12 else [*shown[:10], "…", shown[-1]])
