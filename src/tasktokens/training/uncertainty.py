"""Losses weighted by a learned uncertainty of each task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from tasktokens.losses import Term
from tasktokens.training.loss_balance import LossBalance, task_of


class LogVariances(nn.Module):
    """One learned number (T,) per task, 0 at first."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(count))


class Uncertainty(LossBalance):
    """The loss is the sum over tasks of exp(-s) L + s with a learned s, the logarithm of the task's noise variance.

    Source: Kendall, Gal, Cipolla, *Multi-Task Learning Using Uncertainty to Weigh Losses* (CVPR 2018,
    https://arxiv.org/abs/1705.07115), with the same form for all kinds of tasks. At first it is the sum of the losses
    (twice the published, which changes no minimum); a task without a label in a step does not move its s then.

    Args:
        names: of the tasks.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._place = {name: number for number, name in enumerate(names)}
        self._variances = LogVariances(len(self._place))
        self.module = self._variances

    def apply(self, terms: Sequence[Term]) -> Sequence[Term]:
        """The terms with the totals of tasks scaled, with a gradient to s."""
        scales = (-self._variances.values.float()).exp()
        places = [self._place.get(task_of(term.name)) for term in terms]
        return [t if i is None else replace(t, total=t.total * scales[i]) for t, i in zip(terms, places, strict=True)]

    def penalty(self, names: Sequence[str], counts: Sequence[Tensor]) -> Tensor:
        """The sum of s over the tasks that have labels in this step."""
        labelled = {name.removeprefix("loss/"): count for name, count in zip(names, counts, strict=True)
                    if name.startswith("loss/")}  # fmt: skip
        values = self._variances.values
        parts = [values[place] * (labelled[name] > 0) for name, place in self._place.items() if name in labelled]
        return torch.stack(parts).sum() if parts else 0.0 * values.sum()
