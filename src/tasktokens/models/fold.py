"""Batch norms folded into the convolutions before them: the same function in evaluation mode, with less to compute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn

from tasktokens.errors import ConfigError
from tasktokens.models.light import Pointwise

Module = TypeVar("Module", bound=nn.Module)

TOLERANCE = 1e-4
"""Largest difference of an output, relative to its largest value, at which a network stays folded."""

_CONVOLUTIONS = (nn.Conv2d, Conv2dSame, Pointwise)
"""Those whose output is linear in ``weight`` and ``bias`` as they are; others standardise weights first."""


def fold_batch_norms(network: Module) -> Module:
    """Fold every batch norm that reads one convolution, in place; for prediction, never for training.

    Which ones those are is observed on an image of noise, and the outputs are compared before and after: where they
    differ by more than `TOLERANCE`, or the network cannot take that image, it stays as it is. Putting a folded network
    into training mode raises `RuntimeError`; its state no longer fits the network that it was loaded from.

    Args:
        network: in evaluation mode; takes uint8 images (B, 3, H, W).

    Returns:
        The network itself.

    Raises:
        ValueError: it is in training mode.

    Examples:
        >>> class Small(nn.Sequential):
        ...     def forward(self, image_B3HW):
        ...         return super().forward(image_B3HW.float())
        >>> network = Small(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)).eval()
        >>> fold_batch_norms(network)[1]
        Folded(
          (after): Sequential()
        )
    """
    if network.training:
        raise ValueError("expected a network in evaluation mode, found one in training mode; call .eval() first")
    norms = {name: m for name, m in network.named_modules() if isinstance(m, nn.BatchNorm2d) and m.track_running_stats}
    if not norms:
        return network
    try:
        before, pairs = _observe(network, norms)
    except (ConfigError, RuntimeError):  # made for images of another size
        return network
    undo = [(conv, conv.weight, conv.bias, name, norms[name]) for name, conv in pairs.items()]
    for name, conv in pairs.items():
        _fold(conv, norms[name])
        network.set_submodule(name, Folded(norms[name]))
    if not _close(before, list(_tensors(_run(network)))):
        for conv, weight, bias, name, norm in undo:
            conv.weight, conv.bias = weight, bias
            network.set_submodule(name, norm)
    return network


class Folded(nn.Module):
    """What is left of a batch norm: the activation that timm's kinds hold."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        parts = (getattr(norm, name, None) for name in ("drop", "act"))
        self.after = nn.Sequential(*(part for part in parts if isinstance(part, nn.Module)))
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        """What the batch norm does after normalising."""
        result: Tensor = self.after(x)
        return result

    def train(self, mode: bool = True) -> Folded:
        """Raises `RuntimeError` for training mode."""
        if mode:
            raise RuntimeError("batch norms of this network are folded for prediction; to train it, use load_model")
        return super().train(False)


def _observe(network: nn.Module, norms: Mapping[str, nn.BatchNorm2d]) -> tuple[list[Tensor], dict[str, nn.Conv2d]]:
    """The outputs for the image of noise, and by name of a batch norm the convolution that it alone reads."""
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # the tensor is kept, or another could get its id
    calls: dict[nn.Module, int] = {}
    pairs: dict[str, nn.Conv2d] = {}

    def made_by(module: nn.Conv2d, _: Any, output: Tensor) -> None:
        made[id(output)] = module, output
        calls[module] = calls.get(module, 0) + 1

    def reads(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls[module] = calls.get(module, 0) + 1
        if id(inputs[0]) in made:
            pairs[name] = made[id(inputs[0])][0]

    handles = [m.register_forward_hook(made_by) for m in network.modules() if type(m) in _CONVOLUTIONS]
    for name, norm in norms.items():
        handles.append(norm.register_forward_pre_hook(lambda m, inputs, name=name: reads(name, m, inputs)))
    try:
        outputs = list(_tensors(_run(network)))
    finally:
        for handle in handles:
            handle.remove()
    readers = list(pairs.values())
    once = {n: c for n, c in pairs.items() if calls[c] == calls[norms[n]] == 1 and readers.count(c) == 1}
    return outputs, once


@torch.no_grad()
def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight.double()
    shift = -norm.running_mean.double() if conv.bias is None else conv.bias.double() - norm.running_mean.double()
    bias = shift * scale if norm.bias is None else shift * scale + norm.bias.double()
    weight = (conv.weight.double() * scale[:, None, None, None]).to(conv.weight.dtype)
    conv.weight = nn.Parameter(weight, conv.weight.requires_grad)
    conv.bias = nn.Parameter(bias.to(weight.dtype), conv.weight.requires_grad)


@torch.no_grad()
def _run(network: nn.Module) -> object:
    """The network's output for an image of noise, always the same one."""
    device = next(network.parameters()).device
    noise = torch.randint(256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return network(noise.to(device))


def _tensors(output: object) -> Iterator[Tensor]:
    """The floating-point tensors of an output of any make."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif is_dataclass(output):
        for field in fields(output):
            yield from _tensors(getattr(output, field.name))
    elif isinstance(output, Mapping | list | tuple):
        for part in output.values() if isinstance(output, Mapping) else output:
            yield from _tensors(part)


def _close(before: list[Tensor], after: list[Tensor]) -> bool:
    return len(before) == len(after) and all(
        bool(((a - b).abs().max() <= TOLERANCE * a.abs().max().clamp(min=1e-6)).item())
        for a, b in zip(before, after, strict=True)
    )
