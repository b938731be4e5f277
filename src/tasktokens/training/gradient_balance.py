"""Balancing by gradients: those of the tasks' losses are joined so that they conflict less (TorchJD's aggregators)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from tasktokens.errors import ConfigError
from tasktokens.training.beside import Reducer
from tasktokens.training.loss_balance import LossBalance, task_of

AGGREGATORS = {"upgrad": "UPGrad", "mgda": "MGDA", "aligned_mtl": "AlignedMTL"}
"""For each value of ``optim.balance`` TorchJD's class. None of them draws random numbers or needs a solver of cvxpy."""


class GradientBalance(LossBalance):
    """The student's gradient is joined from the gradients of the tasks; one backward pass per task.

    Sources: UPGrad (Quinton, Rey, arXiv 2406.16232), MGDA (Sener, Koltun, NeurIPS 2018), Aligned-MTL (Senushkin et al.,
    CVPR 2023), all in TorchJD. The result is multiplied by the number of tasks with labels, so that gradients which do
    not conflict give about what their sum would. Terms that belong to no task are added as they are, and what is
    trained beside the student gets the plain sum.

    Args:
        names: of the tasks.
        kind: in `AGGREGATORS`.

    Raises:
        ConfigError: TorchJD, or what one of its solvers needs, is not installed.
    """

    def __init__(self, names: Sequence[str], kind: str) -> None:
        self._names = list(names)
        self._join = aggregator(kind)
        self._rows: Tensor | None = None

    def backward(
        self, shares: Tensor, names: Sequence[str], student: Sequence[nn.Parameter], others: Sequence[nn.Parameter]
    ) -> None:
        """Add the gradients of a part's losses: each task's for the student, their sum for the others.

        Args:
            shares: (terms,) weighted parts of the loss. names: of the terms.
        """
        groups = [*self._names, None]
        of = [name if (name := task_of(term)) in self._names else None for term in names]
        rows = []
        for group in groups:
            members = [place for place, name in enumerate(of) if name == group]
            if not members:
                rows.append(torch.cat([torch.zeros_like(p).reshape(-1) for p in student]))
                continue
            loss = shares[members].sum()
            found = torch.autograd.grad(
                loss, [*student, *others], retain_graph=True, allow_unused=True, materialize_grads=True
            )
            rows.append(torch.cat([gradient.reshape(-1) for gradient in found[: len(student)]]))
            for parameter, gradient in zip(others, found[len(student) :], strict=True):
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        matrix = torch.stack(rows)
        self._rows = matrix if self._rows is None else self._rows + matrix

    @torch.no_grad()
    def join(self, student: Sequence[nn.Parameter], ranks: Reducer) -> None:
        """Set the student's gradients from all that was added since the last call; waits for the device."""
        assert self._rows is not None
        rows, self._rows = self._rows, None
        if ranks.num_processes > 1:
            rows = ranks.reduce(rows, "mean")
        tasks = rows[:-1]
        # A task without a label has no say; of numbers that are not finite the guard must hear, not a solver.
        tasks = tasks[tasks.abs().sum(dim=1) != 0]
        conflict = len(tasks) > 1 and bool(torch.isfinite(tasks).all())
        joined = len(tasks) * self._join(tasks) if conflict else tasks.sum(0)
        whole = joined + rows[-1]
        for parameter, part in zip(student, torch.split_with_sizes(whole, [p.numel() for p in student]), strict=True):
            parameter.grad = torch.empty_like(parameter).copy_(part.view(parameter.shape))


def aggregator(kind: str) -> Callable[[Tensor], Tensor]:
    """TorchJD's aggregator of that name: a matrix (tasks, parameters) to one gradient (parameters,)."""
    try:
        from torchjd import aggregation

        made: Callable[[Tensor], Tensor] = getattr(aggregation, AGGREGATORS[kind])()
    except ImportError as error:
        raise ConfigError(f"optim.balance={kind} needs TorchJD ({error}); pip install 'tasktokens[balance]'") from error
    return made
