"""What is trained beside the student: networks of the method, weights of the losses. DDP knows nothing of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn


class Reducer(Protocol):
    """What ranks tell each other."""

    @property
    def num_processes(self) -> int:
        """Number of ranks."""

    def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
        """The sum or mean of a tensor over ranks."""


def trained(*modules: nn.Module | None) -> list[nn.Module]:
    """Those of the modules that have parameters."""
    return [module for module in modules if module is not None and any(True for _ in module.parameters())]


class Beside:
    """The parameters of modules that are trained beside the student.

    Args:
        modules: each with parameters, on their device.
    """

    def __init__(self, modules: Sequence[nn.Module] = ()) -> None:
        self.modules = list(modules)
        self.parameters = [p for module in modules for p in module.parameters() if p.requires_grad]

    def train(self) -> None:
        """Set training mode."""
        for module in self.modules:
            module.train()

    @torch.no_grad()
    def average_gradients(self, ranks: Reducer) -> None:
        """Make every rank's gradients the mean over ranks, as DDP does for the student; where there is none it is 0.

        A gradient of 0 and none differ: Adam's moments decay with the one alone, so ranks, and parts, must agree.
        """
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if not self.parameters or ranks.num_processes == 1:
            return
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        flat = ranks.reduce(torch.cat([gradient.reshape(-1) for gradient in gradients]), "mean")
        parts = torch.split_with_sizes(flat, [gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(parts, gradients, strict=True)])

    def clip(self, most: float) -> Tensor | None:
        """Clip the gradients by their own norm and return what it was; None where nothing is trained.

        To be called after the student's are clipped, which takes fp16's loss scale off all gradients.
        """
        return nn.utils.clip_grad_norm_(self.parameters, most) if self.parameters else None
