"""Files below a folder by id: the relative path without its ending."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from tasktokens.data.ids import check_id
from tasktokens.errors import DataError
from tasktokens.utils.listing import check_id as check_written
from tasktokens.utils.listing import ids_and_paths, iter_files, list_paths


def list_files(folder: Path, endings: Iterable[str]) -> dict[str, Path]:
    """Files below a folder by id, which is the relative path without its ending, in Unicode's composed form.

    Linked folders are followed, hidden files and folders left out (`tasktokens.utils.listing.walk_files`). Raises
    `DataError` where two files have one id, or a name cannot be listed.
    """
    found: dict[str, Path] = {}
    for id, path in list_paths(folder, endings):
        check_id(id, path)
        if id in found:
            raise DataError(
                f"{found[id]} and {path} have the same id '{id}'{_why_same(found[id], path)}; keep one of them, or "
                f"rename one and the files that belong to it"
            )
        found[id] = path
    return found


def iter_paths(folder: Path, endings: Iterable[str]) -> Iterator[tuple[str, str]]:
    """`list_paths` in no order, of any number of files; ids are checked as `list_files` and `DatasetIndex` do."""
    for id, path in ids_and_paths(folder, endings, iter_files(folder)):
        check_id(id, Path(path))
        check_written(id, folder)
        yield id, path


def _why_same(a: Path, b: Path) -> str:
    return " (their names differ in their Unicode form only)" if a.suffix == b.suffix else ""
