"""Which label file belongs to which image: of the same name, or of a name with another beginning or end per folder."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MOST_TRIED = 200
"""Names of a folder in which the beginning and the end are searched; all are then matched by what was found."""


@dataclass(frozen=True)
class Pairing:
    """Label files of one kind.

    Attributes:
        files: label file by the id of its image.
        prefix, suffix: what the files' names have around what they share with the images' names.
        exact: whether the names are the same.
    """

    files: Mapping[str, Path]
    prefix: str = ""
    suffix: str = ""
    exact: bool = True

    @property
    def words(self) -> str:
        """The beginning and the end, for a name or a sentence."""
        return f"{self.prefix}*{self.suffix}"


def pair(images: Mapping[str, Path], files: Mapping[str, Path]) -> list[Pairing]:
    """The pairings of a folder's files (by id) with images (by id); none where most files fit no image.

    Names are compared as a whole. Where fewer than half of them are those of images, the files are grouped by a
    beginning and an end that at least two of them share, such as ``_mask``, and that leave the name of an image, or
    what its name has besides a beginning and an end that all images share, such as ``_rgb``. A name that could belong
    to two images belongs to none.
    """
    exact = {id: path for id, path in files.items() if id in images}
    if 2 * len(exact) >= len(files):
        return [Pairing(exact)] if exact else []
    cores = _cores(images)
    found = Counter(affix for id in _spread(list(files)) if (affix := _affix(id, cores)) is not None)
    pairings = []
    for (prefix, suffix), count in sorted(found.items()):
        if count < min(2, len(files)):
            continue
        matched = {cores[core]: files[id] for id in files if (core := _without(id, prefix, suffix)) in cores}
        pairings.append(Pairing(matched, prefix, suffix, exact=False))
    if 2 * sum(len(pairing.files) for pairing in pairings) < len(files):
        return [Pairing(exact)] if exact else []
    return pairings


def _cores(images: Mapping[str, Path]) -> dict[str, str]:
    """Image id by what identifies it: its name, and its name without what all images' names begin and end with."""
    stems = [os.path.basename(id) for id in images]
    prefix = re.sub(r"[^\W_]*$", "", _common_start(stems)) if len(stems) > 1 else ""
    suffix = _common_end(stems)
    cores: dict[str, str] = {}
    twice = set()
    for id in images:
        for core in {id, _without(id, prefix, suffix), _without(id, "", suffix)} - {""}:
            twice |= {core} if core in cores else set()
            cores[core] = id
    return {core: id for core, id in cores.items() if core not in twice}


def _common_start(texts: Sequence[str]) -> str:
    low, high = min(texts), max(texts)
    return low[: next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))]


def _common_end(stems: Sequence[str]) -> str:
    """What all names end with, from a separator on, or from where digits end."""
    if len(stems) < 2:
        return ""
    end = _common_start([stem[::-1] for stem in stems])[::-1]
    match = re.search(r"[\W_]", end)
    if match:
        return end[match.start() :]
    letters = re.search(r"[^\W\d_]+$", end)
    return letters[0] if letters and all(stem[: -len(letters[0])][-1:].isdigit() for stem in stems) else ""


def _without(id: str, prefix: str, suffix: str) -> str:
    """An id whose last part has lost its beginning and end; empty where it does not have them."""
    folder, _, stem = id.rpartition("/")
    if not (stem.startswith(prefix) and stem.endswith(suffix) and len(stem) > len(prefix) + len(suffix)):
        return ""
    core = stem[len(prefix) : len(stem) - len(suffix)]
    return f"{folder}/{core}" if folder else core


def _affix(id: str, cores: Mapping[str, str]) -> tuple[str, str] | None:
    """What surrounds the longest core in a name; None where there is none, or two of that length."""
    folder, _, stem = id.rpartition("/")
    above = f"{folder}/" if folder else ""
    for length in range(len(stem), 0, -1):
        starts = [at for at in range(len(stem) - length + 1)
                  if above + stem[at : at + length] in cores and _stands_alone(stem, at, at + length)]  # fmt: skip
        if starts:
            at = starts[0]
            return (stem[:at], stem[at + length :]) if len(starts) == 1 else None
    return None


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether a part of a name ends there: 1 in 12 does not, nor does the in there."""

    def goes_on(before: str, after: str) -> bool:
        return (before.isdigit() and after.isdigit()) or (before.isalpha() and after.isalpha())

    return not goes_on(text[start - 1 : start], text[start : start + 1]) and not goes_on(
        text[end - 1 : end], text[end : end + 1]
    )


def _spread(ids: Sequence[str]) -> Iterable[str]:
    step = max(1, len(ids) // MOST_TRIED)
    return ids[::step]
