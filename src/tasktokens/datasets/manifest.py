"""A table of a data set's files: CSV or Parquet, a row an image, a column a task.

    image,semseg,depth,split
    images/0001.jpg,masks/0001.png,,train
    /data/other/7.jpg,,depth/7.npy,test

Paths are relative to the table's folder or absolute; a relative path that leaves the folder is refused, so that a
folder can be moved as a whole. An empty cell is a missing label. An image's id is its path without the ending (of an
absolute path outside the folder: without the root). Columns that are neither ``image``, ``split`` nor a task are left
alone.
"""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasktokens.errors import DataError, TaskTokensError, did_you_mean
from tasktokens.utils.safe_io import MAX_ROWS, limit


@dataclass
class Manifest:
    """What a table names: image by id, label by task and id, ids by split (empty: the table has no such column)."""

    images: dict[str, Path] = field(default_factory=dict)
    labels: dict[str, dict[str, Path]] = field(default_factory=dict)
    splits: dict[str, tuple[str, ...]] = field(default_factory=dict)


def read_manifest(
    path: Path, tasks: Sequence[str], image_endings: Sequence[str], label_endings: Sequence[str]
) -> Manifest:
    """Read a table. Nothing is opened, but every file must exist.

    Raises:
        DataError: the table cannot be read, lacks a column, or a cell names no usable file; rows are counted as a
            spreadsheet shows them, the first below the column names being 2.
    """
    rows = _parquet_rows(path) if path.suffix.lower() == ".parquet" else _csv_rows(path)
    if not rows:
        raise DataError(f"{path} has no rows")
    columns = [str(name) for name in rows[0]]
    for name in ("image", *tasks):
        if name not in columns:
            raise DataError(f"{path} has no column '{name}'{did_you_mean(name, columns)}; found: {', '.join(columns)}")
    manifest = Manifest(labels={name: {} for name in tasks})
    files, row_of, splits = _Files(path.parent), dict[str, int](), dict[str, list[str]]()
    for number, row in enumerate(rows, start=2):
        where = f"{path} row {number}"
        if None in row:
            raise DataError(f"{where} has more cells than there are columns; quote cells that hold a comma")
        image = files.find(row["image"], image_endings, f"{where}, column 'image'")
        if image is None:
            raise DataError(f"{where}, column 'image' is empty; every row needs its image")
        id = files.id(image)
        if id in row_of:
            raise DataError(f"{where} and row {row_of[id]} both have the image id '{id}'; keep one of them")
        row_of[id], manifest.images[id] = number, image
        for name in tasks:
            label = files.find(row[name], label_endings, f"{where}, column '{name}'")
            if label is not None:
                manifest.labels[name][id] = label
        if _text(row.get("split"), where):
            splits.setdefault(_text(row["split"], where), []).append(id)
    manifest.splits = {name: tuple(ids) for name, ids in splits.items()}
    return manifest


def label_columns(path: Path, label_endings: Sequence[str]) -> list[str] | None:
    """Columns of a table whose cells name label files by their endings; None where it has no column ``image``.

    Raises `DataError` where the table cannot be read.
    """
    rows = _parquet_rows(path) if path.suffix.lower() == ".parquet" else _csv_rows(path)
    if not rows or "image" not in rows[0]:
        return None
    columns = [name for name in rows[0] if isinstance(name, str) and name not in ("image", "split")]
    endings = {name: {os.path.splitext(str(row[name]))[1].lower() for row in rows} for name in columns}
    return [name for name in columns if endings[name] & {*label_endings}]


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    try:
        # Spreadsheets write a mark at the beginning of UTF-8 files.
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(itertools.islice(csv.DictReader(file, skipinitialspace=True), limit(MAX_ROWS) + 1))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"cannot read the manifest {path}: {error}") from error
    _refuse_rows(path, len(rows))
    return rows


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise DataError(f"{path} needs pyarrow: pip install 'tasktokens[parquet]', or save it as CSV") from error
    try:
        with parquet.ParquetFile(path) as file:
            _refuse_rows(path, file.metadata.num_rows)
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        if (found := sum(group.total_byte_size for group in groups)) > _BYTES_A_ROW * limit(MAX_ROWS):
            raise ValueError(f"it unpacks to {found} bytes; if that is meant, set {MAX_ROWS} higher")
        rows: list[dict[str, Any]] = parquet.read_table(path, partitioning=None).to_pylist()
    except TaskTokensError:
        raise
    except Exception as error:  # a damaged file raises pyarrow's errors and Python's
        raise DataError(f"cannot read the manifest {path}: {error}") from error
    return rows


_BYTES_A_ROW = 256


def _refuse_rows(path: Path, count: int) -> None:
    most = limit(MAX_ROWS)
    if count > most:
        raise DataError(f"the manifest {path} has more than {most} rows; if that is meant, set {MAX_ROWS} higher")


def _text(cell: Any, where: str) -> str:
    """A cell's text; empty for the ways in which tables say "nothing" (None, and NaN where pandas wrote it)."""
    if cell is None or cell != cell:
        return ""
    if not isinstance(cell, str):
        raise DataError(f"{where} must hold text, found {cell!r}")
    return cell.strip()


class _Files:
    """Which files exist, by one listing a folder: a question a file would take longer than reading the table."""

    def __init__(self, root: Path) -> None:
        self.root = os.path.abspath(root)
        self.names: dict[str, frozenset[str]] = {}

    def find(self, cell: Any, endings: Iterable[str], where: str) -> Path | None:
        """The file of a cell, None where it is empty. Raises `DataError` beginning with ``where``."""
        text = _text(cell, where)
        if not text:
            return None
        path = os.path.normpath(os.path.join(self.root, text))
        if not os.path.isabs(text) and not path.startswith(os.path.join(self.root, "")):
            raise DataError(f"{where}: {text} lies outside {self.root}; write its absolute path")
        if os.path.splitext(path)[1].lower() not in endings:
            raise DataError(f"{where}: {text} is none of {', '.join(endings)}")
        folder, name = os.path.split(path)
        if folder not in self.names:
            self.names[folder] = frozenset(os.listdir(folder)) if os.path.isdir(folder) else frozenset()
        # Some file systems take names in any case.
        if name not in self.names[folder] and not os.path.isfile(path):
            raise DataError(f"{where}: {path} does not exist; correct the path, or leave the cell empty")
        return Path(path)

    def id(self, path: Path) -> str:
        """The path below the folder, or below the file system's root, without its ending."""
        text = os.path.splitext(str(path))[0]
        inside = os.path.join(self.root, "")
        text = text.removeprefix(inside) if text.startswith(inside) else text[len(path.anchor) :]
        return text.replace(os.sep, "/")
