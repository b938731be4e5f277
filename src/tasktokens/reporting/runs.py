"""``tasktokens runs``: list the runs in a folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from tasktokens.config import Config
from tasktokens.data.visibility import count_labels
from tasktokens.datasets.provenance import SOURCES
from tasktokens.datasets.run_data import LABELS
from tasktokens.errors import CheckpointError, TaskTokensError
from tasktokens.inference.evaluate import run_config
from tasktokens.inference.evaluations import read_evaluation
from tasktokens.methods import build_method
from tasktokens.models.files import read_info
from tasktokens.training.callbacks.validation import BEST
from tasktokens.training.log import is_finished, is_written, minutes_of, read_rows
from tasktokens.utils.console import table_console
from tasktokens.utils.safe_io import read_json
from tasktokens.utils.tables import tables_that_fit

DEPTH = 3
"""How many folders below the given one a run may lie."""

_FAULTS = (TaskTokensError, OSError, TypeError, ValueError, KeyError, AttributeError)


@dataclass(frozen=True)
class Primary:
    """A task's primary metric in a run: its name, value (None: of nothing) and unit.

    Attributes:
        metric: its name, such as ``mIoU``.
        value: in ``unit``; None where nothing was measured.
        unit: ``%``, ``m``, ``°`` or empty.
    """

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
        name: of the folder.
        folder: its path.
        method: name of the method.
        data: kind of the data set.
        state: ``running`` (another process writes its log), ``finished``, ``interrupted`` or ``broken``.
        steps: done, and in total, over all stages.
        minutes: of training.
        changed: when the log was last written, local time.
        split: what ``metrics``, by task, were measured on.
        labels: of a run by task, how many are given, accepted, corrected, discovered.
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
    labels: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
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
        if (folder / LABELS).is_file():
            facts = replace(facts, labels={task: dict(n) for task, n in count_labels(folder / LABELS)[0].items()})
        facts = replace(facts, steps=_steps(config, rows), minutes=minutes_of(rows), best=_best(folder))
        finished = is_finished(rows)
        if finished and config.run.measured_on is not None:
            facts = replace(facts, metrics=_primaries(folder, config.run.measured_on))
    except _FAULTS as error:
        known = isinstance(error, TaskTokensError)
        return replace(facts, fault=str(error) if known else f"{type(error).__name__}: {error}")
    return replace(facts, state="running" if is_written(log) else "finished" if finished else "interrupted")


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
    if any(_reviewed(run) for run in runs):
        last.insert(0, ("labels", [_labels_text(run) for run in runs]))
    if any(run.best for run in runs):
        last.insert(0, ("best", [_best_text(run.best) for run in runs]))
    console = table_console()
    for table in tables_that_fit([*columns.items(), *metrics, *last], console):
        console.print(table)
    for run in runs:
        if run.fault:
            console.print(f"{run.name}: {' '.join(run.fault.split())}", highlight=False, soft_wrap=True)


def _reviewed(run: RunFacts) -> bool:
    """Whether some of its labels are not simply given."""
    return any(word != "given" for of_task in run.labels.values() for word in of_task)


def _labels_text(run: RunFacts) -> str:
    """How many there are of each source, over all tasks: ``40 given, 3 corrected, 80 discovered``."""
    counts = Counter[str]()
    for of_task in run.labels.values():
        counts.update(of_task)
    return ", ".join(f"{counts[word]} {word}" for word in SOURCES if counts[word])


def _best_text(best: Mapping[str, Any] | None) -> str:
    return f"{best['stage']} {best['step']} ({best['score']:+.1f} %)" if best else ""


def to_json(runs: Sequence[RunFacts]) -> list[dict[str, Any]]:
    """The list as JSON."""
    return [asdict(run) for run in runs]


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
    results, found = read_evaluation(folder, split), {}
    for name, task in read_info(folder / "model").tasks.items():
        if name in results:
            metric = task.metric()
            unit = metric.units.get(metric.primary.split("/")[0], "")
            found[name] = Primary(metric.primary, results[name].get(metric.primary), unit)
    return found
