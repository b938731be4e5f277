"""Runs in operation: two processes at once, data that changed, folders that moved, lost terminals, full disks.

Each case ends in one of: ``whole`` (exit code 0 and the result of an undisturbed run), ``refused`` (exit code 2 and one
sentence), ``saved`` (ended by a signal, with a checkpoint from which the run goes on to the undisturbed result). Exit
code 0 with any other result is ``silent``.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faults_child as child
import faults_surroundings
import yaml
from faults_kill import EXAMPLE, Place, end_at, result, without_pictures

STEP = ("tasktokens.training.trainer", "set_lr")
TRAIN = ("train", "-q", *EXAMPLE, "method.name=mtl", "method.steps=4")


@dataclass
class Found:
    """A row of the results."""

    case: str
    outcome: str = ""
    silent: int = 0
    tracebacks: int = 0
    hangs: int = 0
    examples: list[str] = field(default_factory=list)

    def judge(self, ended: child.Ended, whole: Callable[[], bool], may: tuple[str, ...]) -> None:
        """Add how a process ended; ``may``: the outcomes that are right."""
        outcome = "unclear"
        if ended.hung:
            self.hangs, outcome = self.hangs + 1, "hang"
        elif ended.traceback:
            self.tracebacks, outcome = self.tracebacks + 1, "traceback"
        elif ended.code == 2 and len(ended.error_lines) == 1:
            outcome = "refused"
        elif ended.code == 0:
            outcome = "whole" if whole() else "silent"
            self.silent += outcome == "silent"
        elif ended.code in (129, 130, 143):
            outcome = "saved" if whole() else "lost"
        self.outcome = f"{self.outcome}, {outcome}".removeprefix(", ")
        if outcome not in may:
            self.examples.append(f"{outcome}, not {' or '.join(may)}: exit {ended.code}: {ended.output[-700:]}")


class Operations:
    """The cases, on copies of the given folders."""

    def __init__(self, place: Place, say: Callable[[str], None]) -> None:
        self.place, self.say, self.rows = place, say, list[Found]()
        self.work = place.work / "work"
        self.log = place.log
        place.work.mkdir(parents=True, exist_ok=True)

    def all(self) -> list[Found]:
        """Run them."""
        quiet = self.place.work / "quiet"
        self.data, self.run = self.fresh()
        if (ended := child.run(self.resume(), self.log, without_pictures)).code:
            raise SystemExit(f"the undisturbed run failed: {ended.output}")
        self.undisturbed = result(self.run)
        if (ended := child.run(["discover", self.run, "--out", quiet, "-q"], self.log)).code:
            raise SystemExit(f"the undisturbed discovery failed: {ended.output}")
        self.filled = child.digest(quiet)
        for part in (self.two_at_once, self.changed_data, self.moved_folders, self.lost_terminals, self.full_disk):
            part()
        for around in faults_surroundings.PARTS:
            around(self)
        return self.rows

    # -- helpers ---------------------------------------------------------------------------------------------------
    def fresh(self) -> tuple[Path, Path]:
        """A copy of the data, of which one label is missing, and a run on it that was stopped at its third step."""
        shutil.rmtree(self.work, ignore_errors=True)
        data, run = self.work / "data", self.work / "run"
        shutil.copytree(self.place.data, data)
        (data / "depth" / "im00.png").unlink()
        stopped = self.place.work / "stopped"
        if not stopped.exists():
            ended = child.run(self.words(run, data), self.log, lambda: end_at(STEP, 3, "before", signal.SIGTERM))
            if ended.code != 143:
                raise SystemExit(f"the run was not stopped: {ended.output}")
            shutil.move(run, stopped)
        shutil.copytree(stopped, run)
        return data, run

    def words(self, run: Path, data: Path | None = None) -> list[str]:
        """A new run on the data."""
        return [*TRAIN, f"data.root={data or self.data}", f"run.dir={run}"]

    def resume(self) -> list[str]:
        return ["train", "-q", "--resume", f"run.dir={self.run}"]

    def goes_on(self) -> bool:
        """Whether the run, once resumed where it is not done, ends as the undisturbed one."""
        if not (self.run / "model").exists():
            child.run(self.resume(), self.log, without_pictures)
        return (self.run / "model").exists() and result(self.run) == self.undisturbed

    def add(
        self, case: str, ended: child.Ended, whole: Callable[[], bool], *may: str, row: Found | None = None
    ) -> Found:
        found = row or Found(case)
        if row is None:
            self.rows.append(found)
        found.judge(ended, whole, may)
        self.say(f"operation: {case}: {found.outcome}")
        return found

    # -- cases -----------------------------------------------------------------------------------------------------
    def two_at_once(self) -> None:
        """Two processes that write into one folder: one is whole, the other refused; in any order."""
        discover = ["discover", self.run, "-q"]
        for case, words, second in (
            ("discover beside discover", discover, discover),
            ("discover --overwrite beside discover", discover, [*discover, "--overwrite"]),
        ):
            out = self.place.work / "out"
            shutil.rmtree(out, ignore_errors=True)
            self.pair(case, [*words, "--out", out], [*second, "--out", out],
                      lambda out=out: child.digest(out) == self.filled)  # fmt: skip
        run = self.work / "two"
        words = self.words(run)
        self.pair("train beside train", words, words, lambda: result(run) == self.undisturbed)

    def pair(self, case: str, first: list[Any], second: list[Any], whole: Callable[[], bool]) -> None:
        logs = [self.log, self.log.with_suffix(".second")]
        processes = [child.start(words, log) for words, log in zip((first, second), logs, strict=True)]
        ended = [child.wait(process, log, 120) for process, log in zip(processes, logs, strict=True)]
        row = self.add(case, ended[0], whole, "whole", "refused")
        self.add(case, ended[1], whole, "whole", "refused", row=row)
        if "whole" not in row.outcome:
            row.examples.append(f"neither ended: {[one.output[-400:] for one in ended]}")

    def changed_data(self) -> None:
        """Labels that came or went between stopping and resuming; a description that means something else."""
        for case, change, may in (
            ("resume, a label was added", self.add_label, ("whole", "refused")),
            ("resume, a hidden label was removed", lambda: self.remove_label("0"), ("whole", "refused")),
            ("resume, a seen label was removed", lambda: self.remove_label("1"), ("refused",)),
            ("resume, classes were reordered", self.reorder, ("refused",)),
        ):
            self.data, self.run = self.fresh()
            change()
            self.add(case, child.run(self.resume(), self.log, without_pictures), self.goes_on, *may)
        self.data, self.run = self.fresh()
        self.goes_on()
        self.reorder()
        for verb in (["evaluate", self.run], ["discover", self.run, "-q", "--out", self.work / "out"]):
            self.add(f"{verb[0]}, classes were reordered", child.run(verb, self.log), lambda: False, "refused")

    def add_label(self) -> None:
        shutil.copy(self.place.data / "depth" / "im00.png", self.data / "depth")

    def labels(self, flag: str) -> list[tuple[str, str]]:
        """The id and task of labels that exist and that the run sees (``1``) or does not (``0``)."""
        header, *rows = [line.split(",") for line in (self.run / "labels.csv").read_text().splitlines()]
        return [
            (row[0], task)
            for row in rows
            for task, seen in zip(header[1:], row[1:], strict=True)
            if seen == flag and (self.data / task / f"{row[0]}.png").exists()
        ]

    def remove_label(self, flag: str) -> None:
        id, task = self.labels(flag)[0]
        (self.data / task / f"{id}.png").unlink()

    def reorder(self) -> None:
        values = yaml.safe_load((self.data / "dataset.yaml").read_text())
        values["tasks"]["semseg"]["classes"].reverse()
        (self.data / "dataset.yaml").write_text(yaml.safe_dump(values, sort_keys=False))

    def moved_folders(self) -> None:
        """The folder that is given is the run; the one that it was copied from does not change."""
        self.data, old = self.fresh()
        self.run = self.work / "elsewhere"
        shutil.move(old, self.run)
        ended = child.run(self.resume(), self.log, without_pictures)
        self.add("a moved run is resumed", ended, lambda: self.goes_on() and not old.exists(), "whole")
        self.copied("a copied run is resumed", [])
        # Its settings name the folder that it was copied from.
        self.copied("a copied run is resumed by its own settings", ["--config", self.work / "elsewhere/config.yaml"])

    def copied(self, case: str, settings: list[Any]) -> None:
        self.data, old = self.fresh()
        self.run = self.work / "elsewhere"
        shutil.copytree(old, self.run)
        before = child.digest(old)
        words = ["train", "-q", "--resume", *settings] if settings else self.resume()
        ended = child.run(words, self.log, without_pictures)
        self.add(case, ended, lambda: child.digest(old) == before and self.goes_on(), "whole", "refused")

    def lost_terminals(self) -> None:
        """SIGHUP saves; a closed pipe is nothing to a run."""
        self.data, self.run = self.fresh()

        def hang_up() -> None:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # or a campaign under nohup would try a run that ignores it
            end_at(STEP, 1, "before", signal.SIGHUP)

        ended = child.run(self.resume(), self.log, hang_up)
        self.add("SIGHUP", ended, lambda: any(self.run.glob("checkpoints/*")) and self.goes_on(), "saved")
        for case, closed in (("standard output is closed", (1,)), ("both outputs are closed", (1, 2))):
            self.data, self.run = self.fresh()
            words = [word for word in self.resume() if word != "-q"]
            ended = child.run(words, self.log, lambda closed=closed: close(closed))
            self.add(case, ended, self.goes_on, "whole")
        if Path("/dev/full").exists():
            self.data, self.run = self.fresh()
            words = [word for word in self.resume() if word != "-q"]
            ended = child.run(words, self.log, lambda: write_to("/dev/full", (1, 2)))
            self.add("a full disk behind both outputs", ended, self.goes_on, "whole")

    def full_disk(self) -> None:
        """A disk that is full, then is not: the file is named, and the run goes on or begins anew."""
        self.data, _ = self.fresh()
        disk = self.work / "disk"
        with mounted(disk, "400k") as there:
            if not there:
                self.say("operation: full disk: left out, no tmpfs can be mounted here")
                return
            self.run = disk / "run"
            words = self.words(self.run)
            ended = child.run(words, self.log, without_pictures)
            row = self.add("train on a full disk", ended, lambda: False, "refused")
            if str(disk) not in ended.output:
                row.examples.append(f"the file is not named: {ended.output}")
            subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
            more = "--resume" if any(self.run.glob("checkpoints/*/complete.json")) else "--overwrite"
            ended = child.run([*words, more], self.log, without_pictures)
            self.add("train once there is space again", ended, lambda: result(self.run) == self.undisturbed, "whole")


def close(which: tuple[int, ...]) -> None:
    """Make standard streams pipes that nobody reads any more."""
    without_pictures()
    reads, writes = os.pipe()
    os.close(reads)
    direct(writes, which)


def write_to(path: str, which: tuple[int, ...]) -> None:
    """Redirect standard streams into a file."""
    without_pictures()
    direct(os.open(path, os.O_WRONLY), which)


def direct(writes: int, which: tuple[int, ...]) -> None:
    """Let what is written to standard streams go to another file descriptor."""
    for stream in which:
        os.dup2(writes, stream)
    # Python's own objects took them for files, in which one can seek.
    sys.stdout, sys.stderr = (
        os.fdopen(1, "w", buffering=1, closefd=False),
        os.fdopen(2, "w", buffering=1, closefd=False),
    )


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[bool]:
    """A small disk in memory, where this process may mount one."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    there = os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield there
    finally:
        if there:
            subprocess.run(["umount", folder], check=True)
