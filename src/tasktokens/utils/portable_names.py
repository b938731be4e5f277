"""Names of files that some system cannot have, and names that it takes for one."""

from __future__ import annotations

import re
from collections.abc import Iterable

_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?:\..*)?", re.IGNORECASE)
_SIGNS = re.compile(r'[<>:"|?*\\\x00-\x1f]')


def fault(path: str) -> str | None:
    """Why a relative path with slashes cannot be a file's under Windows; None where it can.

    Examples:
        >>> fault("images/kitchen 1.png"), fault("images/aux.png")
        (None, "'aux.png' names a device")
        >>> fault("images/a:b.png"), fault("images/dots./1.png")
        ("'a:b.png' has the character ':'", "'dots.' ends in a dot or a blank")
    """
    for part in path.split("/"):
        if _DEVICE.fullmatch(part):
            return f"'{part}' names a device"
        if found := _SIGNS.search(part):
            return f"'{part}' has the character {found[0]!r}"
        if part != part.rstrip(". "):
            return f"'{part}' ends in a dot or a blank"
    return None


def first_fault(paths: Iterable[str]) -> str | None:
    """The first path that some system cannot have, or takes for an earlier one: which, and why.

    Examples:
        >>> first_fault(["a/1.png", "A/1.png"])
        "A/1.png: where capitals do not count it is 'a/1.png'"
    """
    taken: dict[str, str] = {}
    for path in paths:
        if (reason := fault(path)) is not None:
            return f"{path}: {reason}"
        other = taken.setdefault(path.casefold(), path)
        if other != path:
            return f"{path}: where capitals do not count it is '{other}'"
    return None
