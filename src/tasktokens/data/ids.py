"""Ids as people write them: which image is meant, and which one may have been meant.

An id is a relative path with slashes and without ending, in Unicode's composed form (NFC). File systems and editors
also write the decomposed form (NFD), which looks the same: both are one name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable
from pathlib import Path

from tasktokens.errors import DataError, did_you_mean
from tasktokens.utils.listing import composed
from tasktokens.utils.safe_io import read_text


def match_id(text: str, known: Container[str]) -> str | None:
    """The id that a cell or line means: as it is written, else without blanks around it, else with ``/`` for ``\\``,
    else without the ending of a picture file, which ids do not have.

    Examples:
        >>> match_id(" kitchen\\\\0001 ", {"kitchen/0001"})
        'kitchen/0001'
        >>> match_id("kitchen/0001.png", {"kitchen/0001"})
        'kitchen/0001'
    """
    if text in known:
        return text
    exact = composed(text)
    bare = exact.strip()
    slashed = bare.replace("\\", "/")
    stem, dot, ending = slashed.rpartition(".")
    tries = (exact, bare, slashed, *([stem] if dot and ending.lower() in _ENDINGS else []))
    return next((id for id in tries if id in known), None)


_ENDINGS = ("jpg", "jpeg", "png", "bmp", "webp", "tif", "tiff", "gif", "npy", "npz")


def check_id(id: str, path: Path | None = None) -> None:
    """Raise `DataError` for an id that no list or table can hold: with a byte-order mark, which reading leaves out."""
    if "\ufeff" in id:
        where = f"the name of {str(path)!r}" if path else f"the id {id!r}"
        raise DataError(
            f"{where} holds U+FEFF, an invisible mark that lists and tables lose; rename the file and those that "
            f"belong to it"
        )


def nearest_id(text: str, known: Iterable[str]) -> str:
    """A hint for an id that no image has: `` (did you mean '000'?)``, or empty.

    Tried in turn: numbers without their leading zeros, as spreadsheets write them; an ending or a folder too many;
    other case; then what looks alike.
    """
    known, wanted = list(known), composed(text).strip().replace("\\", "/")
    for rule in _RULES:
        near = [id for id in known if rule(id) == rule(wanted)]
        if near:
            return f" (did you mean '{near[0]}'?)"
    return did_you_mean(wanted, known)


def _without_zeros(id: str) -> str:
    return "/".join(_bare_number(part) for part in id.split("/"))


def _bare_number(part: str) -> str:
    """A number as a spreadsheet shows it: ``7`` for ``007`` and ``7.0``, ``100000`` for ``1E+05``."""
    if re.fullmatch(r"\d+(\.\d+)?[eE]\+?\d{1,2}|\d+\.0+", part, re.ASCII):
        part = f"{float(part):.0f}"
    return part.lstrip("0") or "0"


def _without_ending(id: str) -> str:
    stem, dot, ending = id.rpartition(".")
    return stem if dot and ending.isalnum() and len(ending) <= 4 else id


_RULES: tuple[Callable[[str], str], ...] = (
    str.casefold,
    _without_zeros,
    _without_ending,
    lambda id: _without_ending(id).rpartition("/")[2],
    lambda id: _without_zeros(id).rpartition("/")[2],
    lambda id: _without_zeros(_without_ending(id)),
)


def read_ids(path: Path, known: Iterable[str]) -> tuple[str, ...]:
    """Read a list of ids, one per line; empty lines are passed over.

    Args:
        path: a text file as editors save it (`tasktokens.utils.safe_io.decode_text`).
        known: the ids that there are.

    Raises:
        DataError: the file cannot be read, or lists an id that there is not.
    """
    try:
        lines = read_text(path).splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the list {path} ({error}); it must have one id per line") from error
    known = known if isinstance(known, dict) else dict.fromkeys(known)
    written = [line for line in lines if line.strip()]
    ids = [match_id(line, known) for line in written]
    missing = [line.strip() for line, id in zip(written, ids, strict=True) if id is None]
    if missing:
        raise DataError(
            f"{path} lists '{missing[0]}' ({len(missing)} such), which is not the id of an image"
            f"{nearest_id(missing[0], known)}; write one id per line: the path below the images' folder, without ending"
        )
    return tuple(id for id in ids if id is not None)
