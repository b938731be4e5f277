"""The runs of a comparison: each is ``tasktokens train`` in a process of its own, made once whoever asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tasktokens.config import Config, to_yaml
from tasktokens.data.visibility import save_visible
from tasktokens.datasets.open import open_data
from tasktokens.errors import TrainingError
from tasktokens.reporting.comparison.suite import Suite
from tasktokens.tasks import Task
from tasktokens.training.log import read_rows
from tasktokens.utils.atomic import atomically, write_atomically

ROUND_SEED = 1000
"""Added to the seed in each round after the first, or its student would see the crops of the one before again."""

PROBES = (8, 40)
"""Steps of the short runs that say what a method's steps cost: the difference leaves the start out."""


@dataclass(frozen=True)
class Work:
    """Where a comparison is made, and how.

    Attributes:
        suite: what to compare. out: its folder; several machines may share it.
        threads: CPU threads per run; None: torch's own choice.
        gpus: numbers of the GPUs that the runs take turns on.
        children: the processes of runs that are under way, by their number.
        tasks: those of each data set, once it was opened for them.
        stopping: set by a signal: no run is begun any more.
    """

    suite: Suite
    out: Path
    threads: int | None = 1
    gpus: tuple[int, ...] = ()
    stopping: threading.Event = field(default_factory=threading.Event)
    children: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    tasks: dict[str, dict[str, Task]] = field(default_factory=dict)

    def stop(self) -> None:
        """Begin no run any more, and let those that are under way save themselves."""
        self.stopping.set()
        for process in list(self.children.values()):
            process.terminate()


@dataclass(frozen=True)
class Cell:
    """A row of the table.

    Attributes:
        method: by its name in the suite. data: name of the data set. labels: label setting. seed: of the runs.

    Examples:
        >>> Cell("htt", "", "one", 0).name
        'htt-one-0'
    """

    method: str
    data: str
    labels: str
    seed: int

    @property
    def name(self) -> str:
        """Of its files."""
        labels = Path(self.labels).stem if self.labels.endswith(".csv") else self.labels
        return "-".join(part for part in (self.method, self.data, labels, str(self.seed)) if part)


