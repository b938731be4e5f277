"""What each task's losses count for in a step (``optim.balance``), so that metres of a street do not drown classes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from tasktokens.losses import Term

FIRST_STEPS = 10
"""Steps whose mean losses decide."""

TEMPERATURE = 2.0
"""Of the softmax over tasks in `DynamicAverage`, as published."""

_PREFIX = "balance:"


class LossBalance:
    """Balances nothing; the base of what does.

    Attributes:
        module: holds what is trained with the student, or None.
    """

    module: nn.Module | None = None

    def apply(self, terms: Sequence[Term]) -> Sequence[Term]:
        """The terms as the loss adds them up; all terms of a task, such as ``feature/depth``, are balanced alike."""
        return terms

    def penalty(self, names: Sequence[str], counts: Sequence[Tensor]) -> Tensor | None:
        """What is added to the loss of a step, or None.

        Args:
            names: of the terms. counts: of them over all ranks and parts.
        """
        return None

    def add(self, step: Mapping[str, Tensor]) -> None:
        """Take in the terms of a step: sum and count (2,) by name, over all ranks and parts."""

    def state(self) -> dict[str, list[float]]:
        """What a checkpoint must hold, besides ``module``."""
        return {}

    def load(self, state: Mapping[str, Sequence[float]], device: torch.device) -> None:
        """Take up the part of a checkpoint's sums that is this object's; the reverse of `state`."""


class WeightedBalance(LossBalance):
    """The base of those with a factor for each task, found from the losses of steps that are over.

    The sums are those over all ranks and lie in checkpoints, so factors are the same on every rank and after a resume.

    Args:
        weights: of the tasks by name.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = weights
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self.factors: dict[str, float] = {}

    def apply(self, terms: Sequence[Term]) -> Sequence[Term]:
        """The terms with balanced weights."""
        if not self.factors:
            return terms
        return [replace(term, weight=term.weight * self.factors.get(task_of(term.name), 1.0)) for term in terms]

    def _take(self, step: Mapping[str, Tensor]) -> None:
        for name in self._weights:
            if (summed_2 := step.get(f"loss/{name}")) is not None:
                self._sums[name] = summed_2 + self._sums.get(name, torch.zeros_like(summed_2))
        self._steps += 1

    def _losses(self) -> dict[str, float]:
        """The mean weighted loss of each task that had a label in the steps taken; waits for the device."""
        sums = {name: summed_2.tolist() for name, summed_2 in self._sums.items()}
        losses = {name: self._weights[name] * total / count for name, (total, count) in sums.items() if count}
        return {name: loss for name, loss in losses.items() if 0 < loss < math.inf}

    def state(self) -> dict[str, list[float]]:
        """The sums and how many steps they are of."""
        sums = {f"{_PREFIX}{name}": summed_2.tolist() for name, summed_2 in self._sums.items()}
        return {f"{_PREFIX}/steps": [float(self._steps)]} | sums

    def load(self, state: Mapping[str, Sequence[float]], device: torch.device) -> None:
        """The reverse of `state`."""
        own = {name.removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(_PREFIX)}
        self._steps = int(own.get("/steps", [0])[0])
        self._sums = {name: torch.tensor(own[name], device=device) for name in self._weights if name in own}


class FirstLosses(WeightedBalance):
    """Each task's weighted loss over the first steps becomes the median of all tasks'.

    During these steps every factor is 1. A task without a label in the first steps keeps its factor of 1.
    """

    def add(self, step: Mapping[str, Tensor]) -> None:
        """As `LossBalance.add`; waits for the device once, at the last of the first steps."""
        if self._steps < FIRST_STEPS:
            self._take(step)
            self._decide()

    def load(self, state: Mapping[str, Sequence[float]], device: torch.device) -> None:
        """The reverse of `state`."""
        super().load(state, device)
        self._decide()

    def _decide(self) -> None:
        if self._steps >= FIRST_STEPS and (positive := self._losses()):
            middle = statistics.median(positive.values())
            self.factors = {name: middle / loss for name, loss in positive.items()}


class DynamicAverage(WeightedBalance):
    """Tasks whose loss falls more slowly than others' get more weight: dynamic weight average (DWA).

    With L(e) the mean loss of epoch e and r = L(e - 1) / L(e - 2), the factors are T softmax(r / 2); they are 1 in the
    first two epochs, and r is 1 for a task without a label in one of the two. Source: Liu, Johns, Davison, *End-to-End
    Multi-Task Learning with Attention* (CVPR 2019, https://arxiv.org/abs/1803.10704).

    Args:
        weights: of the tasks by name.
        epoch: steps of an epoch.
    """

    def __init__(self, weights: Mapping[str, float], epoch: int) -> None:
        super().__init__(weights)
        self._epoch = epoch
        self._before: tuple[dict[str, float], dict[str, float]] = ({}, {})

    def add(self, step: Mapping[str, Tensor]) -> None:
        """As `LossBalance.add`; waits for the device once per epoch."""
        self._take(step)
        if self._steps < self._epoch:
            return
        self._before = (self._before[1], self._losses())
        self._steps, self._sums = 0, {}
        self._decide()

    def _decide(self) -> None:
        earlier, later = self._before
        if not earlier:
            return
        ratios = {n: later[n] / earlier[n] if n in later and n in earlier else 1.0 for n in self._weights}
        most = max(ratios.values())
        powers = {name: math.exp((ratio - most) / TEMPERATURE) for name, ratio in ratios.items()}
        self.factors = {name: len(powers) * power / sum(powers.values()) for name, power in powers.items()}

    def state(self) -> dict[str, list[float]]:
        """The sums of this epoch, and the mean losses of the two before."""
        means = {f"{_PREFIX}/{at}/{name}": [loss] for at in (0, 1) for name, loss in self._before[at].items()}
        return super().state() | means

    def load(self, state: Mapping[str, Sequence[float]], device: torch.device) -> None:
        """The reverse of `state`."""
        super().load(state, device)
        means = [{n: state[key][0] for n in self._weights if (key := f"{_PREFIX}/{at}/{n}") in state} for at in (0, 1)]
        self._before = (means[0], means[1])
        self._decide()


def is_balance(name: str) -> bool:
    """Whether a name of a checkpoint's sums is one of `LossBalance.state`."""
    return name.startswith(_PREFIX)


def task_of(term: str) -> str:
    """The second part of a term's name, which is its task if it has one.

    Examples:
        >>> task_of("loss/depth"), task_of("teacher/depth/3"), task_of("joint_distance")
        ('depth', 'depth', 'joint_distance')
    """
    return term.split("/")[1] if "/" in term else term
