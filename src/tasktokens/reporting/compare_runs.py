"""``tasktokens runs RUN RUN``: which settings differ between runs, their metrics, and the change from the first."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasktokens.config import Config
from tasktokens.inference.evaluate import run_config
from tasktokens.inference.evaluations import Evaluation, read_evaluation
from tasktokens.metrics import delta_mtl
from tasktokens.models.files import read_info
from tasktokens.tasks import Task
from tasktokens.utils.console import table_console
from tasktokens.utils.tables import tables_that_fit


def compare_runs(folders: Sequence[Path], split: str | None = None) -> dict[str, Any]:
    """What differs between runs, as plain values.

    Args:
        folders: two or more runs; the first is the reference.
        split: whose evaluation to compare; default: the one that the first run evaluates itself on.

    Returns:
        ``runs`` (paths), ``settings`` (by key, a value for each run, where they differ), ``split``, ``metrics`` (by
        task and metric, a value for each run, null where there is none) and ``delta_mtl``: for each run but the first,
        the mean relative change in percent of the primary metrics (``value``) and the ``tasks`` that it is over: those
        that both runs define in the same way and evaluated.

    Raises:
        CheckpointError, ConfigError: a folder is no run, or one that cannot be read.
    """
    configs = [run_config(folder) for folder in folders]
    split = split or configs[0].run.measured_on or "test"
    tasks = [read_info(f / "model").tasks if (f / "model").is_dir() else {} for f in folders]
    results = [read_evaluation(folder, split) for folder in folders]
    metrics: dict[str, dict[str, list[float | None]]] = {}
    for task, metric in dict.fromkeys((name, metric) for run in results for name in run for metric in run[name]):
        metrics.setdefault(task, {})[metric] = [run.get(task, {}).get(metric) for run in results]
    deltas = [_delta(tasks[0], results[0], tasks[i], results[i]) for i in range(1, len(folders))]
    return {
        "runs": [str(folder) for folder in folders],
        "settings": _differences(configs),
        "split": split,
        "metrics": metrics,
        "delta_mtl": deltas,
    }


def print_comparison(found: Mapping[str, Any]) -> None:
    """`compare_runs` as tables that fit the terminal; settings that only some methods have are lines below."""
    names = _short_names(found["runs"])
    common = {key: values for key, values in found["settings"].items() if None not in values}
    settings = [("setting", list(common)), *_columns(names, [[str(v) for v in row] for row in common.values()])]
    rows = {f"{task} {metric}": values for task, of in found["metrics"].items() for metric, values in of.items()}
    cells = [["–" if value is None else f"{value:.4g}" for value in row] for row in rows.values()]
    deltas = found["delta_mtl"]
    cells.append(["", *("–" if d["value"] is None else f"{d['value']:+.1f} %" for d in deltas)])
    console = table_console()
    for table in tables_that_fit(settings, console, "settings that differ") if common else ():
        console.print(table)
    for run, own in zip(found["runs"], _own_settings(found["settings"], len(names)), strict=True):
        if own:
            console.print(f"set only in {run}: {own}", highlight=False)
    metrics = [("metric", [*rows, "Δ_MTL"]), *_columns(names, cells)]
    for table in tables_that_fit(metrics, console, f"metrics on {found['split']}"):
        console.print(table)
    for run, delta in zip(found["runs"][1:], deltas, strict=True):
        tasks = ", ".join(delta["tasks"]) or "no task: none was measured in both runs and means the same"
        console.print(f"Δ_MTL of {run} is over {tasks}", highlight=False, soft_wrap=True)


def _columns(names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[tuple[str, list[str]]]:
    """A column for each run, from a row for each setting or metric."""
    return [(name, [row[number] for row in rows]) for number, name in enumerate(names)]


def _own_settings(settings: Mapping[str, Sequence[Any]], count: int) -> list[str]:
    """For each of ``count`` runs the settings that it has and another run lacks, such as those of its method."""
    partial = {key: values for key, values in settings.items() if None in values}
    return [
        ", ".join(f"{key}={values[run]}" for key, values in partial.items() if values[run] is not None)
        for run in range(count)
    ]


def _short_names(folders: Sequence[str]) -> list[str]:
    """The folders' names below the one that they share."""
    try:
        shared = os.path.commonpath([os.path.dirname(os.path.normpath(folder)) for folder in folders])
    except ValueError:  # absolute and relative ones
        return list(folders)
    return [os.path.relpath(folder, shared) if shared else folder for folder in folders]


def _delta(
    tasks: Mapping[str, Task], before: Evaluation, others: Mapping[str, Task], after: Evaluation
) -> dict[str, Any]:
    """Δ_MTL of a run over the tasks that it shares with the reference; None over none."""
    values, reference, higher = {}, {}, {}
    for name, task in tasks.items():
        metric = task.metric()
        new, old = after.get(name, {}).get(metric.primary), before.get(name, {}).get(metric.primary)
        if name in others and others[name].spec() == task.spec() and new is not None and old:
            values[name], reference[name], higher[name] = new, old, metric.primary_is_higher
    return {"value": delta_mtl(values, reference, higher) if values else None, "tasks": list(values)}


def _differences(configs: Sequence[Config]) -> dict[str, list[Any]]:
    """Settings whose values are not all the same; where a run is written to is no difference."""
    flat = [dict(_flat(config.model_dump(mode="json"))) for config in configs]
    keys = [key for key in dict.fromkeys(key for one in flat for key in one) if key != "run.dir"]
    values = {key: [one.get(key) for one in flat] for key in keys}
    return {key: row for key, row in values.items() if any(value != row[0] for value in row)}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