@dataclass(frozen=True)
class Run:
    """One network of a cell.

    Attributes:
        work: the comparison. cell: the row. task: of a network of one task, else None.
        probe: if set, a short run of about as many steps, which says what a step costs.
    """

    work: Work
    cell: Cell
    task: str | None = None
    probe: int | None = None

    @property
    def folder(self) -> Path:
        """Of the run."""
        parts = (self.cell.name, self.task, f"probe{self.probe}" if self.probe else None)
        return self.work.out / "runs" / "-".join(part for part in parts if part)

    @property
    def seconds_file(self) -> Path:
        """Holds the CPU seconds of a run that is done (by the clock where there is a GPU), all attempts together."""
        return self.folder.with_name(f"{self.folder.name}.seconds")

    @property
    def done(self) -> bool:
        """Whether it has ended well."""
        return self.seconds_file.is_file() and (self.folder / "model" / "model.json").is_file()

    @property
    def seconds(self) -> float:
        """What it took; see `seconds_file`."""
        return float(self.seconds_file.read_text(encoding="utf-8"))

    def before(self) -> Run | None:
        """The run whose network this one goes on from."""
        after = self.work.suite.method(self.cell.method).after
        return None if after is None else Run(self.work, Cell(after, self.cell.data, self.cell.labels, self.cell.seed))

    def chain(self) -> list[Run]:
        """The runs that this one goes on from, the first one first, then itself."""
        before = self.before()
        return [*(before.chain() if before else ()), self]

    def config(self, scale: float = 1.0) -> Config:
        """Its settings."""
        suite, cell = self.work.suite, self.cell
        if self.probe:
            scale = self.probe / suite.steps_of(cell.data)
        rounds = max(0, len(self.chain()) - 2)
        return suite.config(cell.method, cell.data, self.task, {
            "seed": cell.seed + ROUND_SEED * rounds,
            "run.dir": str(self.folder),
            "run.evaluate": "none",
            **({} if self.work.threads is None else {"run.threads": self.work.threads}),
            **self._labels(),
        }, scale)  # fmt: skip

    def train(self, scale: float = 1.0) -> None:
        """Train to the end, whatever of it was done before; not to the end where the comparison is being stopped.

        Raises `TrainingError` naming the log of a run that failed.
        """
        config, before = self.config(scale), self.before()
        settings, log = self.folder.with_name(f"{self.folder.name}.yaml"), self.log
        write_atomically(settings, to_yaml(config).encode())
        words = ["--config", str(settings), "--quiet"]
        if any(self.folder.glob("checkpoints/*/complete.json")):
            words.append("--resume")
        else:
            words += ["--overwrite", *(["--init-from", str(before.folder)] if before else [])]
        seconds, code = _run([sys.executable, "-m", "tasktokens", "train", *words], log, self.work)
        spent = self.folder.with_name(f"{self.folder.name}.spent")
        total = seconds + (float(spent.read_text(encoding="utf-8")) if spent.is_file() else 0.0)
        write_atomically(spent, str(total).encode())
        if code != 0 and self.work.stopping.is_set():
            return
        if code != 0:
            raise TrainingError(f"{self.folder.name} ended with exit code {code}; see {log}")
        write_atomically(self.seconds_file, str(total).encode())

    @property
    def log(self) -> Path:
        """What the run printed."""
        return self.folder.with_name(f"{self.folder.name}.log")

    def rows(self) -> list[dict[str, Any]]:
        """Its ``metrics.jsonl``."""
        return read_rows(self.folder / "metrics.jsonl")

    def _labels(self) -> Mapping[str, Any]:
        """The labels that all methods see alike: drawn once, unless each task has data of its own."""
        own = self.work.suite.method(self.cell.method)
        if self.task is not None and isinstance(own.each_task, dict):
            return {}
        return {"data.labels": str(labels_file(self.work, self.cell))}


def labels_file(work: Work, cell: Cell) -> Path:
    """The file that says which labels the runs of a data set and label setting see.

    A setting that ends in .csv is such a file itself.
    """
    if cell.labels.endswith(".csv"):
        return Path(cell.labels)
    path = work.out / "labels" / f"{'-'.join(part for part in (cell.data, cell.labels) if part)}.csv"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        data = open_data(work.suite.config(None, cell.data, None, {"data.labels": cell.labels}))
        with atomically(path) as new:
            save_visible(new, data.train, list(data.tasks))
    return path


def _run(command: list[str], log: Path, work: Work) -> tuple[float, int]:
    """Seconds that a process took, of the CPU or with GPUs by the clock, and its exit code."""
    environment = dict(os.environ)
    if work.gpus:
        environment["CUDA_VISIBLE_DEVICES"] = str(work.gpus[len(work.children) % len(work.gpus)])
    elif work.threads is not None:
        environment |= {"OMP_NUM_THREADS": str(work.threads)}
    with log.open("ab") as file:
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
        work.children[process.pid] = process
        try:
            if work.stopping.is_set():
                process.terminate()
            cpu = _wait(process)
        finally:
            del work.children[process.pid]
    return (time.monotonic() - began if work.gpus else cpu), int(process.returncode)


def _wait(process: subprocess.Popen[bytes]) -> float:
    """Wait for a process to end; the CPU seconds that it and its ended children took."""
    cpu = 0.0
    watched = psutil.Process(process.pid)
    while True:
        try:
            times = watched.cpu_times()
            cpu = max(cpu, times.user + times.system + times.children_user + times.children_system)
        except psutil.Error:
            pass
        try:
            process.wait(timeout=0.2)
            return cpu
        except subprocess.TimeoutExpired:
            continue
