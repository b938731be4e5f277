"""The mean of each term of the loss since the last row of the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class LossMeans:
    """Sums and counts of terms over steps; nothing in it waits for the device until `read`."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, step: Mapping[str, Tensor]) -> None:
        """Add a step's terms: sum and count (2,) by name."""
        for name, summed_2 in step.items():
            before = self._sums.get(name)
            self._sums[name] = summed_2 if before is None else before + summed_2

    def read(self) -> dict[str, float | None]:
        """The mean of each term over all that counted since the last `read`; None for one that nothing counted for."""
        sums, self._sums = self._sums, {}
        if not sums:
            return {}
        totals, counts = torch.stack(list(sums.values())).T
        means = (totals / counts.clamp(min=1)).tolist()
        return {name: mean if count else None
                for name, mean, count in zip(sums, means, counts.tolist(), strict=True)}  # fmt: skip

    def state(self) -> dict[str, list[float]]:
        """What a checkpoint between two rows must hold."""
        return {name: summed_2.tolist() for name, summed_2 in self._sums.items()}

    def load(self, state: Mapping[str, Sequence[float]], device: torch.device) -> None:
        """Take up the sums of a checkpoint; the reverse of `state`."""
        self._sums = {name: torch.tensor(pair, device=device) for name, pair in state.items()}


def mean(summed_2: Tensor) -> Tensor:
    """Of one term's sum and count; NaN where nothing counted."""
    return torch.where(summed_2[1] > 0, summed_2[0] / summed_2[1].clamp(min=1), torch.nan)
