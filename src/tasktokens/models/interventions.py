"""Changing one part of a network while it predicts: what the prediction then loses is what the part does.

A network offers its interchangeable parts by `Network.interventions`; nothing else has to know its kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

Change = Callable[[tuple[Any, ...], Any], Any]
"""The inputs and the output of a module's forward pass to the output in its place."""


@dataclass(frozen=True)
class Intervention:
    """One change of one part.

    Attributes:
        part: what is changed, such as ``fine_tokens``; one word.
        name: what is done to it, such as ``of another image``.
        changes: for each module that is concerned, the change of its output.
        swaps: whether an image gets something of another image of its batch, so that a batch needs two.

    Examples:
        >>> import torch
        >>> layer = nn.Identity()
        >>> zero = Intervention("layer", "zero", {layer: lambda inputs, output: 0 * output})
        >>> with applied(zero):
        ...     layer(torch.ones(2))
        tensor([0., 0.])
        >>> layer(torch.ones(2))
        tensor([1., 1.])
    """

    part: str
    name: str
    changes: Mapping[nn.Module, Change]
    swaps: bool = False


@contextmanager
def applied(intervention: Intervention) -> Iterator[None]:
    """Within, forward passes are changed; afterwards the network is as it was."""
    handles = [
        module.register_forward_hook(lambda _, inputs, output, change=change: change(inputs, output))
        for module, change in intervention.changes.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
