"""Run the command line in forked children of a driver that has imported everything once: a case costs half a second.

The driver itself never computes, so that a fork never copies threads or locks.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import importlib
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

PRELOAD = (
    "torch", "timm", "accelerate", "scipy.io", "scipy.spatial", "h5py", "pyarrow.parquet", "tasktokens.cli",
    "tasktokens.training.trainer", "tasktokens.inference.evaluate",
    "tasktokens.reporting.train", "tasktokens.reporting.curves",
    "matplotlib.figure", "tasktokens.inspection.check", "tasktokens.inference.predict_run",
    "tasktokens.inference.discover",
    "tasktokens.inference.explain", "tasktokens.inference.explain_page",
    "tasktokens.inspection.init", "tasktokens.datasets.prepare",
    "tasktokens.reporting.compare_runs", "tasktokens.reporting.runs", "tasktokens.reporting.tables",
)  # fmt: skip
ROOM = 6 * 2**30
"""Bytes of address space that a child may take beyond the driver's: a bomb must not take the machine's memory."""


def preload() -> None:
    """Import all that the verbs import, once."""
    for name in PRELOAD:
        importlib.import_module(name)
    gc.freeze()  # or each child would look through all of it, and copy its memory


@dataclass(frozen=True)
class Ended:
    """How a child ended: exit code (negative: the signal), what it printed, whether it ran into the time limit."""

    code: int
    output: str
    hung: bool = False

    @property
    def traceback(self) -> bool:
        """Whether it showed one."""
        return "Traceback (most recent call last)" in self.output

    @property
    def error_lines(self) -> list[str]:
        """The lines that begin with ``error:``."""
        return [line for line in self.output.splitlines() if line.startswith("error:")]


def run(words: Sequence[object], log: Path, before: Callable[[], None] | None = None, limit: float = 60) -> Ended:
    """``tasktokens WORDS`` in a child; ``before`` is called in it first."""
    return wait(start(words, log, before), log, limit)


def start(words: Sequence[object], log: Path, before: Callable[[], None] | None = None) -> int:
    """Begin such a child; returns its process id."""

    def main() -> None:
        from tasktokens import cli

        sys.argv = ["tasktokens", *map(str, words)]
        if before is not None:
            before()
        cli.main()

    return fork(main, log)


def fork(function: Callable[[], object], log: Path) -> int:
    """Call a function in a child with its output in ``log``; the child's process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        with log.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        # Standard streams may be those of a test that looks at them.
        sys.stdout, sys.stderr = (
            os.fdopen(1, "w", buffering=1, closefd=False),
            os.fdopen(2, "w", buffering=1, closefd=False),
        )
        own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (own + ROOM, own + ROOM))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        function()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def wait(child: int, log: Path, limit: float) -> Ended:
    """Wait for a child; after ``limit`` seconds it is killed with all that it started."""
    end, hung = time.monotonic() + limit, False
    pause = 0.002
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > end and not hung:
            hung = True
            kill_group(child)
        time.sleep(pause)
        pause = min(pause * 1.3, 0.02)
    return Ended(os.waitstatus_to_exitcode(status), log.read_text(errors="replace"), hung)


def kill_group(child: int) -> None:
    """SIGKILL to a child and its loader processes."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)


_KNOWN: dict[tuple[int, ...], str] = {}


def _sha256(path: str) -> str:
    """That of a file, read again only where it was written since: nothing can set ``st_ctime`` back."""
    seen = os.stat(path)
    key = (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
    if key not in _KNOWN:
        _KNOWN[key] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return _KNOWN[key]


def digest(folder: Path) -> dict[str, str]:
    """SHA-256 of each file below a folder, what a link points to, and that folders are there."""
    found = {}
    for above, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(above, name)
            key = os.path.relpath(path, folder)
            if os.path.islink(path):
                found[key] = f"link to {os.readlink(path)}"
            elif os.path.isfile(path):
                found[key] = _sha256(path)
            else:
                found[key] = "folder" if os.path.isdir(path) else "special"
    return found
