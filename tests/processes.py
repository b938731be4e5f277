"""Processes of the command line and of scripts that do not import torch again.

On Linux each is a fork of a server of `multiprocessing` that has imported the package and has one thread; elsewhere it
is a process that begins anew. Either has its own streams, environment, signals and exit code, but is no start of the
interpreter: what happens before ``main`` and after it needs a genuine ``python -m tasktokens``.
"""

from __future__ import annotations

import contextlib
import gc
import io
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver" if sys.platform.startswith("linux") else "spawn")
PRELOAD = (
    "torch", "torch.distributed", "timm", "accelerate", "scipy.io", "scipy.spatial", "matplotlib.figure",
    "pytest", "hypothesis", "tasktokens.cli", "tasktokens.training.trainer", "tasktokens.inference.evaluate",
    "tasktokens.inference.predict_run",
    "tasktokens.inference.discover", "tasktokens.inspection.check",
    "tasktokens.inspection.init", "tasktokens.datasets.prepare", "tasktokens.datasets.rooms",
    "tasktokens.reporting.train", "tasktokens.reporting.curves", "tasktokens.reporting.runs",
    "tasktokens.reporting.tables", "tasktokens.reporting.provenance",
)  # fmt: skip
"""What the verbs and the tests of them import; the server passes over a module that cannot be."""


def leave_out_pictures(patch: Callable[[object, str, object], None] = setattr) -> None:
    """Training draws no pictures of the run."""
    from tasktokens.reporting import train

    for name in ("draw_curves", "write_samples"):
        patch(train, name, lambda *arguments: None)


def do_nothing() -> None:
    """The default of ``before``."""


@dataclass(frozen=True)
class Work:
    """What a process does: ``script``, or the command line where that is None, with ``words``."""

    words: tuple[str, ...]
    script: Path | None
    before: Callable[[], object]
    streams: tuple[Path, Path]
    environment: dict[str, str]
    folder: str
    own_session: bool

    def __call__(self) -> None:
        """Make the process one that was started for this, and do it."""
        gc.freeze()  # or it would look through all that the server has imported, and copy its memory
        multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)  # that of Python
        if self.own_session:
            os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # or tests in the background would ignore it
        for name in ("SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.SIG_DFL)
        os.environ.clear()
        os.environ.update(self.environment)
        tempfile.tempdir = None  # to be found anew, in this environment
        sys.path[:0] = filter(None, self.environment.get("PYTHONPATH", "").split(os.pathsep))
        os.chdir(self.folder)
        open_streams(*self.streams)
        sys.argv = [str(self.script or "tasktokens"), *self.words]
        sys.exit(self._main())

    def _main(self) -> int | str | None:
        """Do the work; returns the exit code, so that all is let go of before the process ends, as Python does it."""
        try:
            if self.script is None:
                leave_out_pictures()
            self.before()
            if self.script is None:
                from tasktokens import cli

                cli.main()
            else:
                sys.path.insert(0, str(self.script.parent))
                runpy.run_path(str(self.script), run_name="__main__")
        except SystemExit as leaving:
            return leaving.code
        return 0


def open_streams(output: Path, errors: Path) -> None:
    """Standard output and error as Python opens them: its encoding, its error handlers, its buffers."""
    encoding, _, handler = os.environ.get("PYTHONIOENCODING", "").partition(":")
    for number, (name, path) in enumerate((("stdout", output), ("stderr", errors)), start=1):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
        stream = io.TextIOWrapper(
            io.BufferedWriter(io.FileIO(number, "wb", closefd=False)),
            encoding or "utf-8",
            "backslashreplace" if name == "stderr" else handler or "strict",
            line_buffering=name == "stderr",
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


class Process:
    """A process under way; `send_signal`, `poll`, `wait` and `kill` are those of `subprocess.Popen`."""

    def __init__(self, work: Work) -> None:
        self.streams = work.streams
        self.encoding = work.environment.get("PYTHONIOENCODING", "").partition(":")[0] or "utf-8"
        self._process = CONTEXT.Process(target=work)  # type: ignore[attr-defined]
        self._process.start()
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it works."""
        code: int | None = self._process.exitcode
        return code

    def wait(self, timeout: float = 120) -> int:
        """The exit code, once it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not.
        """
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}: {self.errors}", timeout)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send it one, if it is still there."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self._process.kill()
        self._process.join()

    @property
    def output(self) -> str:
        """What it has written on standard output, in the encoding that it was given."""
        return self.streams[0].read_bytes().decode(self.encoding)

    @property
    def errors(self) -> str:
        """What it has written on standard error."""
        return self.streams[1].read_bytes().decode(self.encoding)

    def until(self, reached: Callable[[], object], seconds: float = 100) -> None:
        """Wait until something is true, which has to be while the process works."""
        end = time.monotonic() + seconds
        while not reached():
            assert self.poll() is None, f"it ended with {self.poll()}: {self.errors[-2000:]}"
            assert time.monotonic() < end, f"not within {seconds} s: {self.errors[-2000:]}"
            time.sleep(0.01)


@contextlib.contextmanager
def started(
    *words: object,
    script: Path | None = None,
    before: Callable[[], object] = do_nothing,
    output: Path | None = None,
    env: Mapping[str, str] | None = None,
    folder: Path | None = None,
    own_session: bool = False,
) -> Iterator[Process]:
    """``tasktokens WORDS`` in a process, which is killed at the end of the block if it is still there.

    Args:
        words: of the command line.
        script: a Python file that is run with the words instead.
        before: called in the process first, with its streams and environment; picklable.
        output: an existing file or device for both streams; by default each has a file of its own.
        env: added to this process's environment; ``PYTHONPATH`` and ``PYTHONIOENCODING`` act as on Python's start.
        folder: the working directory; by default that of this process.
        own_session: the leader of a session and of a process group, as a terminal or a batch system makes it.
    """
    CONTEXT.set_forkserver_preload(list(PRELOAD))  # of a server that begins with the first process
    with tempfile.TemporaryDirectory() as place:
        streams = (output, output) if output else (Path(place, "stdout"), Path(place, "stderr"))
        for path in () if output else streams:
            path.touch()
        process = Process(
            Work(
                tuple(map(str, words)),
                script,
                before,
                streams,
                {**os.environ, **(env or {})},
                str(folder or Path.cwd()),
                own_session,
            )
        )
        try:
            yield process
        finally:
            process.kill()


def run(*words: object, timeout: float = 120, **options: object) -> subprocess.CompletedProcess[str]:
    """`started`, to its end; with an ``output`` of one's own, what was written is not read."""
    with started(*words, **options) as process:  # type: ignore[arg-type]
        code = process.wait(timeout)
        said = ("", "") if options.get("output") else (process.output, process.errors)
        return subprocess.CompletedProcess(words, code, *said)
