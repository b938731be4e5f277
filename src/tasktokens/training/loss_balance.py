"""Losses of tasks brought to one size, so that metres of a street do not drown classes (``optim.balance``)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tasktokens.losses import Term

FIRST_STEPS = 10
"""Steps whose mean losses decide."""

_PREFIX = "balance:"


class LossBalance:
    """Factors of the tasks' terms: each task's weighted loss over the first steps becomes the median of all tasks'.

    During these steps every factor is 1. The sums are those over all ranks and lie in checkpoints, so factors are the
    same on every rank and after a resume. A task without a label in the first steps keeps its factor of 1.

    Args:
        weights: of the tasks by name; None balances nothing.
    """

    def __init__(self, weights: Mapping[str, float] | None) -> None:
        self._weights = weights
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self.factors: dict[str, float] = {}

    def apply(self, terms: Sequence[Term]) -> Sequence[Term]:
        """The terms with balanced weights; all terms of a task, such as ``feature/depth``, get its factor."""
        if not self.factors:
            return terms
        return [replace(term, weight=term.weight * self.factors.get(_task(term.name), 1.0)) for term in terms]

    def add(self, step: Mapping[str, Tensor]) -> None:
        """Take in the terms of a step: sum and count (2,) by name; waits for the device once, at the last of them."""
        if self._weights is None or self._steps >= FIRST_STEPS:
            return
        for name in self._weights:
            if (summed_2 := step.get(f"loss/{name}")) is not None:
                self._sums[name] = summed_2 + self._sums.get(name, torch.zeros_like(summed_2))
        self._steps += 1
        self._decide()

    def state(self) -> dict[str, list[float]]:
        """What a checkpoint must hold; nothing where nothing is balanced."""
        if self._weights is None:
            return {}
        sums = {f"{_PREFIX}{name}": summed_2.tolist() for name, summed_2 in self._sums.items()}
        return {f"{_PREFIX}/steps": [float(self._steps)]} | sums

    def load(self, state: Mapping[str, Sequence[float]], device: torch.device) -> None:
        """Take up the part of a checkpoint's sums that is this object's; the reverse of `state`."""
        own = {name.removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(_PREFIX)}
        self._steps = int(own.pop("/steps", [0])[0])
        self._sums = {name: torch.tensor(pair, device=device) for name, pair in own.items()}
        self._decide()

    def _decide(self) -> None:
        if self._weights is None or self._steps < FIRST_STEPS:
            return
        sums = {name: summed_2.tolist() for name, summed_2 in self._sums.items()}
        losses = {name: self._weights[name] * total / count for name, (total, count) in sums.items() if count}
        positive = {name: loss for name, loss in losses.items() if 0 < loss < float("inf")}
        if positive:
            middle = statistics.median(positive.values())
            self.factors = {name: middle / loss for name, loss in positive.items()}


def is_balance(name: str) -> bool:
    """Whether a name of a checkpoint's sums is one of `LossBalance.state`."""
    return name.startswith(_PREFIX)


def _task(term: str) -> str:
    """``depth`` of ``loss/depth`` and of ``teacher/depth/3``."""
    return term.split("/")[1] if "/" in term else term
