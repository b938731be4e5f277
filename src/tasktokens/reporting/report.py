"""Finished runs on one page: ``report.html`` is a single HTML file that needs no network connection."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from markupsafe import Markup
from PIL import Image

from tasktokens.data.visibility import count_labels
from tasktokens.metrics import delta_mtl, higher_is_better
from tasktokens.reporting.run_history import RunHistory
from tasktokens.tasks import Task
from tasktokens.training.log import parse_rows
from tasktokens.utils.atomic import write_atomically
from tasktokens.utils.pictures import (
    COLOURS,
    Picture,
    Strip,
    chart,
    png,
    same_captions,
    save_strips,
)
from tasktokens.utils.safe_io import load_json
from tasktokens.utils.templates import page_templates

__all__ = ["Picture", "RunColumn", "Strip", "save_strips", "write_report"]

_Row = dict[str, Any]


@dataclass(frozen=True)
class RunColumn:
    """A finished run's folder, and what its column is called.

    Attributes:
        label: heading of the column.
        folder: of the run.
    """

    label: str
    folder: Path


def write_report(
    path: Path,
    title: str,
    runs: Sequence[RunColumn],
    tasks: Mapping[str, Task],
    sections: Mapping[str, Sequence[Strip]],
    notes: Sequence[str],
    split: str = "test",
) -> Path:
    """Write a page with the runs' metrics, curves, pictures and settings; what a run lacks is left out or shown as –.

    Args:
        path: the HTML file, replaced at once when complete.
        title: heading of the page.
        runs: columns in order; the last is compared with the first, the reference.
        tasks: tasks by name; their metrics give units and directions.
        sections: strips of pictures by heading.
        notes: what was done, in sentences that make one paragraph.
        split: which ``evaluation-{split}.json`` of each run to show.
    """
    environment = page_templates()
    environment.filters |= {"signed": _signed, "data_uri": _data_uri, "same_captions": same_captions}
    results = [_read_json(run.folder / f"evaluation-{split}.json") for run in runs]
    rows = {name: _metric_rows(task, [r.get(name, {}) for r in results]) for name, task in tasks.items()}
    tables = {name: [row for row in of_task if not row["per_class"]] for name, of_task in rows.items()}
    classes = {name: [row for row in of_task if row["per_class"]] for name, of_task in rows.items()}
    logs = [RunHistory(parse_rows(_read_text(run.folder / "metrics.jsonl"))) for run in runs]
    page = environment.get_template("report.html.j2").render(
        title=title, notes=notes, runs=runs, split=split, sections=sections, tables=tables, classes=classes,
        delta=_delta_mtl(tables) if len(runs) > 1 else None,
        meanings={name: (type(task.metric()).__doc__ or "").partition("\n\n")[0] for name, task in tasks.items()},
        colours=[COLOURS[i % len(COLOURS)] for i in range(len(runs))],
        stages=[log.stages() for log in logs],
        losses=_charts(logs, "loss", tasks), discovered=_charts(logs, "discovered", tasks, share=True),
        facts=_facts(runs, logs, tasks), settings=[_read_text(run.folder / "config.yaml") for run in runs],
        environments=_environments(runs), written=f"{datetime.now():%Y-%m-%d %H:%M}",
    )  # fmt: skip
    return write_atomically(path, page.encode())


# -- numbers -----------------------------------------------------------------------------------------------------------
def _metric_rows(task: Task, results: Sequence[Mapping[str, float | None]]) -> list[_Row]:
    """A row of the table for each metric that any run has, primary first; ``change`` is positive where better."""
    metric = task.metric()
    rows = []
    for name in dict.fromkeys([metric.primary, *(name for result in results for name in result)]):
        values = [None if (v := result.get(name)) is None or math.isnan(v) else v for result in results]
        higher, unit = higher_is_better(metric, name), metric.units.get(name.split("/")[0], "")
        texts = ["–" if v is None else f"{v:.2f}" if unit in ("%", "°") else f"{v:.4f}" for v in values]
        known = [v for v in values if v is not None]
        best = (max if higher else min)(known) if len(set(texts) - {"–"}) > 1 else None
        rows.append({
            "name": name, "per_class": "/" in name and name != metric.primary, "label": name.partition("/")[2] or name,
            "unit": unit, "arrow": "↑" if higher else "↓", "primary": name == metric.primary,
            "cells": [(text, best is not None and value == best) for text, value in zip(texts, values, strict=True)],
            "change": _change(values[0], values[-1], higher) if len(values) > 1 else None,
        })  # fmt: skip
    return rows


def _change(reference: float | None, value: float | None, higher: bool) -> float | None:
    """Relative change in percent, positive where better; None where it is undefined."""
    if reference is None or value is None or reference == 0:
        return None
    return delta_mtl({"": value}, {"": reference}, {"": higher})


def _delta_mtl(tables: Mapping[str, Sequence[_Row]]) -> _Row | None:
    """Mean of the primary metrics' changes over the tasks that have one; None where no task has."""
    changes = [rows[0]["change"] for rows in tables.values() if rows[0]["change"] is not None]
    return {"value": sum(changes) / len(changes), "count": len(changes), "of": len(tables)} if changes else None


