"""Signals stop the program at its next safe point, after saving."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable
from types import FrameType, TracebackType
from typing import NoReturn

from tasktokens.utils import console

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""That end a piece of work: Ctrl-C, a batch system, a terminal that is closed."""


class StopSignal:
    """While active, `SIGNALS` only set ``received``; the work ends at its next boundary, by `exit`.

    SIGHUP counts as SIGTERM, unless it is ignored, as under ``nohup``. A second signal ends the work at once, unless it
    comes within ``echo`` seconds: a launcher hands on what a batch system has already sent to every process.
    """

    def __init__(self, signals: Iterable[signal.Signals] = SIGNALS, echo: float = 0.0) -> None:
        self.signals, self.echo = tuple(signals), echo
        self.received: int | None = None
        self._first: float | None = None

    def is_received(self) -> bool:
        """Whether one of them has come."""
        return self.received is not None

    @property
    def exit_code(self) -> int:
        """130 after SIGINT, 143 after SIGTERM."""
        return 128 + (self.received or 0)

    def exit(self, note: str, say: bool = True) -> NoReturn:
        """Say on standard error where the work stands and end with `exit_code`."""
        if say:
            console.say(f"stopped by {signal.Signals(self.received or 0).name}: {note}")
        raise SystemExit(self.exit_code)

    def __enter__(self) -> StopSignal:
        try:
            wanted = [s for s in self.signals if not (s.name == "SIGHUP" and signal.getsignal(s) == signal.SIG_IGN)]
            self._before = {s: signal.signal(s, self._handle) for s in wanted}
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
        self.received = signal.SIGTERM if number == getattr(signal, "SIGHUP", None) else number
