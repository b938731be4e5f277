"""Signals end a piece of work at its next boundary, with what was done saved."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterable
from types import FrameType, TracebackType
from typing import NoReturn


class StopSignal:
    """While active, SIGINT and SIGTERM only set ``received``; the work ends at its next boundary, by `leave`.

    A second signal ends it at once, unless it comes within ``echo`` seconds: a launcher hands on what a batch system
    has already sent to every process.
    """

    def __init__(self, signals: Iterable[signal.Signals] = (signal.SIGINT, signal.SIGTERM), echo: float = 0.0) -> None:
        self.signals, self.echo = tuple(signals), echo
        self.received: int | None = None
        self._first: float | None = None

    @property
    def exit_code(self) -> int:
        """130 after SIGINT, 143 after SIGTERM."""
        return 128 + (self.received or 0)

    def leave(self, note: str, say: bool = True) -> NoReturn:
        """Say on standard error where the work stands and end with `exit_code`."""
        if say:
            print(f"stopped by {signal.Signals(self.received or 0).name}: {note}", file=sys.stderr)
        raise SystemExit(self.exit_code)

    def __enter__(self) -> StopSignal:
        try:
            self._before = {s: signal.signal(s, self._handle) for s in self.signals}
        except ValueError:  # not in the main thread: the program around us handles signals
            self._before = {}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for s, handler in self._before.items():
            signal.signal(s, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._first is not None and now - self._first >= self.echo:
            raise KeyboardInterrupt  # a second signal: now
        self._first = now if self._first is None else self._first
        self.received = number
