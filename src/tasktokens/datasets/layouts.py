"""One error for all readers that recognise a data set by its files: what is known, what was found, where to look."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tasktokens.errors import DataError


def unknown_layout(root: Path, name: str, known: Sequence[str], fits: Callable[[Path], bool]) -> DataError:
    """The error to raise where no layout of a data set fits a folder.

    Args:
        root: the folder, which may not exist.
        name: of the data set.
        known: a line for each layout: the files by which it is known.
        fits: whether a folder has one of them, for the hint that a folder inside does.
    """
    if not root.is_dir():
        return DataError(f"data folder {root} does not exist")
    inside = sorted(root.iterdir())
    names = [path.name for path in inside]
    found = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    nearer = next((path for path in inside if path.is_dir() and fits(path)), None)
    hint = f"; {nearer} has one: give that folder" if nearer else ""
    return DataError(f"{root} has no known layout of {name} ({'; '.join(known)}); found {found or 'nothing'}{hint}")
