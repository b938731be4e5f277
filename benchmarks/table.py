"""The rows of a results file: those that are there, and those that are added."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from tasktokens.metrics.delta import delta_mtl

HIGHER = ("mIoU", "odsF", "maxF")
"""Primary metrics of which more is better."""


class Table:
    """A file of rows that grows; each row gets its change against the single-task networks of the same labels."""

    def __init__(
        self,
        path: Path,
        primary: Mapping[str, str],
        order: Sequence[str],
        describe: Callable[[Sequence[int]], dict[str, object]],
    ) -> None:
        self.path, self.primary, self.order, self.describe, self.lock = path, primary, list(order), describe, Lock()
        self.head: dict[str, Any] = {}
        self.rows: list[dict[str, Any]] = []
        if path.is_file():
            self.head = json.loads(path.read_text())
            self.rows = self.head.pop("rows")

    def has(self, method: str, seed: int, labels: str) -> bool:
        """Whether there is such a row."""
        return any((r["method"], r["seed"], r["labels"]) == (method, seed, labels) for r in self.rows)

    def add(self, row: dict[str, Any]) -> None:
        """Add a row and write the file."""
        with self.lock:
            self.rows.append(row)
            self.write()

    def write(self) -> None:
        """Write all rows, with the commands of all calls that made them."""
        for row in self.rows:
            reference = self._reference(row)
            row["delta_mtl"] = round(self._change(row, reference), 2) if reference and all(reference.values()) else None
        head = self.describe(sorted({row["seed"] for row in self.rows}))
        commands = dict.fromkeys([*str(self.head.get("command", "")).splitlines(), head["command"]])
        head["command"] = "\n".join(str(command) for command in commands if command)
        known = {method: i for i, method in enumerate(self.order)}
        last = len(known)
        self.rows.sort(key=lambda row: (row["labels"], known.get(row["method"], last), row["seed"]))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(head | {"rows": self.rows}, indent=1, ensure_ascii=False) + "\n")

    def markdown(self) -> str:
        """Means over the seeds, one line per method and label setting."""
        columns = {name: 2 if name in HIGHER or name == "mErr" else 4 for name in self.primary.values()}
        columns |= {"delta_mtl": 2, "gflops": 3, "minutes": 1}
        lines = [f"| method | labels | seeds | {' | '.join(columns)} |", "|---" * (3 + len(columns)) + "|"]
        for labels, method in dict.fromkeys((row["labels"], row["method"]) for row in self.rows):
            rows = [r for r in self.rows if (r["labels"], r["method"]) == (labels, method)]
            means = {key: _mean(rows, key) for key in columns}
            cells = ["–" if means[key] is None else f"{means[key]:.{columns[key]}f}" for key in columns]
            lines.append(f"| {method} | {labels} | {len(rows)} | {' | '.join(cells)} |")
        return "\n".join(lines)

    def _reference(self, row: Mapping[str, Any]) -> dict[str, float] | None:
        """Mean of the single-task networks over the seeds: a seed of its own would be noise."""
        single = [r for r in self.rows if r["method"] == "stl" and r["labels"] == row["labels"]]
        return {key: sum(r[key] for r in single) / len(single) for key in self.primary.values()} if single else None

    def _change(self, row: Mapping[str, Any], reference: Mapping[str, float]) -> float:
        return delta_mtl({key: row[key] for key in reference}, reference, {key: key in HIGHER for key in reference})


def _mean(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """None where no row has a value: there is no change without single-task networks."""
    values = [row[key] for row in rows if row.get(key) is not None]
    return sum(values) / len(values) if values else None
