"""A table of a data set's files: CSV or Parquet, one row per image, one column per task.

    image,semseg,depth,split
    images/0001.jpg,masks/0001.png,,train
    /data/other/7.jpg,,depth/7.npy,test

Paths are relative to the table's folder or absolute; a relative path that leaves the folder is refused, so that a
folder can be moved as a whole. An empty cell is a missing label. An image's id is its path without the ending (of an
absolute path outside the folder: without the root). Columns that are neither ``image``, ``split`` nor a task are left
alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasktokens.data.ids import nearest_id
from tasktokens.datasets.labelled_classes import names_of
from tasktokens.errors import DataError, TaskTokensError
from tasktokens.utils.csv_table import read_csv, require_columns
from tasktokens.utils.listing import composed, existing_form
from tasktokens.utils.safe_io import MAX_ROWS, limit


@dataclass
class Manifest:
    """What a table names: image by id, label by task and id, ids by split (empty: the table has no such column).

    Attributes:
        images: file by id.
        labels: file by task and id.
        splits: ids by split; empty: the table has no such column.
        labelled: for tasks with a column ``TASK.labelled`` the classes that were labelled (``cat;dog``) by id.
    """

    images: dict[str, Path] = field(default_factory=dict)
    labels: dict[str, dict[str, Path]] = field(default_factory=dict)
    splits: dict[str, tuple[str, ...]] = field(default_factory=dict)
    labelled: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)


def read_manifest(
    path: Path, tasks: Sequence[str], image_endings: Sequence[str], label_endings: Sequence[str]
) -> Manifest:
    """Read a table. Nothing is opened, but every file must exist.

    Raises:
        DataError: the table cannot be read, lacks a column, or a cell names no usable file; rows are counted as a
            spreadsheet shows them, the first below the column names being 2.
    """
    columns = ("image", *tasks)
    rows: Mapping[int, Mapping[str, Any]]
    if path.suffix.lower() == ".parquet":
        rows = dict(enumerate(_parquet_rows(path, columns), start=2))
    else:
        rows = read_csv(path, "the manifest", columns, skip_blanks=True)
    if not rows:
        raise DataError(f"the manifest {path} has no rows")
    manifest = Manifest(labels={name: {} for name in tasks})
    files, row_of, splits = _Files(path.parent), dict[str, int](), dict[str, list[str]]()
    for number, row in rows.items():
        where = f"{path} row {number}"
        image = files.find(row["image"], image_endings, f"{where}, column 'image'")
        if image is None:
            raise DataError(f"{where}, column 'image' is empty; every row needs its image")
        id = files.id(image)
        if id in row_of:
            raise DataError(f"{where} and row {row_of[id]} both have the image id '{id}'; keep one of them")
        row_of[id], manifest.images[id] = number, image
        for name in tasks:
            label = files.find(row.get(name), label_endings, f"{where}, column '{name}'")
            if label is not None:
                manifest.labels[name][id] = label
            if classes := _text(row.get(f"{name}.labelled"), where).strip():
                manifest.labelled.setdefault(name, {})[id] = names_of(classes)
        split = _text(row.get("split"), where).strip()
        if split:
            splits.setdefault(split, []).append(id)
    manifest.splits = {name: tuple(ids) for name, ids in splits.items()}
    return manifest


def label_columns(path: Path, label_endings: Sequence[str]) -> list[str]:
    """Columns of a table whose cells name label files by their endings, ``image`` and ``split`` left out.

    Raises `DataError` where the table cannot be read or has no column ``image``.
    """
    rows: list[Mapping[str, Any]]
    if path.suffix.lower() == ".parquet":
        rows = [*_parquet_rows(path, ("image",))]
    else:
        rows = [*read_csv(path, "the table", ("image",), skip_blanks=True).values()]
    columns = [name for name in (rows[0] if rows else ()) if name and name not in ("image", "split")]
    endings = {name: {os.path.splitext(str(row.get(name)).strip())[1].lower() for row in rows} for name in columns}
    return [name for name in columns if endings[name] & {*label_endings}]


def _parquet_rows(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise DataError(f"{path} needs pyarrow: pip install 'tasktokens[parquet]', or save it as CSV") from error
    try:
        with parquet.ParquetFile(path) as file:
            _check_row_count(path, file.metadata.num_rows)
            names = file.schema_arrow.names
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        if (found := sum(group.total_byte_size for group in groups)) > _BYTES_A_ROW * limit(MAX_ROWS):
            raise ValueError(f"it unpacks to {found} bytes; if that is meant, set {MAX_ROWS} higher")
        require_columns(path, "the manifest", [str(name) for name in names], columns)
        rows: list[dict[str, Any]] = parquet.read_table(path, partitioning=None).to_pylist()
    except TaskTokensError:
        raise
    except Exception as error:  # a damaged file raises pyarrow's errors and Python's
        raise DataError(f"cannot read the manifest {path}: {error}") from error
    return rows


_BYTES_A_ROW = 256


def _check_row_count(path: Path, count: int) -> None:
    most = limit(MAX_ROWS)
    if count > most:
        raise DataError(f"the manifest {path} has more than {most} rows; if that is meant, set {MAX_ROWS} higher")


def _text(cell: Any, where: str) -> str:
    """A cell's text; empty for the ways in which tables say "nothing" (None, and NaN where pandas wrote it)."""
    if cell is None or cell != cell:
        return ""
    if not isinstance(cell, str):
        raise DataError(f"{where} must hold text, found {cell!r}")
    return cell


