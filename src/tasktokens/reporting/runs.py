"""``tasktokens runs``: list the runs in a folder, or compare some of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from tasktokens.config import Config
from tasktokens.errors import CheckpointError, TaskTokensError
from tasktokens.inference.evaluate import run_config
from tasktokens.methods import build_method
from tasktokens.metrics import delta_mtl, higher_is_better
from tasktokens.models.files import read_info
from tasktokens.tasks import Task
from tasktokens.training.callbacks.validation import BEST
from tasktokens.training.log import is_finished, is_written, minutes_of, read_rows
from tasktokens.utils import strict_json
from tasktokens.utils.console import table_console
from tasktokens.utils.safe_io import read_json

DEPTH = 3
"""How many folders below the given one a run may lie."""

_Results = dict[str, dict[str, float | None]]
_FAULTS = (TaskTokensError, OSError, TypeError, ValueError, KeyError, AttributeError)


@dataclass(frozen=True)
class Primary:
    """A task's primary metric in a run: its name, value (None: of nothing) and unit."""

    metric: str
    value: float | None
    unit: str

    def __str__(self) -> str:
        value = "–" if self.value is None else f"{self.value:.4g}"
        return f"{self.metric} {value} {self.unit}".rstrip()


@dataclass(frozen=True)
class RunFacts:
    """What a run folder says about its run.

    Attributes:
        state: ``running`` (another process writes its log), ``finished``, ``interrupted`` or ``broken``.
        steps: done, and in total, over all stages.
        minutes: of training.
        changed: when the log was last written, local time.
        split: what ``metrics``, by task, were measured on.
        best: of a run with validations: stage, step and score (percent) of the network in ``best/``.
        fault: of a broken run: what cannot be read.
    """

    name: str
    folder: Path
    changed: str
    state: str = "broken"
    method: str = ""
    data: str = ""
    steps: tuple[int, int] | None = None
    minutes: float | None = None
    split: str | None = None
    metrics: Mapping[str, Primary] = field(default_factory=dict)
    best: Mapping[str, Any] | None = None
    fault: str | None = None


def list_runs(folder: Path = Path("runs")) -> list[RunFacts]:
    """All runs in a folder, itself included, the last changed first; broken ones say what is wrong with them.

    Raises:
        CheckpointError: there is no such folder.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no folder; give the folder that your runs lie in")
    found = [run_facts(path, folder) for path in _find(folder)]
    return sorted(found, key=lambda run: run.changed, reverse=True)


def run_facts(folder: Path, parent: Path | None = None) -> RunFacts:
    """What a run folder says, under its name below ``parent``; never raises for a folder that is damaged."""
    log = folder / "metrics.jsonl"
    name = folder.relative_to(parent).as_posix() if parent not in (None, folder) else str(folder)
    time = datetime.fromtimestamp((log if log.is_file() else folder).stat().st_mtime)
    facts = RunFacts(name, folder, time.isoformat(" ", "minutes"))
    try:
        config = run_config(folder)
        facts = replace(facts, method=config.method.name, data=config.data.kind, split=config.run.measured_on)
        rows = read_rows(log) if log.is_file() else []
        facts = replace(facts, steps=_steps(config, rows), minutes=minutes_of(rows), best=_best(folder))
        finished = is_finished(rows)
        if finished and config.run.measured_on is not None:
            facts = replace(facts, metrics=_primaries(folder, config.run.measured_on))
    except _FAULTS as error:
        known = isinstance(error, TaskTokensError)
        return replace(facts, fault=str(error) if known else f"{type(error).__name__}: {error}")
    return replace(facts, state="running" if is_written(log) else "finished" if finished else "interrupted")


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
    results = [_read_results(folder, split) for folder in folders]
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


# -- printing ----------------------------------------------------------------------------------------------------------
def print_runs(runs: Sequence[RunFacts]) -> None:
    """The list, with a column for each task's primary metric; then what is wrong with broken runs.

    On a narrow terminal the columns go on in further tables, each of which begins with the names of the runs.
    """
    tasks = dict.fromkeys(name for run in runs for name in run.metrics)
    columns = {
        "run": [run.name for run in runs],
        "method": [run.method for run in runs],
        "data": [run.data for run in runs],
        "steps": [f"{run.steps[0]}/{run.steps[1]}" if run.steps else "" for run in runs],
        "state": [run.state for run in runs],
        "minutes": [f"{run.minutes:.1f}" if run.minutes is not None else "" for run in runs],
    }
    metrics = [(name, [str(run.metrics.get(name, "")) for run in runs]) for name in tasks]
    last = [("changed", [run.changed for run in runs])]
    if any(run.best for run in runs):
        last.insert(0, ("best", [_best_text(run.best) for run in runs]))
    console = _console()
    for table in _tables_that_fit([*columns.items(), *metrics, *last], console):
        console.print(table)
    for run in runs:
        if run.fault:
            console.print(f"{run.name}: {' '.join(run.fault.split())}", highlight=False, soft_wrap=True)


def _best_text(best: Mapping[str, Any] | None) -> str:
    return f"{best['stage']} {best['step']} ({best['score']:+.1f} %)" if best else ""


def _tables_that_fit(
    columns: Sequence[tuple[str, Sequence[str]]], console: Console, title: str | None = None
) -> Iterator[Table]:
    """All columns, in as few tables as the console's width allows; the first column is repeated in each."""

    def table_of(chosen: Sequence[tuple[str, Sequence[str]]]) -> Table:
        table = Table(title=title if chosen[1:2] == rest[:1] else None)
        for name, _ in chosen:
            table.add_column(name, overflow="fold")
        for row in zip(*(cells for _, cells in chosen), strict=True):
            table.add_row(*row)
        return table

    first, *rest = columns
    begin = 0
    while begin < len(rest):
        end = begin + 1  # one column at least, however long its cells are
        while end < len(rest):
            wider = table_of([first, *rest[begin : end + 1]])
            if Measurement.get(console, console.options.update(max_width=10**6), wider).maximum > console.width:
                break
            end += 1
        yield table_of([first, *rest[begin:end]])
        begin = end


