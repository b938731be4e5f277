"""Make a comparison: share its runs out, write a row as soon as it is known, then the tables and the page."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from tasktokens.errors import RunExistsError, TrainingError
from tasktokens.reporting.comparison.measure import columns_of, measure, row_path, tasks_of
from tasktokens.reporting.comparison.results import write_results
from tasktokens.reporting.comparison.runs import PROBES, Cell, Run, Work, labels_file
from tasktokens.reporting.comparison.suite import Suite, read_suite
from tasktokens.reporting.comparison.tables import Comparison
from tasktokens.reporting.comparison.tuning import with_best_settings
from tasktokens.utils.console import say
from tasktokens.utils.lock import only_writer_of_new

WAIT = 1.0
"""Seconds between two looks whether another process has ended a run that this one needs."""


def compare(
    suite: str | Path | Suite,
    out: str | Path | None = None,
    overrides: Iterable[str] = (),
    jobs: int | None = None,
    quiet: bool = False,
    tuned: str | Path | None = None,
    **changes: Any,
) -> Comparison:
    """Train and measure every method of a suite; the same call goes on where it was stopped.

    Several processes and machines may make the same comparison in a shared folder: each run is made by one of them.

    Args:
        suite: a YAML file, or the name of a suite that is shipped, such as ``quick``.
        out: folder; default: ``runs/compare/NAME``.
        overrides: settings of all runs, such as ``["data.root=DIR"]``.
        jobs: runs at a time; default: one per GPU, or per core with one thread each.
        quiet: do not say which runs begin and end.
        tuned: ``results.json`` of a comparison whose data sets differ in settings, such as learning rates, measured on
            held-out images: each method takes those with which its Δ_MTL was the largest.
        changes: fields of the suite in place of its own: ``methods``, ``seeds``, ``labels``, ``steps``, ``split``.

    Returns:
        The rows, one per method, data set, label setting and seed, and the table; ``.folder`` has them as files:
        ``results.json``, ``table.md``, ``table.csv``, ``table.tex`` and ``report.html``. A row has the primary metric
        of each task, ``delta_mtl`` in percent, ``params_m`` (10^6), ``gflops`` (10^9 per image), ``step_s`` and
        ``infer_s`` (seconds per step and per image), ``memory_mb`` and ``cpu_minutes``.

    Raises:
        ConfigError: the suite is not right. TrainingError: some runs failed; the rows of the others are written.
        SystemExit: 130 or 143 after SIGINT or SIGTERM; runs under way have saved themselves.

    Examples:
        >>> import tasktokens
        >>> tiny = ["data.train=6", "data.test=2", "data.size=[32, 48]", "model.backbone=test_resnet", "model.width=16"]
        >>> found = tasktokens.compare(
        ...     "quick", "compared", [*tiny, "optim.batch_size=2"], jobs=1, quiet=True, methods=["mtl"], steps=2
        ... )
        >>> [(row["method"], row["labels"], row["steps"]) for row in found.rows]
        [('mtl', 'one', 2)]
    """
    found = suite if isinstance(suite, Suite) else read_suite(suite, overrides, **changes)
    if tuned is not None:
        found = with_best_settings(found, tuned)
    gpus = tuple(range(torch.cuda.device_count()))
    folder = Path(out) if out is not None else Path("runs/compare") / found.name
    work = Work(found, folder, None if gpus else 1, gpus)
    for place in ("runs", "rows", "images", "labels"):
        (folder / place).mkdir(parents=True, exist_ok=True)
    columns = columns_of(work)
    cells = list(cells_of(found))
    with _ended_by_signals(work):
        for cell in cells:
            labels_file(work, cell)  # before the runs, which all read it
        failures = _make(work, cells, columns, jobs or len(gpus) or os.cpu_count() or 1, quiet)
    result = write_results(work, cells, columns)
    if failures:
        raise TrainingError(f"{len(failures)} of the runs failed: {'; '.join(failures)}")
    return result


def cells_of(suite: Suite) -> Iterator[Cell]:
    """The rows of the table: all methods of a seed before the second seed of any."""
    for seed in suite.seeds:
        for data in suite.data:
            for labels in suite.labels:
                for method in suite.methods if seed in suite.seeds_of(labels) else ():
                    yield Cell(method, data, labels, seed)


def _make(work: Work, cells: Sequence[Cell], columns: Mapping[str, str], jobs: int, quiet: bool) -> list[str]:
    """Make all rows that are missing, several at a time; what failed, in a sentence each."""
    failed: dict[str, str] = {}
    broken: set[str] = set()
    measuring = threading.Lock()  # the times of two predictions at once would be those of both

    def work_on(cell: Cell) -> bool:
        """Whether something of the cell was made; another thread, process or machine may be at its runs."""
        needed = _needed(work, cell)
        if lost := [run.folder.name for run in needed if run.folder.name in broken]:
            failed.setdefault(cell.name, f"{cell.name} needs {lost[0]}, which failed")
            return True
        for run in needed:
            if run.done or not _ready(work, run, needed):
                continue
            with _claimed(run.folder) as mine:
                if mine and not run.done:
                    _say(f"{run.folder.name}: begun", quiet)
                    try:
                        run.train(_scale(work, run))
                    except TrainingError:
                        broken.add(run.folder.name)
                        raise
                    if run.done:
                        _say(f"{run.folder.name}: {run.seconds / 60:.1f} minutes", quiet)
                    return True
        if not all(run.done for run in needed):
            return False
        with measuring, _claimed(row_path(work, cell)) as mine:
            if mine and not row_path(work, cell).is_file():
                measure(work, cell, _networks(work, cell), columns)
                _say(f"{cell.name}: measured", quiet)
            return mine

    def worker(_: int) -> None:
        while not work.stopping.is_set():
            missing = [c for c in cells if not row_path(work, c).is_file() and c.name not in failed]
            if not missing:
                return
            progress = False
            for cell in missing:
                if work.stopping.is_set():
                    return
                try:
                    progress = work_on(cell) or progress
                except TrainingError as error:
                    failed[cell.name] = str(error)
                    progress = True
                if progress:
                    break  # look again from the first: its runs come first
            if not progress:
                time.sleep(WAIT)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(worker, range(jobs)))
    return list(failed.values())


def _networks(work: Work, cell: Cell) -> list[Run]:
    """The networks that a cell measures: one, or one per task."""
    if not work.suite.method(cell.method).each_task:
        return [Run(work, cell)]
    return [Run(work, cell, task) for task in tasks_of(work, cell.data)]


def _needed(work: Work, cell: Cell) -> list[Run]:
    """The runs of a cell in the order in which they can be made; with equal total cost, what says how long first."""
    runs = [one for run in _networks(work, cell) for one in run.chain()]
    if work.suite.cost == "steps" or cell.method == work.suite.cost_of:
        return runs
    paid = _needed(work, _paying(work, cell))
    return [*paid, *(Run(work, r.cell, r.task, probe) for r in runs for probe in PROBES), *runs]


def _ready(work: Work, run: Run, needed: Sequence[Run]) -> bool:
    """Whether what a run goes on from is done; with equal total cost also what says how long it may be."""
    before = run.before()
    if before is not None and not before.done:
        return False
    return not _scaled(work, run) or all(r.done for r in needed if r.probe or r.cell.method == work.suite.cost_of)


def _scaled(work: Work, run: Run) -> bool:
    """Whether a run gets as many steps as take the time of another method."""
    return work.suite.cost == "total" and not run.probe and run.cell.method != work.suite.cost_of


def _paying(work: Work, cell: Cell) -> Cell:
    return Cell(work.suite.cost_of, cell.data, cell.labels, cell.seed)


def _scale(work: Work, run: Run) -> float:
    """Factor of the suite's steps: with equal total cost, as many as take the time of ``cost_of``.

    The networks of a method with one per task share that time.
    """
    if not _scaled(work, run):
        return 1.0
    paid = sum(one.seconds for one in _needed(work, _paying(work, run.cell)))
    networks = _networks(work, run.cell)
    short, long = (sum(Run(work, r.cell, r.task, probe).seconds for r in networks) for probe in PROBES)
    per_step = max((long - short) / (PROBES[1] - PROBES[0]), 1e-9)
    return max(1.0, PROBES[0] + (paid - short) / per_step) / work.suite.steps_of(run.cell.data)


# -- several processes -------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def _claimed(path: Path) -> Iterator[bool]:
    """Whether this process alone may write a path in the block; another one, on any machine, may be at it."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(only_writer_of_new(path))
        except RunExistsError:
            yield False
            return
        yield True


@contextlib.contextmanager
def _ended_by_signals(work: Work) -> Iterator[None]:
    """SIGINT and SIGTERM go on to the runs, which save themselves; then the program ends with 130 or 143."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def stop(number: int, _: object) -> None:
        received.append(number)
        work.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        say("stopped; the same command goes on")
        raise SystemExit(128 + received[0])


def _say(text: str, quiet: bool) -> None:
    if not quiet:
        say(f"{time.strftime('%H:%M:%S')} {text}")
