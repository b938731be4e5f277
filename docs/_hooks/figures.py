"""Figures of the pages, read from ``benchmarks/results/*.json`` as the site is built: none is typed by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


class FigureError(Exception):
    """A page asks for a figure that no results file holds; the build fails with it."""


def figure(
    file: str,
    rows: Mapping[str, Any],
    column: str,
    digits: int | None = None,
    sign: bool = False,
    scale: float = 1,
) -> str:
    """A figure of a results file, as text.

    Args:
        file: below ``benchmarks/results``.
        rows: values that a row must have. Several rows are averaged, where they differ in their seeds. Empty: the
            column is looked up beside the rows, as a path such as ``right.depth``.
        column: which value of the row.
        digits: after the decimal point; None: as stored.
        sign: whether a plus is written.
        scale: a factor, such as 100 for percent.

    Raises:
        FigureError: no such file, row, column or number, or rows that are not one thing measured with several seeds.
    """
    results = _read(file)
    if not rows:
        return _as_text(_lookup(results, column, file) * scale, digits, sign)
    values = [_number(row, column, file) for row in select(file, rows)]
    return _as_text((fmean(values) if len(values) > 1 else values[0]) * scale, digits, sign)


def seeds(file: str, rows: Mapping[str, Any]) -> int:
    """The number of seeds that such a figure is the mean of. Raises `FigureError`."""
    return len(select(file, rows))


def select(file: str, rows: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows that have these values, one per seed. Raises `FigureError`."""
    found = [row for row in _read(file)["rows"] if all(row.get(key) == value for key, value in rows.items())]
    if not found:
        raise FigureError(f"{file} has no row with {dict(rows)}")
    if len({row.get("seed") for row in found}) != len(found):
        raise FigureError(f"{file} has {len(found)} rows with {dict(rows)}, which differ in more than their seeds")
    return found


@cache
def _read(file: str) -> Any:
    path = RESULTS / file
    if not path.is_file():
        raise FigureError(f"there is no results file {path}")
    return json.loads(path.read_text(encoding="utf-8"))


def _lookup(results: Any, column: str, file: str) -> float:
    value = results
    for key in column.split("."):
        if not isinstance(value, dict) or key not in value:
            raise FigureError(f"{file} has no {column}")
        value = value[key]
    return _number({column: value}, column, file)


def _number(row: Mapping[str, Any], column: str, file: str) -> float:
    value = row.get(column)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FigureError(f"{file} has no number {column} in a row it was asked for, but {value!r}")
    return value


def _as_text(value: float, digits: int | None, sign: bool) -> str:
    plus = "+" if sign else ""
    text = f"{value:{plus}}" if digits is None else f"{value:{plus}.{digits}f}"
    return text.replace("-", "−")
