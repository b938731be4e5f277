"""A table on disk of the images of a data set and their label files, however many: no process holds the paths.

It is an SQLite file that is written once and then only read, by row number. Sorting, the search for ids that come
twice, and the join of labels with images are done on disk, with a few megabytes of memory.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from tasktokens.errors import DataError
from tasktokens.utils import strict_json

CACHE_KB = 4096
"""What SQLite may keep in memory of a table."""


class FileRow(NamedTuple):
    """One image.

    Attributes:
        number: its place, from 0.
        id: the image's.
        path: its file.
        labels: the files of its given labels, by task.
        origins: of given labels that a person accepted or corrected, the row of ``provenance.csv`` as a list of its
            values, by task.
        fill: whether labels that are missing are discovered.
    """

    number: int
    id: str
    path: Path
    labels: Mapping[str, Path]
    origins: Mapping[str, list[Any]]
    fill: bool = True


class FileTable:
    """Rows by number.

    Args:
        path: the table that `write_table` or `write_rows` wrote.

    Examples:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> found = [("b", "/data/b.png"), ("a", "/data/a.png")]
        >>> table = FileTable(write_table(folder / "table", found, {"depth": [("a", "/depth/a.png")]}))
        >>> len(table), [row.id for row in table.rows(0, 2)], table.row(0).labels["depth"].as_posix()
        (2, ['a', 'b'], '/depth/a.png')
    """

    def __init__(self, path: Path) -> None:
        # It does not change any more: no lock is needed, which network drives may lack.
        self._database = _connect(path, "mode=ro&immutable=1")
        self._count = int(self._database.execute("SELECT count(*) FROM images").fetchone()[0])

    def __len__(self) -> int:
        return self._count

    def rows(self, start: int, stop: int) -> Iterator[FileRow]:
        """Rows ``start`` to ``stop`` - 1, read a few at a time."""
        select = "SELECT * FROM images WHERE number >= ? AND number < ? ORDER BY number"
        for number, id, path, labels, origins, fill in self._database.execute(select, (start, stop)):
            files = {task: Path(file) for task, file in json.loads(labels).items()} if labels else {}
            yield FileRow(number, id, _path(path), files, json.loads(origins) if origins else {}, bool(fill))

    def row(self, number: int) -> FileRow:
        """One row. Raises `IndexError`."""
        for row in self.rows(number, number + 1):
            return row
        raise IndexError(f"row {number} of {self._count}")

    def close(self) -> None:
        """The table is not read any more."""
        self._database.close()


def write_table(
    path: Path,
    images: Iterable[tuple[str, str]],
    labels: Mapping[str, Iterable[tuple[str, str]]],
    origins: Mapping[str, Mapping[str, list[Any]]] | None = None,
) -> Path:
    """Write a table of images and labels in any order: (id, file) each. Rows come in the order of the images' files.

    ``origins``: as `FileRow` has them, by id. Labels of no image are left out. Raises `DataError` naming two images, or
    two labels of a task, with one id.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.partial")
    unfinished.unlink(missing_ok=True)
    with closing(_connect(unfinished, "nolock=1")) as database:
        database.executescript(_STAGES)
        database.executemany(
            "INSERT INTO found VALUES (?, ?, ?)", ((id, _text(file), _order(file)) for id, file in images)
        )
        for task, files in labels.items():
            rows = ((task, id, _text(file)) for id, file in files)
            database.executemany("INSERT INTO labels VALUES (?, ?, ?)", rows)
        for table, by in (("found", "id"), ("labels", "task, id")):
            _check_once(database, table, by)
        database.executescript(_JOINED)
        for id, values in (origins or {}).items():
            database.execute("UPDATE images SET origins = ? WHERE id = ?", (strict_json.dumps(values), id))
        database.commit()
        database.execute("VACUUM")
    unfinished.replace(path)
    return path


def write_rows(path: Path, rows: Iterable[FileRow]) -> Path:
    """Write a table of rows in their order; their numbers are given anew."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.partial")
    unfinished.unlink(missing_ok=True)
    with closing(_connect(unfinished, "nolock=1")) as database:
        database.execute(_IMAGES)
        database.executemany(
            "INSERT INTO images VALUES (?, ?, ?, ?, ?, ?)", (_values(n, row) for n, row in enumerate(rows))
        )
        database.commit()
    unfinished.replace(path)
    return path


_IMAGES = (
    "CREATE TABLE images (number INTEGER PRIMARY KEY, id TEXT, path TEXT, labels TEXT, origins TEXT, fill INTEGER)"
)
_STAGES = f"""
PRAGMA temp_store = FILE;
{_IMAGES};
CREATE TABLE found (id TEXT, path TEXT, place BLOB);
CREATE TABLE labels (task TEXT, id TEXT, path TEXT);
"""
_JOINED = """
CREATE INDEX label_of ON labels (id);
INSERT INTO images
    SELECT row_number() OVER (ORDER BY place) - 1, id, path,
        (SELECT nullif(json_group_object(task, json(path)), '{}') FROM labels WHERE labels.id = found.id), NULL, 1
    FROM found ORDER BY place;
DROP TABLE found;
DROP TABLE labels;
"""


def _order(file: str) -> bytes:
    """Paths in the order of their parts."""
    return file.replace(os.sep, "\0").encode("utf-8", "surrogateescape")


def _check_once(database: sqlite3.Connection, table: str, by: str) -> None:
    twice = f"SELECT min(path), max(path), id FROM {table} GROUP BY {by} HAVING count(*) > 1 LIMIT 1"
    for first, second, id in database.execute(twice):
        raise DataError(
            f"{_path(first)} and {_path(second)} have the same id '{id}'; keep one of them, or rename one and the "
            f"files that belong to it"
        )


def _values(number: int, row: FileRow) -> tuple[int, str, str, str | None, str | None, bool]:
    labels = strict_json.dumps({task: str(path) for task, path in row.labels.items()}) if row.labels else None
    origins = strict_json.dumps(row.origins) if row.origins else None
    return number, row.id, _text(row.path), labels, origins, row.fill


def _connect(path: Path, options: str) -> sqlite3.Connection:
    database = sqlite3.connect(f"file:{quote(str(path.absolute()))}?{options}", uri=True, check_same_thread=False)
    for setting in (f"cache_size = -{CACHE_KB}", "mmap_size = 0", "journal_mode = OFF", "synchronous = OFF"):
        database.execute(f"PRAGMA {setting}")
    return database


def _text(path: str | Path) -> str:
    """A path as JSON: SQLite takes no text with the bytes of other encodings, which Python keeps as surrogates."""
    return strict_json.dumps(str(path))


def _path(text: str) -> Path:
    return Path(json.loads(text))