class _Files:
    """Which files exist, by one listing per folder: a query per file would take longer than reading the table."""

    def __init__(self, root: Path) -> None:
        self.root = os.path.abspath(root)
        self.names: dict[str, frozenset[str]] = {}

    def find(self, cell: Any, endings: Iterable[str], where: str) -> Path | None:
        """The file of a cell, None where it is empty. Raises `DataError` beginning with ``where``."""
        text = _text(cell, where)
        if not text.strip():
            return None
        # As it is written, else without blanks around it, else as Windows writes paths.
        forms = dict.fromkeys((text, text.strip(), text.strip().replace("\\", "/")))
        found = next((path for form in forms if (path := self._existing(self._path(form, where)))), None)
        text = list(forms)[1 if len(forms) > 1 else 0]
        if os.path.splitext(text)[1].lower() not in endings:
            raise DataError(f"{where}: {text} is none of {', '.join(endings)}{self._nearest(self._path(text, where))}")
        if found is None:
            path = self._path(text, where)
            near = self._nearest(path)
            raise DataError(f"{where}: {path} does not exist{near}; correct the path, or leave the cell empty")
        return Path(found)

    def _path(self, text: str, where: str) -> str:
        path = os.path.normpath(os.path.join(self.root, text))
        if not os.path.isabs(text) and not path.startswith(os.path.join(self.root, "")):
            raise DataError(f"{where}: {text} lies outside {self.root}; write its absolute path")
        return path

    def _existing(self, path: str) -> str | None:
        """The path as the file system writes it; None where there is no such file."""
        folder, name = os.path.split(path)
        if folder not in self.names:
            self.names[folder] = frozenset(os.listdir(folder)) if os.path.isdir(folder) else frozenset()
        if name in self.names[folder]:
            return path
        form = existing_form(path)  # of another Unicode form, or in any case where a file system takes that
        return form if os.path.isfile(form) else None

    def _nearest(self, path: str) -> str:
        """A hint for a path without a file, such as the name without the zeros that a spreadsheet has dropped."""
        folder, name = os.path.split(path)
        return nearest_id(name, sorted(self.names.get(folder, ())))

    def id(self, path: Path) -> str:
        """The path below the folder, or below the file system's root, without its ending."""
        text = os.path.splitext(str(path))[0]
        inside = os.path.join(self.root, "")
        text = text.removeprefix(inside) if text.startswith(inside) else text[len(path.anchor) :]
        return composed(text.replace(os.sep, "/"))
