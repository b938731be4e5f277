"""What keeps a run safe: not finite gradients never reach the weights, signals end it at a step boundary."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Iterable
from types import FrameType, TracebackType

import torch
from torch import Tensor

from tasktokens.errors import TrainingError


class FiniteGuard:
    """Skips the update of a step whose gradient norm is not finite, on the device, without waiting for it.

    The fused optimisers look at ``found_inf`` and leave weights and moments alone where it is 1. How many steps in a
    row were bad is looked at only when `check` is called.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device, patience: int = 10) -> None:
        self.optimizer, self.patience = optimizer, patience
        self.in_a_row = torch.zeros((), device=device)
        self.recent: deque[tuple[str, ...]] = deque(maxlen=patience)

    def before_update(self, gradient_norm: Tensor, ids: tuple[str, ...]) -> None:
        """Call between the backward pass and the optimiser's step."""
        bad = (~torch.isfinite(gradient_norm)).float()
        self.optimizer.found_inf = bad  # type: ignore[attr-defined]
        self.in_a_row = (self.in_a_row + 1) * bad
        self.recent.append(ids)

    def check(self) -> int:
        """Number of bad steps in a row. Raises `TrainingError` naming samples when there were too many."""
        count = int(self.in_a_row)
        if count >= self.patience:
            names = ", ".join(list(dict.fromkeys(id for ids in self.recent for id in ids))[:8])
            raise TrainingError(
                f"the loss was not finite {count} steps in a row; the weights of before are kept. Samples: {names}. "
                f"Look at these files, or lower optim.lr"
            )
        return count


class StopSignal:
    """While active, SIGINT and SIGTERM only set ``received``; the loop ends at its next step boundary."""

    def __init__(self, signals: Iterable[signal.Signals] = (signal.SIGINT, signal.SIGTERM)) -> None:
        self.signals = tuple(signals)
        self.received: int | None = None

    @property
    def exit_code(self) -> int:
        """130 after SIGINT, 143 after SIGTERM."""
        return 128 + (self.received or 0)

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
        if self.received is not None:
            raise KeyboardInterrupt  # a second signal: now
        self.received = number
