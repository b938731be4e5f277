"""The rows of a comparison as a table: means over the seeds, for the terminal, Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasktokens.errors import ConfigError, DataError
from tasktokens.metrics import delta_mtl
from tasktokens.reporting.comparison.bootstrap import Difference
from tasktokens.reporting.comparison.measure import Row
from tasktokens.reporting.comparison.shares import EqualShare, share_of
from tasktokens.utils.console import print_json, table_console
from tasktokens.utils.safe_io import read_json
from tasktokens.utils.tables import tables_that_fit

COSTS = {"params_m": 2, "gflops": 2, "step_s": 3, "infer_s": 3, "memory_mb": 0, "cpu_minutes": 1}
"""Columns of cost, and the decimals that they are shown with."""

Key = tuple[str, str, str]
"""Method, data set, label setting."""


@dataclass(frozen=True)
class Line:
    """A line of the table: a method on a data set with a label setting, over its seeds.

    Attributes:
        method: by its name in the suite. data: name of the data set. labels: label setting. seeds: how many.
        values: mean and standard deviation over the seeds by column; NaN for a deviation of one seed.
        difference: against the suite's ``against``, or None.
    """

    method: str
    data: str
    labels: str
    seeds: int
    values: Mapping[str, tuple[float, float]]
    difference: Difference | None = None


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        folder: with ``results.json``, ``table.md``, ``table.csv``, ``table.tex`` and ``report.html``.
        rows: one per method, data set, label setting and seed. columns: of the tasks' metrics.
        lines: the table, means over the seeds.
        equal_shares: how many labels each method needs for what the suite's reference reaches with others; empty unless
            the suite says of which labels the reference is.
    """

    folder: Path
    rows: Sequence[Row]
    columns: Sequence[str]
    lines: Sequence[Line]
    equal_shares: Sequence[EqualShare] = ()

    def markdown(self) -> str:
        """The table as Markdown."""
        return to_markdown(header(self.columns, self.lines), self.lines)


def with_delta(
    rows: Sequence[Row],
    reference: str,
    higher: Mapping[str, bool],
    data: str | None = None,
    labels: str | None = None,
) -> list[Row]:
    """The rows with ``delta_mtl`` against the mean of the reference method of the same data and labels, in percent.

    Args:
        higher: the columns of the tasks' metrics, and whether more is better.
        data, labels: of the reference, where all rows have one; None: those of the row.
    """
    found = []
    for row in rows:
        place = (row["data"] if data is None else data, row["labels"] if labels is None else labels)
        others = [r for r in rows if (r["method"], *_place(r)) == (reference, *place)]
        means = {key: _mean([r.get(key) for r in others]) for key in higher}
        shared = {key: value for key, value in means.items() if value and row.get(key) is not None}
        change = delta_mtl({key: row[key] for key in shared}, shared, {key: higher[key] for key in shared})
        found.append({**row, "delta_mtl": round(change, 2) if math.isfinite(change) else None})
    return found


def lines(rows: Sequence[Row], columns: Sequence[str], differences: Mapping[Key, Difference | None]) -> list[Line]:
    """The table's lines, in the order of the rows."""
    found = []
    for key in dict.fromkeys((row["method"], *_place(row)) for row in rows):
        of_key = [row for row in rows if (row["method"], *_place(row)) == key]
        values = {name: _mean_std([row.get(name) for row in of_key]) for name in (*columns, "delta_mtl", *COSTS)}
        found.append(Line(*key, len(of_key), values, differences.get(key)))
    return found


def by_share(found: Sequence[Line], column: str) -> dict[str, dict[float, float]]:
    """Means of a column by method and share of the labels; lines of other label settings are left out."""
    curves: dict[str, dict[float, float]] = {}
    for line in found:
        share, (mean, _) = share_of(line.labels), line.values[column]
        if share is not None and math.isfinite(mean):
            curves.setdefault(line.method, {})[share] = mean
    return curves


def header(columns: Sequence[str], found: Sequence[Line]) -> list[str]:
    """Names of the columns; those of data and labels where they differ, those of costs where they are known."""
    return [
        "method", *(["data"] if len({line.data for line in found}) > 1 else []),
        *(["labels"] if len({line.labels for line in found}) > 1 else []), "seeds",
        *columns, "delta_mtl", *(["95 %"] if any(line.difference for line in found) else []),
        *(name for name in COSTS if any(math.isfinite(line.values[name][0]) for line in found)),
    ]  # fmt: skip


