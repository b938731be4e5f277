"""One update of the weights: losses of this rank's parts of the batch, gradients of all, guards, optimiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn

from tasktokens.data.sample import Batch
from tasktokens.methods import Method, StepOptions, Term
from tasktokens.models import Network
from tasktokens.training.nan_guard import FiniteGuard, check_all_used


class Step:
    """Call it with the parts of this rank's share of a batch; nothing in it waits for the device.

    Args:
        model: the student, as `Accelerator.prepare` returned it.
        clip: largest gradient norm.
    """

    def __init__(
        self,
        method: Method,
        accelerator: Accelerator,
        model: nn.Module,
        optimizer: AcceleratedOptimizer,
        guard: FiniteGuard,
        clip: float,
    ) -> None:
        self.method, self.accelerator, self.model, self.optimizer = method, accelerator, model, optimizer
        self.guard, self.clip = guard, clip

    def __call__(
        self, parts: Sequence[Batch], teacher: Network | None, options: Callable[[int], StepOptions]
    ) -> dict[str, Tensor]:
        """One update; returns each term's mean.

        Args:
            options: of part number i of this rank, fresh at each call.
        """
        self.model.train()
        counts = self._counts(parts, teacher, options) if len(parts) > 1 else None
        sums: list[Tensor] = []
        for number, batch in enumerate(parts):
            last = number + 1 == len(parts)  # its backward pass sums the gradients over ranks
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                terms = self._terms(batch, teacher, options(number))
                if counts is None:
                    loss, means = combine(terms, self.accelerator)
                else:
                    loss = divided(terms, [counts.get(t.name, t.count) for t in terms], self.accelerator)
                    sums.append(totals_and_counts(terms))
                self.accelerator.backward(loss)
        if counts is not None:
            means = means_of(terms, self.accelerator.reduce(torch.stack(sums).sum(0), "sum"))
        self.method.observe(means)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.clip)
        self.guard.before_update(norm, tuple(id for batch in parts for id in batch.ids))
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {term.name: means[term.name] for term in terms if term.reported}

    def _terms(self, batch: Batch, teacher: Network | None, options: StepOptions) -> list[Term]:
        # Dropout and stochastic depth draw from torch's own generator, which no checkpoint holds.
        torch.manual_seed((options.generator.initial_seed() + (options.part.number << 44)) % 2**63)
        with self.accelerator.autocast():
            return self.method.terms(batch, self.model, teacher, options)

    def _counts(
        self, parts: Sequence[Batch], teacher: Network | None, options: Callable[[int], StepOptions]
    ) -> dict[str, Tensor]:
        """The count of each term over all parts of all ranks."""
        each = [self.method.counts(batch, teacher, options(number)) for number, batch in enumerate(parts)]
        own = torch.stack([torch.stack(list(counts.values())) for counts in each]).sum(0)
        return dict(zip(each[0], self.accelerator.reduce(own, "sum"), strict=True))


def check_first_batch(
    method: Method,
    batch: Batch,
    student: Network,
    teacher: Network | None,
    options: StepOptions,
    accelerator: Accelerator,
) -> None:
    """Raise `TrainingError` where several processes cannot train the network, see `check_all_used`."""
    with accelerator.autocast():
        terms = method.terms(batch.to(accelerator.device), student.eval(), teacher, options)
    check_all_used(student, torch.stack([term.total for term in terms]).sum())


def combine(terms: Sequence[Term], accelerator: Accelerator) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss to minimise, and each term's mean for the log.

    Counts are summed over all ranks before dividing, and the sum is scaled by the number of ranks since gradients are
    averaged over them: a task labelled on one rank only gets its whole gradient.
    """
    summed_2T = accelerator.reduce(totals_and_counts(terms), "sum")
    return divided(terms, list(summed_2T[1]), accelerator), means_of(terms, summed_2T)


def totals_and_counts(terms: Sequence[Term]) -> Tensor:
    """(2, terms), without gradients."""
    return torch.stack([torch.stack([t.total.detach() for t in terms]), torch.stack([t.count for t in terms])])


def means_of(terms: Sequence[Term], summed_2T: Tensor) -> dict[str, Tensor]:
    """The mean of each term over all that was summed; zero where nothing counted."""
    means = summed_2T[0] / summed_2T[1].clamp(min=1)
    return {term.name: mean for term, mean in zip(terms, means, strict=True)}


def divided(terms: Sequence[Term], counts: Sequence[Tensor], accelerator: Accelerator) -> Tensor:
    """The weighted sum of the terms, each divided by its count over ranks and parts."""
    totals, denominator = torch.stack([t.total for t in terms]), torch.stack(list(counts)).clamp(min=1)
    weights = torch.tensor([t.weight for t in terms], device=totals.device)
    loss: Tensor = (weights * totals / denominator).sum() * accelerator.num_processes
    return loss
