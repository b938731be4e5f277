"""Printing that never ends the program: closed pipes and full disks are ignored."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console


def replace_unprintable() -> None:
    """Characters that the console's encoding lacks are written as ``?``; without this they would end the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


@contextlib.contextmanager
def ignore_lost_output() -> Iterator[None]:
    """Ignore a closed pipe or a full disk while printing in the block; later output is dropped, the work continues."""
    try:
        yield
    except OSError:
        close_lost_streams()
    except ValueError as error:  # what Python makes of a stream that is closed
        if "closed file" not in str(error):
            raise


def close_lost_streams() -> None:
    """Discard what is buffered for standard streams that cannot be written."""
    for name in ("stdout", "stderr"):
        _replace_if_lost(name)


def say(text: str) -> None:
    """Print a line on standard error; a closed stream is ignored."""
    with ignore_lost_output():
        print(text, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """Print strict JSON on standard output: all that a verb prints there with ``--json``."""
    from tasktokens.utils import strict_json

    with ignore_lost_output():
        print(strict_json.dumps(value, indent=1, default=str), flush=True)


def table_console(width: int | None = None) -> Console:
    """A rich console for tables; on a closed pipe it goes quiet, where rich's own exits with 1."""
    from rich.console import Console  # slow to import, so only when a table is printed

    class QuietWhenLost(Console):
        def on_broken_pipe(self) -> None:
            self.quiet = True
            _to_nowhere(sys.stdout)

    return QuietWhenLost(markup=False, width=width)  # a run may be called [a]


def _replace_if_lost(name: str) -> None:
    """Redirect a broken stream to the null device; else flushing its buffer fails again when Python exits."""
    stream = getattr(sys, name)
    try:
        stream.flush()
    except (OSError, ValueError):
        _to_nowhere(stream)


def _to_nowhere(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
