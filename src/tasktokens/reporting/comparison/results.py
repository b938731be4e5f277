"""What a comparison writes of its rows: results, tables in three forms, and the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tasktokens.reporting.comparison.bootstrap import Difference, paired_difference
from tasktokens.reporting.comparison.measure import Row, Sums, row_path, tasks_of
from tasktokens.reporting.comparison.page import write_page
from tasktokens.reporting.comparison.runs import Cell, Work
from tasktokens.reporting.comparison.shares import equal_shares, share_of
from tasktokens.reporting.comparison.tables import (
    Comparison,
    Key,
    by_share,
    header,
    lines,
    to_csv,
    to_latex,
    to_markdown,
    with_delta,
)
from tasktokens.reporting.provenance import describe
from tasktokens.tasks import Task
from tasktokens.utils import strict_json
from tasktokens.utils.atomic import write_atomically
from tasktokens.utils.safe_io import read_json


def write_results(work: Work, cells: Sequence[Cell], columns: Mapping[str, str]) -> Comparison:
    """Write the tables and the page from the rows that are there."""
    rows = [read_json(row_path(work, cell)) for cell in cells if row_path(work, cell).is_file()]
    tasks = {name: task for data in work.suite.data for name, task in tasks_of(work, data).items()}
    higher = {columns[name]: task.metric().primary_is_higher for name, task in tasks.items()}
    suite = work.suite
    rows = with_delta(rows, suite.reference, higher, suite.reference_data, suite.reference_labels)
    rows = [row if (share := share_of(row["labels"])) is None else {**row, "share": share} for row in rows]
    names = list(higher)
    differences = _differences(work, rows, tasks)
    found = lines(rows, names, differences)
    equal = [] if suite.reference_labels is None else equal_shares(by_share(found, "delta_mtl"), suite.reference)
    comparison = Comparison(work.out, rows, names, found, equal)
    head = describe("minutes: by the clock" if work.gpus else "one thread per run; minutes of the CPU", suite.seeds)
    tested = [{"method": m, "data": d, "labels": label, **vars(x)} for (m, d, label), x in differences.items() if x]
    results = {
        **head, "suite": suite.model_dump(mode="json"), "differences": tested,
        **({"equal_labels": [each.sentence() for each in equal]} if equal else {}), "rows": rows,
    }  # fmt: skip
    write_atomically(work.out / "results.json", (strict_json.dumps(results, indent=1) + "\n").encode())
    shown = header(names, found)
    write_atomically(work.out / "table.md", (to_markdown(shown, found) + "\n").encode())
    write_atomically(work.out / "table.tex", (to_latex(shown, found) + "\n").encode())
    write_atomically(work.out / "table.csv", to_csv(rows).encode())
    write_page(work, comparison, higher)
    return comparison


def _differences(work: Work, rows: Sequence[Row], tasks: Mapping[str, Task]) -> dict[Key, Difference | None]:
    """Of each line against the method that the suite tests against."""
    found: dict[Key, Difference | None] = {}
    for method, data, labels in dict.fromkeys((r["method"], r["data"], r["labels"]) for r in rows):
        if method != work.suite.against:
            mine, other = (_sums(work, rows, name, data, labels) for name in (method, work.suite.against))
            found[method, data, labels] = paired_difference(tasks, mine, other)
    return found


def _sums(work: Work, rows: Sequence[Row], method: str, data: str, labels: str) -> list[Sums]:
    """The sums of each test image for each seed that has a row."""
    found = []
    for row in rows:
        if (row["method"], row["data"], row["labels"]) == (method, data, labels):
            with np.load(work.out / "images" / f"{Cell(method, data, labels, row['seed']).name}.npz") as file:
                found.append({name: file[name] for name in file.files})
    return found