def _signed(change: float | None) -> str:
    """``+1.2 %``, with a true minus sign; beyond 999 % only a bound, since the reference is close to zero."""
    if change is None:
        return "–"
    if abs(change) > 999:
        return ">\u202f+999\u202f%" if change > 0 else "<\u202f−999\u202f%"
    text = f"{change:+.1f}".replace("-", "−")
    return (text.lstrip("+−") if text[1:] == "0.0" else text) + "\u202f%"


# -- what a run folder holds -------------------------------------------------------------------------------------------
def _facts(
    runs: Sequence[RunColumn], logs: Sequence[RunHistory], tasks: Mapping[str, Task]
) -> list[tuple[str, list[str]]]:
    """Rows of the table of costs and labels: heading and a text for each run."""
    counts = [_label_counts(run.folder / "labels.csv") for run in runs]
    rows = [
        ("Minutes of training", [f"{log.minutes:.1f}" if log.minutes is not None else "–" for log in logs]),
        ("Images per second", [f"{median(v):.1f}" if (v := log.all("images_per_second")) else "–" for log in logs]),
        ("Peak memory, GB", [f"{max(v) / 1024:.1f}" if (v := log.all("memory_mb")) else "–" for log in logs]),
        ("Training images", [str(total) if total else "–" for _, total in counts]),
    ]
    for name in tasks:
        rows.append(
            (f"… labelled for {name}", [_labels_text(count, name) if total else "–" for count, total in counts])
        )
    return rows


def _labels_text(counts: Mapping[str, Mapping[str, int]], task: str) -> str:
    """How many labels count in full, and what is to be known of others: ``12 (2 corrected), 30 discovered``."""
    count = counts.get(task, {})
    decided = [f"{count[word]} {word}" for word in ("accepted", "corrected") if count.get(word)]
    full = str(sum(n for word, n in count.items() if word != "discovered"))
    text = f"{full} ({', '.join(decided)})" if decided else full
    return f"{text}, {count['discovered']} discovered" if count.get("discovered") else text


def _label_counts(path: Path) -> tuple[Mapping[str, Mapping[str, int]], int]:
    """How many labels of each source a run has by task, and how many images there are; 0 without a table."""
    return count_labels(path) if path.is_file() else ({}, 0)


def _environments(runs: Sequence[RunColumn]) -> dict[str, list[str]]:
    """The runs' labels by environment: one entry where all ran in the same."""
    found: dict[str, list[str]] = {}
    for run in runs:
        if values := _read_json(run.folder / "environment.json"):
            found.setdefault(" · ".join(f"{key} {value}" for key, value in values.items()), []).append(run.label)
    return found


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _read_json(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = load_json(_read_text(path) or "{}")
    return values


# -- pictures ----------------------------------------------------------------------------------------------------------
def _charts(logs: Sequence[RunHistory], kind: str, tasks: Mapping[str, Task], share: bool = False) -> dict[str, Markup]:
    """A chart for each task of which some run logged ``kind/task``."""
    curves = {name: [list(log.curves(f"{kind}/{name}")) for log in logs] for name in tasks}
    return {name: Markup(chart(f"{kind}/{name}", runs, share)) for name, runs in curves.items() if any(runs)}


def _data_uri(picture: Picture) -> str:
    """A picture for ``src``, at most 512 pixels wide or high."""
    image = Image.fromarray(picture.pixels)
    image.thumbnail((512, 512))
    return "data:image/png;base64," + base64.b64encode(png(image)).decode("ascii")
