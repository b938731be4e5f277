"""Which files lie below a folder, whatever links lead there and however their names are encoded."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tasktokens.errors import DataError

SYSTEM_FOLDERS = frozenset(("@eaDir", "#recycle", "__MACOSX", "$RECYCLE.BIN", "System Volume Information"))
"""Previews, forks and bins that disk stations and operating systems keep among a user's files."""

MOST_REVISITS = 10_000
"""How often, in all, links may lead to folders that were listed before: a few that point at each other multiply."""


def walk_files(folder: Path) -> list[tuple[str, ...]]:
    """The files below a folder as the parts of their relative paths, sorted.

    Linked folders are followed, and their files have the path as linked; a link back to a folder that it lies in is
    passed over, so a loop ends. What begins with a dot, and `SYSTEM_FOLDERS`, are passed over. A folder that does not
    exist has no files.

    Raises:
        DataError: a folder cannot be listed, or links lead to the same folders too often.
    """
    return sorted(iter_files(folder))


def iter_files(folder: Path) -> Iterator[tuple[str, ...]]:
    """`walk_files` in no order; memory grows with the number of folders, not of files."""
    if not folder.is_dir():
        return
    seen: set[tuple[int, int]] = set()
    revisits = 0
    # Strings until the end: for a hundred thousand files, paths would take most of the time.
    waiting: list[tuple[str, tuple[str, ...], frozenset[tuple[int, int]]]] = [(str(folder), (), _above(folder))]
    while waiting:
        path, parts, above = waiting.pop()
        try:
            status = os.stat(path)
        except OSError as error:
            raise _unlisted(path, error) from error
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            continue
        revisits += identity in seen
        if revisits > MOST_REVISITS:
            raise DataError(
                f"links below {folder} lead to the same folders again and again, such as {path}; remove them"
            )
        seen.add(identity)
        inside = above | {identity}
        for name, is_folder in _entries(path):
            if is_folder:
                waiting.append((os.path.join(path, name), (*parts, name), inside))
            else:
                yield (*parts, name)


def _entries(path: str) -> Iterator[tuple[str, bool]]:
    """Names in a folder, and whether each is one."""
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if not _passed_over(entry.name):
                    yield entry.name, _is_folder(entry)
    except OSError as error:
        raise _unlisted(path, error) from error


def _unlisted(path: str, error: OSError) -> DataError:
    return DataError(f"cannot list the folder {path} ({error.strerror or error})")


def _passed_over(name: str) -> bool:
    return name.startswith(".") or name in SYSTEM_FOLDERS


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether a folder, or a link to one; a link to itself is none, and a file that cannot be read."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _above(folder: Path) -> frozenset[tuple[int, int]]:
    """The folders that a folder lies in, by its path and by where that leads: a link to one is a link back."""
    parents = {*Path(os.path.abspath(folder)).parents, *folder.resolve().parents}
    found = set()
    for parent in parents:
        with contextlib.suppress(OSError):
            status = parent.stat()
            found.add((status.st_dev, status.st_ino))
    status = folder.stat()
    return frozenset(found - {(status.st_dev, status.st_ino)})


def matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a relative path fits a pattern, both by their parts; ``**`` stands for any number of folders.

    Examples:
        >>> matches(("a", "b", "x.png"), ("**", "*.png"))
        True
    """
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(matches(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and matches(parts[1:], pattern[1:])


# -- names -------------------------------------------------------------------------------------------------------------
def composed(text: str) -> str:
    """A name in the form in which names are compared, Unicode's NFC: file systems and editors also write NFD."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def existing_form(path: str) -> str:
    """The path as its folders and its file are really written, in another Unicode form or, with ``/`` for ``\\``.

    A path that exists is given back as it is, and so is one that exists in no form.
    """
    return next(
        (found for each in (path, path.replace("\\", "/")) if os.path.exists(found := _in_any_form(each))), path
    )


def _in_any_form(path: str) -> str:
    above, name = os.path.split(path)
    if os.path.exists(path) or not name or path.isascii():
        return path
    above = _in_any_form(above)
    try:
        same = [each for each in os.listdir(above or os.curdir) if composed(each) == composed(name)]
    except OSError:
        same = []
    return os.path.join(above, same[0] if len(same) == 1 else name)


def list_paths(folder: Path, endings: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """Ids and files below a folder, sorted by path; an id may come twice."""
    return ((id, Path(path)) for id, path in ids_and_paths(folder, endings, walk_files(folder)))


def ids_and_paths(folder: Path, endings: Iterable[str], files: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, str]]:
    """Ids and paths of those files below a folder that have one of the endings."""
    known, base = frozenset(endings), str(folder)
    for parts in files:
        stem, ending = os.path.splitext(parts[-1])
        if ending.lower() in known:
            yield composed("/".join((*parts[:-1], stem))), os.path.join(base, *parts)


def check_id(id: str, root: Path) -> None:
    """Raise `DataError` for an id that is not a relative path below the folder, not UTF-8, or of several lines."""
    if _ODD.search(id):
        raise DataError(
            f"{root} has the id {id!r}, which cannot be the name of a file to write: an id is a relative path without "
            f"'..' and without control characters; rename the file"
        )


_ODD = re.compile(r"(?:^|/)\.{0,2}(?:/|$)|[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
