"""Guards against NaN and infinity: they never reach the weights."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from tasktokens.errors import TrainingError
from tasktokens.utils.distributed import all_gather


class FiniteGuard:
    """Skips the update of a step whose gradient norm is not finite, on the device, without waiting for it.

    The fused optimisers read ``found_inf`` and keep weights and moments where it is 1; the statistics of
    batch norm, which the forward pass has changed already, go back to what they were. How many steps in a row were bad
    is read only when `check` is called.

    Args:
        network: whose statistics to guard, on its device; None: of no network.
        average: over ranks, of a tensor; they then keep the same statistics and decide alike, since gradients and
            their norm are the same on all of them.
        gather: the names of all ranks from those of this one.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        patience: int = 10,
        network: nn.Module | None = None,
        average: Callable[[Tensor], Tensor] | None = None,
        gather: Callable[[tuple[str, ...]], Iterable[str]] = lambda names: names,
    ) -> None:
        self.optimizer, self.patience, self.gather = optimizer, patience, gather
        self.statistics = Statistics(network, average) if network is not None else None
        self.in_a_row = torch.zeros((), device=device)
        self.recent: deque[tuple[str, ...]] = deque(maxlen=patience)

    def before_update(self, gradient_norm: Tensor, ids: tuple[str, ...]) -> None:
        """Call between the backward pass and the optimiser's step."""
        not_finite = ~torch.isfinite(gradient_norm)
        bad = not_finite.to(torch.float32)  # what the fused kernels read
        self.optimizer.found_inf = bad  # type: ignore[attr-defined]
        if self.statistics is not None:
            self.statistics.keep_or_restore(not_finite)
        self.in_a_row = (self.in_a_row + 1) * bad
        self.recent.append(ids)

    def check(self) -> int:
        """Number of bad steps in a row. Raises `TrainingError` naming samples when there were too many."""
        count = int(self.in_a_row)
        if count >= self.patience:
            names = ", ".join(list(dict.fromkeys(self.gather(tuple(id for ids in self.recent for id in ids))))[:8])
            raise TrainingError(
                f"the loss was not finite {count} steps in a row; the last good weights are kept. Samples: {names}. "
                f"Check these files, or lower optim.lr"
            )
        return count


class Statistics:
    """The statistics of a network's batch norms, as they were after the last good step.

    With ``average`` they are its ranks' mean after each step: a rank sees its share of a batch only.
    """

    def __init__(self, network: nn.Module, average: Callable[[Tensor], Tensor] | None = None) -> None:
        self._average = average
        names = ("running_mean", "running_var", "num_batches_tracked")
        buffers = [b for name, b in network.named_buffers() if name.rpartition(".")[2] in names]
        # One copy for each type: then a step costs a few operations and not a few for each layer.
        kinds = dict.fromkeys(b.dtype for b in buffers)
        self._groups = [[b for b in buffers if b.dtype == kind] for kind in kinds]
        self._good = [_flat(group) for group in self._groups]

    @torch.no_grad()
    def keep_or_restore(self, bad: Tensor) -> None:
        """Put the last good statistics back where ``bad`` () bool is true, or where one is not finite."""
        now = [_flat(group) for group in self._groups]
        if self._average is not None:
            now = [self._average(flat) if flat.is_floating_point() else flat for flat in now]
        for flat in now:
            bad = bad | ~torch.isfinite(flat).all()
        self._good = [torch.where(bad, good, flat) for good, flat in zip(self._good, now, strict=True)]
        for group, flat in zip(self._groups, self._good, strict=True):
            parts = torch.split_with_sizes(flat, [b.numel() for b in group])
            torch._foreach_copy_(group, [part.view(b.shape) for part, b in zip(parts, group, strict=True)])


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def finite_guard(optimizer: torch.optim.Optimizer, network: nn.Module, accelerator: Accelerator) -> FiniteGuard:
    """The guard of a network that is trained on all ranks; batch norm's statistics become the mean over ranks."""
    if accelerator.num_processes == 1:
        return FiniteGuard(optimizer, accelerator.device, network=network)

    def average(tensor: Tensor) -> Tensor:
        mean: Tensor = accelerator.reduce(tensor, "mean")
        return mean

    def gather(names: tuple[str, ...]) -> Iterator[str]:
        return chain.from_iterable(all_gather(accelerator, names))

    return FiniteGuard(optimizer, accelerator.device, network=network, average=average, gather=gather)


def check_all_used(network: nn.Module, loss: Tensor) -> None:
    """Raise `TrainingError` naming parameters that a loss does not reach: DDP would wait for their gradients."""
    parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    unused = [name for name, gradient in zip(parameters, gradients, strict=True) if gradient is None]
    if unused:
        raise TrainingError(
            f"{len(unused)} parameters, such as {', '.join(unused[:3])}, take no part in the losses, and several "
            f"processes cannot train such a network; train on one, or let every output enter a loss, be it zero times"
        )
