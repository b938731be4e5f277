"""``metrics.jsonl``, ``log.txt`` and the one progress line of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from tasktokens.errors import RunExistsError
from tasktokens.utils import strict_json
from tasktokens.utils.atomic import atomically
from tasktokens.utils.console import ignore_lost_output
from tasktokens.utils.safe_io import load_json

Row = dict[str, Any]
"""One line of ``metrics.jsonl``."""


class _ProgressConsole(Console):
    """A console whose reader may go: rich itself would end the program."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class RunLog:
    """Appends rows to ``metrics.jsonl`` and shows progress on standard error.

    On a terminal one line is kept up to date; elsewhere a line is written about every 15 seconds. Messages are also
    appended to ``log.txt`` beside it, with the time. Without a path (all ranks but the first have none) it does
    nothing. The file is locked while the log is open.

    Args:
        keep: of a resumed run: which of the rows that are there to keep; half a line is never kept.

    Attributes:
        minutes: what the last row that was kept says; 0 without one.
        finished: whether a row that was kept says so.

    Raises:
        RunExistsError: another process is writing to the file.
    """

    def __init__(
        self,
        path: Path | None,
        quiet: bool = False,
        title: str = "",
        keep: Callable[[Row], bool] = lambda row: True,
    ) -> None:
        rows: list[Row] = []
        if path is not None and path.exists():
            check_not_written(path)
            rows = [row for row in read_rows(path) if keep(row)]
            with atomically(path) as new:
                new.write_text("".join(strict_json.dumps(row) + "\n" for row in rows), encoding="utf-8", newline="\n")
        self.minutes = minutes_of(rows) or 0.0
        self.finished = is_finished(rows)
        self._file = _open_locked(path) if path else None
        self._text = path.with_name("log.txt").open("a", encoding="utf-8", newline="\n") if path else None
        quiet = quiet or path is None
        self._quiet, self._title = quiet, title
        self._console = _ProgressConsole(stderr=True)
        self._live = (
            Live(console=self._console, auto_refresh=False) if self._console.is_terminal and not quiet else None
        )
        if self._live:
            self._live.start()
        self._said = 0.0

    def row(self, values: Mapping[str, Any]) -> Row:
        """Append one JSON object (NaN as null) and return it; at once on disk: a killed run keeps its history."""
        plain: Row = strict_json.finite(values)
        if self._file:
            self._file.write(strict_json.dumps(plain) + "\n")
            self._file.flush()
        return plain

    def read(self) -> list[Row]:
        """All rows so far, by the one open file: closing it a second time would give up the lock."""
        if not self._file:
            return []
        self._file.seek(0)
        return parse_rows(self._file.read())

    def warn(self, text: str) -> None:
        """A line on standard error, also when quiet."""
        self._print(text)
        self.note(text)

    def say(self, text: str) -> None:
        """A line on standard error, unless quiet."""
        if not self._quiet:
            self._print(text)
        self.note(text)

    def note(self, text: str) -> None:
        """A line in ``log.txt`` alone."""
        if self._text:
            self._text.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}\n")
            self._text.flush()

    def _print(self, text: str) -> None:
        with ignore_lost_output():
            self._console.print(text, soft_wrap=True, highlight=False, markup=False)

    def progress(self, values: Mapping[str, Any], steps: int, eta: float) -> None:
        """Show where the run is: a row of metrics, the stage's number of steps and the seconds that are left."""
        step = values["step"]
        now = time.monotonic()
        due = now - self._said >= 15 or step >= steps
        if not due and self._live is None:
            return
        losses = " ".join(f"{k.split('/')[1]} {_or_dash(v, '.3f')}" for k, v in values.items() if k.startswith("loss/"))
        found = " ".join(
            f"{k.split('/')[1]} {_or_dash(v, '.0%')}" for k, v in values.items() if k.startswith("discovered/")
        )
        parts = [
            f"{self._title}{values['stage']} {step}/{steps}",
            f"ETA {int(eta) // 60}:{int(eta) % 60:02d}",
            f"loss {losses}",
            *([f"discovered {found}"] if found else []),
            f"{values['images_per_second']:.0f} img/s",
            f"data wait {values['data_wait']:.0%}",
            f"memory {values['memory_mb'] / 1024:.1f} GB",
        ]
        line = " | ".join(parts)
        if self._live:
            with ignore_lost_output():
                self._live.update(Text(line, no_wrap=True, overflow="ellipsis"), refresh=True)
        elif not self._quiet:
            self._print(line)
        if due:
            self.note(line)
            self._said = now

    def close(self) -> None:
        """End the progress line and the file."""
        if self._live:
            with ignore_lost_output():
                self._live.stop()
        if self._file and self._text:
            self._file.close()
            self._text.close()


def _or_dash(value: float | None, form: str) -> str:
    """A formatted number; a dash for None."""
    return "-" if value is None else format(value, form)


def read_rows(path: Path) -> list[Row]:
    """The rows of a ``metrics.jsonl`` that no run in this process writes; see `RunLog.read`."""
    return parse_rows(path.read_text(encoding="utf-8", errors="replace"))


def parse_rows(text: str) -> list[Row]:
    """The rows of such a text; lines that are no JSON object are left out, as the last of a killed run."""
    rows = []
    for line in text.splitlines():
        try:
            row = load_json(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def minutes_of(rows: Sequence[Row]) -> float | None:
    """Minutes of training by the last row that says; None where none does."""
    return next((float(row["minutes"]) for row in reversed(rows) if row.get("minutes") is not None), None)


def is_finished(rows: Sequence[Row]) -> bool:
    """Whether the run came to its end."""
    return any(row.get("finished") for row in rows)


def is_written(path: Path) -> bool:
    """Whether another process holds this log open for writing; False where the system cannot tell.

    Not to be asked by the process that writes it: a process loses its lock when it closes the file a second time.
    """
    try:
        with path.open("rb") as file:
            return not _lock(file, shared=True)
    except OSError:
        return False


def check_not_written(path: Path) -> None:
    """Raise `RunExistsError` while another process writes to this log."""
    if is_written(path):
        raise _taken(path)


def _open_locked(path: Path) -> IO[str]:
    file = path.open("a+", encoding="utf-8", newline="\n")
    if not _lock(file):
        file.close()
        raise _taken(path)
    return file


def _taken(path: Path) -> RunExistsError:
    return RunExistsError(f"another process is training in {path.parent}; wait for it to end, or stop it")


def _lock(file: IO[Any], shared: bool = False) -> bool:
    """Lock a file for this process alone; False if another one has it.

    By ``lockf``, which a forked loader process does not inherit. What the package filelock takes, ``flock``, it would:
    after a kill the run would count as being trained until its loaders have ended, too.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.lockf(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks
        return True
    return True