def cells(line: Line, names: Sequence[str], plus_minus: str = "±") -> list[str]:
    """A line's cells as text."""
    texts = {"method": line.method, "data": line.data, "labels": line.labels, "seeds": str(line.seeds)}
    if line.difference is not None:
        texts["95 %"] = f"{line.difference.low:+.1f} to {line.difference.high:+.1f}"
    for name, (mean, std) in line.values.items():
        digits = COSTS.get(name, 2 if abs(mean) >= 10 or name == "delta_mtl" else 4)
        text = "–" if not math.isfinite(mean) else f"{mean:.{digits}f}"
        texts[name] = f"{text} {plus_minus} {std:.{digits}f}" if math.isfinite(std) and name not in COSTS else text
    return [texts.get(name, "–") for name in names]


def to_markdown(names: Sequence[str], found: Sequence[Line]) -> str:
    """As Markdown.

    Examples:
        >>> print(to_markdown(["method", "seeds"], [Line("mtl", "", "one", 2, {})]))
        | method | seeds |
        |---|---|
        | mtl | 2 |
    """
    rows = [names, *(cells(line, names) for line in found)]
    texts = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([texts[0], "|" + "---|" * len(names), *texts[1:]])


def to_latex(names: Sequence[str], found: Sequence[Line]) -> str:
    """As a LaTeX ``tabular`` of the package booktabs."""
    rows = [" & ".join(map(_escaped, cells(line, names, r"$\pm$"))) + r" \\" for line in found]
    head = " & ".join(map(_escaped, names)) + r" \\"
    first = f"\\begin{{tabular}}{{l{'r' * (len(names) - 1)}}}"
    return "\n".join([first, r"\toprule", head, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}"])


def to_csv(rows: Sequence[Row]) -> str:
    """The rows of all seeds as CSV."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def print_lines(columns: Sequence[str], found: Sequence[Line]) -> None:
    """The table on the terminal, in as many parts as its width asks for."""
    names = header(columns, found)
    texts = [cells(line, names) for line in found]
    console = table_console()
    for table in tables_that_fit([(name, [row[i] for row in texts]) for i, name in enumerate(names)], console):
        console.print(table)


def print_results_file(path: Path, as_json: bool = False) -> None:
    """The table of a results file, of this version or an earlier one. Raises `DataError` for another file."""
    rows = read_results(path)
    if as_json:
        print_json(rows)
        return
    known = {"method", "data", "labels", "share", "seed", "delta_mtl", "steps", *COSTS}
    columns = [
        name for name in dict.fromkeys(name for row in rows for name in row)
        if name not in known and all(isinstance(row.get(name), int | float | None) for row in rows)
    ]  # fmt: skip
    print_lines(columns, lines(rows, columns, {}))


def parse_list(option: str, text: str | None, kind: Callable[[str], Any] = str) -> list[Any] | None:
    """The values of an option, separated by commas; None where it is not given. Raises `ConfigError`.

    Examples:
        >>> parse_list("--seeds", "0,1", int)
        [0, 1]
    """
    if text is None:
        return None
    try:
        found = [kind(word.strip()) for word in text.split(",") if word.strip()]
    except ValueError as error:
        raise ConfigError(f"{option} takes whole numbers separated by commas, found '{text}'") from error
    if not found:
        raise ConfigError(f"{option} takes values separated by commas, found '{text}'")
    return found


def read_results(path: Path) -> list[Row]:
    """The rows of a results file: a comparison's, or one of earlier versions. Raises `DataError` for another file."""
    try:
        rows = read_json(path)["rows"]
        found = [dict(row) for row in rows]
        for row in found:
            row["method"], row["seed"] = str(row["method"]), int(row["seed"])
            row.setdefault("data", "")
            row["labels"] = str(row.get("labels", ""))
            if "minutes" in row:
                row["cpu_minutes"] = row.pop("minutes")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} is no results file: expected JSON with rows that have a method and a seed") from error
    return found


def _place(row: Row) -> tuple[str, str]:
    return row["data"], row["labels"]


def _mean(values: Sequence[Any]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _mean_std(values: Sequence[Any]) -> tuple[float, float]:
    known = [float(value) for value in values if value is not None]
    if not known:
        return math.nan, math.nan
    mean = sum(known) / len(known)
    if len(known) == 1:
        return mean, math.nan
    return mean, math.sqrt(sum((value - mean) ** 2 for value in known) / (len(known) - 1))


def _escaped(text: str) -> str:
    for letter in "&%_#":
        text = text.replace(letter, f"\\{letter}")
    return text.replace("–", "--")
