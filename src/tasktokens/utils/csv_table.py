"""Tables as spreadsheets save them: CSV with commas, semicolons or tabs."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from tasktokens.errors import DataError, did_you_mean
from tasktokens.utils.safe_io import MAX_ROWS, limit, read_text

Row = dict[str, str]
"""Cell by column."""


def read_csv(path: Path, what: str, columns: Sequence[str], skip_blanks: bool = False) -> dict[int, Row]:
    """Read a table: rows, by their number as a spreadsheet shows it (the column names are row 1), of text by column.

    The names decide whether commas, semicolons or tabs separate cells: the first of them with which a column is called
    as the first of ``columns``. Rows without any text are passed over. Cells keep their blanks, column names do not.

    Args:
        what: the table in words, for messages: ``the manifest``.
        columns: names that must be there, each once; others may be.
        skip_blanks: whether blanks before a cell are no part of it, so that quotes may follow them.

    Raises:
        DataError: the file cannot be read or is no such table.
    """
    try:
        lines = _parse(read_text(path), columns, skip_blanks)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"cannot read {what} {path}: {error}") from error
    most = limit(MAX_ROWS)
    if len(lines) > most + 1:
        raise DataError(f"{what} {path} has more than {most} rows; if that is meant, set {MAX_ROWS} higher")
    if not lines:
        raise DataError(f"{what} {path} has no rows; it must have the columns {', '.join(columns)}")
    names = [name.strip() for name in lines[0][1]]
    require_columns(path, what, names, columns)
    rows = {}
    for number, cells in lines[1:]:
        if any(cell.strip() for cell in cells[len(names) :]):
            raise DataError(f"{path} row {number} has more cells than there are columns; quote cells that hold a comma")
        rows[number] = dict(zip(names, cells, strict=False))
    return rows


def require_columns(path: Path, what: str, names: Sequence[str], columns: Sequence[str]) -> None:
    """Raise `DataError` where a column is missing or ambiguous because it appears more than once."""
    for name in columns:
        if name not in names:
            found = ", ".join(name for name in names if name)
            raise DataError(f"{what} {path} has no column '{name}'{did_you_mean(name, names)}; found: {found}")
        if names.count(name) > 1:
            raise DataError(f"{what} {path} has the column '{name}' {names.count(name)} times; keep one of them")


def _parse(text: str, columns: Sequence[str], skip_blanks: bool) -> list[tuple[int, list[str]]]:
    """The rows that hold text, with their numbers; one more than may be is enough."""
    first, _, rest = text.partition("\n")
    if first.strip().strip('"').lower() in _DECLARED:  # a line for Excel, which it does not show
        text = rest

    def rows(separator: str) -> Iterator[tuple[int, list[str]]]:
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=skip_blanks)
        return ((number, cells) for number, cells in enumerate(lines, start=1) if any(cell.strip() for cell in cells))

    def names(separator: str) -> list[str]:
        _, header = next(rows(separator), (0, []))
        return [name.strip() for name in header]

    separator = next((each for each in _SEPARATORS if columns[0] in names(each)), ",")
    return list(itertools.islice(rows(separator), limit(MAX_ROWS) + 2))


_SEPARATORS = (",", ";", "\t")
_DECLARED = ("sep=,", "sep=;", "sep=")
"""The last with a tab, which is a blank."""
