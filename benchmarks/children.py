"""Runs of `tasktokens train` as processes of their own, which end when their benchmark is told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event

import psutil

STOPPED = Event()
"""By SIGTERM: no run is begun any more."""


def hand_on_sigterm() -> None:
    """Hand SIGTERM on to the runs, which save themselves; else they would train on beside those of the next start."""
    signal.signal(signal.SIGTERM, _stop)


def _stop(*_: object) -> None:
    STOPPED.set()
    for run in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # it has ended just now
            run.terminate()


def train(run: Path, options: Sequence[str]) -> tuple[int, float]:
    """`tasktokens train` to its end; its exit code and the seconds of CPU that it took. What it says is added to a log.

    Args:
        run: its folder, which the log lies beside.

    Raises `SystemExit` if stopped.
    """
    if STOPPED.is_set():
        raise SystemExit("stopped; the same command goes on")
    print(f"{run.name}: begun; it writes to {_log(run)}", file=sys.stderr, flush=True)
    with _log(run).open("a") as log:
        command = [sys.executable, "-m", "tasktokens.cli", "train", *options]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = usage.ru_utime + usage.ru_stime
    print(f"{run.name}: ended after {seconds / 60:.1f} CPU minutes", file=sys.stderr, flush=True)
    return os.waitstatus_to_exitcode(status), seconds


def expect_success(run: Path, status: int) -> None:
    """Raises `SystemExit`, with where to look, if a run has failed."""
    if status != 0:
        raise SystemExit(f"{run.name} ended with {status}; see {_log(run)}")


def _log(run: Path) -> Path:
    return run.with_name(f"{run.name}.log")
