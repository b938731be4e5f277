"""One update of the weights: losses of this rank's parts of the batch, gradients of all, guards, optimiser."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tasktokens.methods import Method, PreparedBatch, Term
from tasktokens.models import Network
from tasktokens.training.beside import Beside
from tasktokens.training.gradient_balance import GradientBalance
from tasktokens.training.loss_balance import LossBalance
from tasktokens.training.nan_guard import FiniteGuard, check_all_used


class StepEngine(Protocol):
    """What a step needs of an `accelerate.Accelerator`: precision, and what ranks tell each other."""

    @property
    def num_processes(self) -> int:
        """Number of ranks."""

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of the forward pass."""

    def no_sync(self, model: nn.Module) -> AbstractContextManager[Any]:
        """Backward passes within keep their gradients to this rank."""

    def reduce(self, tensor: Tensor, reduction: str) -> Any:
        """The sum or mean of a tensor over ranks."""

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradients to the parameters'."""

    def clip_grad_norm_(self, parameters: Iterable[nn.Parameter], max_norm: float) -> Any:
        """Shorten the gradients to ``max_norm``; returns the norm that they had."""


class SteppingOptimizer(Protocol):
    """A `torch.optim.Optimizer`, or what accelerate makes of it."""

    def step(self) -> Any:
        """Update the parameters."""

    def zero_grad(self) -> None:
        """Forget the gradients."""


class Step:
    """Call it with the prepared parts of this rank's share of a batch; nothing in it waits for the device.

    Args:
        model: the student, as `Accelerator.prepare` returned it.
        clip: largest gradient norm.
        balance: factors of the tasks' terms; default: none.
        beside: what is trained beside the model; default: nothing.
    """

    def __init__(
        self,
        method: Method,
        engine: StepEngine,
        model: nn.Module,
        optimizer: SteppingOptimizer,
        guard: FiniteGuard,
        clip: float,
        balance: LossBalance | None = None,
        beside: Beside | None = None,
    ) -> None:
        self.method, self.engine, self.model, self.optimizer = method, engine, model, optimizer
        self.guard, self.clip, self.balance = guard, clip, balance or LossBalance()
        self.beside = beside or Beside()

    def __call__(self, parts: Sequence[PreparedBatch], teacher: nn.Module | None) -> dict[str, Tensor]:
        """One update; returns each reported term's sum and count over all ranks and parts, (2,) on the device."""
        self.model.train()
        self.beside.train()
        counts = self._counts(parts) if len(parts) > 1 else None
        by_gradient = isinstance(self.balance, GradientBalance)
        sums: list[Tensor] = []
        for number, prepared in enumerate(parts):
            last = number + 1 == len(parts)  # its backward pass sums the gradients over ranks
            with nullcontext() if last and not by_gradient else self.engine.no_sync(self.model):
                # Dropout and stochastic depth draw from torch's own generator, which no checkpoint holds.
                torch.manual_seed(prepared.seed)
                with self.engine.autocast():
                    terms = self.method.terms(prepared, self.model, teacher)
                if counts is None:
                    summed_2T = self.engine.reduce(totals_and_counts(terms), "sum")
                    whole = list(summed_2T[1])
                else:
                    whole = [counts.get(t.name, t.count) for t in terms]
                    sums.append(totals_and_counts(terms))
                loss = self._loss(terms, whole, len(parts))
                if loss is not None:
                    self.engine.backward(loss)
        if isinstance(self.balance, GradientBalance):
            self.balance.join(self._trained(), self.engine)
        if counts is not None:
            summed_2T = self.engine.reduce(torch.stack(sums).sum(0), "sum")
        self.method.observe(means_of(terms, summed_2T))
        self.beside.average_gradients(self.engine)
        norm = self.engine.clip_grad_norm_(self.model.parameters(), self.clip)
        if (other := self.beside.clip(self.clip)) is not None:
            norm = norm + other  # finite where both are
        self.guard.before_update(norm, tuple(id for prepared in parts for id in prepared.batch.ids))
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {term.name: summed_2T[:, index] for index, term in enumerate(terms) if term.reported}

    def _loss(self, terms: Sequence[Term], counts: Sequence[Tensor], parts: int) -> Tensor | None:
        """A part's loss; None where the balance has added the gradients of each task by itself.

        Args:
            counts: of the terms, over all ranks and parts.
        """
        names = [term.name for term in terms]
        balanced = self.balance.apply(terms)
        if isinstance(self.balance, GradientBalance):
            each = shares(balanced, counts) * self.engine.num_processes
            self.balance.backward(each, names, self._trained(), self.beside.parameters)
            return None
        loss = divided(balanced, counts, self.engine)
        penalty = self.balance.penalty(names, counts)
        return loss if penalty is None else loss + penalty / parts

    def _trained(self) -> list[nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]

    def _counts(self, parts: Sequence[PreparedBatch]) -> dict[str, Tensor]:
        """The count of each term over all parts of all ranks."""
        each = [self.method.counts(prepared) for prepared in parts]
        local = torch.stack([torch.stack(list(counts.values())) for counts in each]).sum(0)
        return dict(zip(each[0], self.engine.reduce(local, "sum"), strict=True))


def check_first_batch(
    method: Method, prepared: PreparedBatch, student: Network, teacher: Network | None, engine: StepEngine
) -> None:
    """Raise `TrainingError` where several processes cannot train the network, see `check_all_used`."""
    if (state := method.state()) is not None:
        state.eval()
    with engine.autocast():
        terms = method.terms(prepared, student.eval(), teacher)
    check_all_used(student, torch.stack([term.total for term in terms]).sum())


def combine(terms: Sequence[Term], engine: StepEngine) -> tuple[Tensor, Tensor]:
    """The loss to minimise, and each term's sum and count over all ranks (2, terms).

    Counts are summed over all ranks before dividing, and the sum is scaled by the number of ranks since gradients are
    averaged over them: a task labelled on one rank only gets its whole gradient.
    """
    summed_2T: Tensor = engine.reduce(totals_and_counts(terms), "sum")
    return divided(terms, list(summed_2T[1]), engine), summed_2T


def totals_and_counts(terms: Sequence[Term]) -> Tensor:
    """(2, terms), without gradients."""
    return torch.stack([torch.stack([t.total.detach() for t in terms]), torch.stack([t.count for t in terms])])


def means_of(terms: Sequence[Term], summed_2T: Tensor) -> dict[str, Tensor]:
    """The mean of each term over all that was summed; zero where nothing counted."""
    means = summed_2T[0] / summed_2T[1].clamp(min=1)
    return {term.name: mean for term, mean in zip(terms, means, strict=True)}


def divided(terms: Sequence[Term], counts: Sequence[Tensor], engine: StepEngine) -> Tensor:
    """The weighted sum of the terms, each divided by its count over ranks and parts."""
    loss: Tensor = shares(terms, counts).sum() * engine.num_processes
    return loss


def shares(terms: Sequence[Term], counts: Sequence[Tensor]) -> Tensor:
    """What each term adds to the loss, (terms,): its weight times its total, divided by its count."""
    totals, denominator = torch.stack([t.total for t in terms]), torch.stack(list(counts)).clamp(min=1)
    weights = torch.tensor([t.weight for t in terms], device=totals.device)
    return weights * totals / denominator
