"""Tables that are typed, so that they can be read in the repository, and checked against the results files.

A comment above a table says where its figures come from::

    <!-- figures: accuracy_nyud.json labels=one -->
    | | mIoU | absErr |
    |---|---|---|
    | HTT, two stages, `htt` | 36.73 | 0.5284 |

The first cell names the method in backticks, perhaps with ``seed 0`` or ``seeds 0 and 1``; a cell is the mean over the
seeds, rounded as it is written; what follows it in brackets is not checked. Columns called ``labels`` and ``steps``
choose rows too. Rows that begin with ``published`` are quoted from elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Any

from figures import FigureError, _number, select

TABLE = re.compile(r"<!-- figures: (\S+?)((?: \S+)*) -->\n+((?:\|.*\n)+)")
COLUMNS = {
    "mIoU": "mIoU", "absErr": "absErr", "depth error": "absErr", "mErr": "mErr", "normals error": "mErr",
    "odsF": "odsF", "Δ_MTL": "delta_mtl", "GFLOP": "gflops",
}  # fmt: skip
"""What a heading begins with, and the column of the results that it is."""
CHOOSING = {"labels": str, "steps": int}


def check_tables(text: str) -> int:
    """Check all such tables of a page; the number of figures. Raises `FigureError` for the first that differs."""
    return sum(_check(*match.groups()) for match in TABLE.finditer(text))


def _check(file: str, words: str, table: str) -> int:
    chosen: dict[str, Any] = dict(word.split("=") for word in words.split() if "=" in word)
    head, _, *lines = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table.splitlines()]
    checked = 0
    for line in lines:
        if line[0].startswith("published"):
            continue
        rows = chosen | {name: kind(line[head.index(name)]) for name, kind in CHOOSING.items() if name in head}
        rows |= _method(file, line[0])
        for heading, cell in zip(head, line, strict=True):
            column = next((name for start, name in COLUMNS.items() if heading.startswith(start)), None)
            if column is not None and (written := cell.split(" (")[0].strip("*")) not in ("", "0"):
                _compare(file, rows, column, written, line[0], by_metric="by_metric" in words)
                checked += 1
    return checked


def _method(file: str, cell: str) -> dict[str, Any]:
    names = re.findall(r"`([^`]+)`", cell)
    if len(names) != 1:
        raise FigureError(f"a row of a table of {file} must name its method in backticks, found '{cell}'")
    listed = re.search(r"seeds? ([\d, and]+)", cell)
    return {"method": names[0]} | ({"seeds": [int(n) for n in re.findall(r"\d+", listed[1])]} if listed else {})


def _compare(file: str, rows: Mapping[str, Any], column: str, written: str, where: str, by_metric: bool) -> None:
    values = list(_values(file, rows, column, by_metric))
    digits = len(written.partition(".")[2])
    expected = f"{fmean(values):.{digits}f}"
    if written.replace("−", "-").lstrip("+") != expected:
        raise FigureError(f"'{where}' has {column} {written}, and {file} has {expected} ({len(values)} rows)")


def _values(file: str, rows: Mapping[str, Any], column: str, by_metric: bool) -> Iterator[float]:
    seeds = rows.get("seeds")
    wanted = {key: value for key, value in rows.items() if key != "seeds"} | ({"metric": column} if by_metric else {})
    for row in select(file, wanted):
        if seeds is None or row["seed"] in seeds:
            yield _number(row, "value" if by_metric else column, file)