def print_comparison(found: Mapping[str, Any]) -> None:
    """`compare_runs` as tables that fit the terminal; settings that only some methods have are lines below."""
    names = _short_names(found["runs"])
    common = {key: values for key, values in found["settings"].items() if None not in values}
    settings = [("setting", list(common)), *_columns(names, [[str(v) for v in row] for row in common.values()])]
    rows = {f"{task} {metric}": values for task, of in found["metrics"].items() for metric, values in of.items()}
    cells = [["–" if value is None else f"{value:.4g}" for value in row] for row in rows.values()]
    deltas = found["delta_mtl"]
    cells.append(["", *("–" if d["value"] is None else f"{d['value']:+.1f} %" for d in deltas)])
    console = _console()
    for table in _tables_that_fit(settings, console, "settings that differ") if common else ():
        console.print(table)
    for run, own in zip(found["runs"], _own_settings(found["settings"], len(names)), strict=True):
        if own:
            console.print(f"set only in {run}: {own}", highlight=False)
    metrics = [("metric", [*rows, "Δ_MTL"]), *_columns(names, cells)]
    for table in _tables_that_fit(metrics, console, f"metrics on {found['split']}"):
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


def to_json(runs: Sequence[RunFacts]) -> str:
    """The list as JSON."""
    return strict_json.dumps([asdict(run) for run in runs], indent=1, default=str)


def _console() -> Console:
    """As wide as the terminal; in a file or a pipe 80 columns."""
    return table_console()


# -- reading -----------------------------------------------------------------------------------------------------------
def _find(folder: Path) -> Iterator[Path]:
    """Run folders, without going into a run or a data folder, which may hold millions of files."""
    for path, below, files in os.walk(folder):
        if {"config.yaml", "dataset.yaml"} & set(files) or len(Path(path).relative_to(folder).parts) >= DEPTH:
            below.clear()
        if "config.yaml" in files and "dataset.yaml" not in files:
            yield Path(path)


def _steps(config: Config, rows: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Steps done and in total; a stage that was begun means that those before it are done."""
    done = before = 0
    for stage in build_method(config.method, {}).stages():
        seen = [int(row["step"]) for row in rows if row.get("stage") == stage.name]
        done = before + max(seen) if seen else done
        before += stage.steps
    return done, before


def _best(folder: Path) -> dict[str, Any] | None:
    """What ``best/`` says of its network; None without one."""
    path = folder / "best" / BEST
    if not path.is_file():
        return None
    values = read_json(path)
    return {"stage": str(values["stage"]), "step": int(values["step"]), "score": float(values["score"])}


def _primaries(folder: Path, split: str) -> dict[str, Primary]:
    results, found = _read_results(folder, split), {}
    for name, task in read_info(folder / "model").tasks.items():
        if name in results:
            metric = task.metric()
            unit = metric.units.get(metric.primary.split("/")[0], "")
            found[name] = Primary(metric.primary, results[name].get(metric.primary), unit)
    return found


def _read_results(folder: Path, split: str) -> _Results:
    path = folder / f"evaluation-{split}.json"
    if not path.is_file():
        return {}
    try:
        found = {task: dict(values) for task, values in read_json(path).items()}
        for value in (value for values in found.values() for value in values.values()):
            if value is not None and not isinstance(value, int | float):
                raise TypeError(f"{value!r} is no number")
        return found
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged; write it again by 'tasktokens evaluate {folder}'") from error


def _delta(tasks: Mapping[str, Task], before: _Results, others: Mapping[str, Task], after: _Results) -> dict[str, Any]:
    """Δ_MTL of a run over the tasks that it shares with the reference; None over none."""
    values, reference, higher = {}, {}, {}
    for name, task in tasks.items():
        metric = task.metric()
        new, old = after.get(name, {}).get(metric.primary), before.get(name, {}).get(metric.primary)
        if name in others and others[name].spec() == task.spec() and new is not None and old:
            values[name], reference[name], higher[name] = new, old, higher_is_better(metric, metric.primary)
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
