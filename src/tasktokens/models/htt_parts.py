"""The interchangeable parts of HTT's network, as interventions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tasktokens.models.interventions import Change, Intervention
from tasktokens.models.light import LightDecoder, LightHead
from tasktokens.models.paper import PaperHead, TokenAttention, TokenDecoder
from tasktokens.models.tokens import CrossTaskGates

Head = LightHead | PaperHead
Gates = tuple[Tensor, Tensor, Tensor]
"""Mixed gates, mixed tokens, affinity."""
Changes = dict[nn.Module, Change]
"""What `Intervention.changes` is."""


def htt_interventions(
    gates: Sequence[nn.Module],
    heads: Sequence[nn.Module],
    exchange: nn.Module | None = None,
    of_image: bool = False,
) -> Iterator[Intervention]:
    """Of all tasks at once.

    Args:
        gates: of the four scales, finest first.
        heads: of the tasks.
        exchange: among the fine tokens of all tasks.
        of_image: whether the global tokens have seen the image.
    """
    chosen = [head for head in heads if isinstance(head, Head)]
    fine = [module for head in chosen if (module := _last_tokens(head)) is not None]
    updates = [update for head in chosen if isinstance(head, LightHead) for update in head.update]
    decoders = [head.decoder for head in chosen if isinstance(head.decoder, LightDecoder | TokenDecoder)]
    mixing = [module for module in gates if isinstance(module, CrossTaskGates)]
    attentions: list[nn.Module] = [head.attention for head in chosen]
    if fine:
        yield Intervention("fine_tokens", "of another image", dict.fromkeys(fine, _of_another), swaps=True)
        constant: Changes = {each: _constant_maps(each) for each in decoders}
        yield Intervention("token_maps", "a constant per class", constant)
    yield Intervention("task_tokens", "of another image", dict.fromkeys(attentions, _token_of_another), swaps=True)
    flat: Changes = {each: _without_spatial(each) for each in attentions}
    yield Intervention("attention", "no spatial branch", flat)
    if mixing:
        yield Intervention("gates", "mean over tasks", dict.fromkeys(mixing, _mean_gates))
        yield Intervention("gates", "open", dict.fromkeys(mixing, _open_gates))
        yield Intervention("gates", "of another image", dict.fromkeys(mixing, _gates_of_another), swaps=True)
        zero: Changes = {each: _with_tokens(each, torch.zeros_like) for each in mixing}
        yield Intervention("global_tokens", "zero", zero)
        swapped: Changes = {each: _with_tokens(each, lambda tokens: tokens.roll(1, dims=-2)) for each in mixing}
        yield Intervention("global_tokens", "of another task", swapped)
        images: Changes = {each: _with_tokens(each, lambda tokens: tokens.roll(1, dims=0)) for each in mixing}
        if of_image:
            yield Intervention("global_tokens", "of another image", images, swaps=True)
    if updates:
        yield Intervention("token_update", "removed", dict.fromkeys(updates, lambda inputs, output: inputs[0]))
    if exchange is not None:
        yield Intervention("token_exchange", "removed", {exchange: lambda inputs, output: list(inputs[0])})
    for number, module in enumerate(gates, 1):
        yield Intervention(f"scale{number}", "removed", {module: _closed_gates})


def _last_tokens(head: Head) -> nn.Module | None:
    """The module whose output is the fine tokens that decode."""
    if head.fine_tokens is None:
        return None
    return head.last_tokens if isinstance(head, LightHead) else head.fine_tokens


def _of_another(inputs: Any, output: Tensor) -> Tensor:
    return output.roll(1, dims=0)


def _token_of_another(inputs: Any, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return output[0], output[1].roll(1, dims=0)


def _constant_maps(decoder: LightDecoder | TokenDecoder) -> Change:
    """Each class map weighed by its token map's mean over all positions of the batch."""

    def change(inputs: tuple[Tensor, Tensor], output: Tensor) -> Tensor:
        constant = decoder.scores(*inputs).mean(dim=(0, 2, 3), keepdim=True)
        changed: Tensor = decoder.out(decoder.maps(inputs[0]) * constant)
        return changed

    return change


def _without_spatial(attention: nn.Module) -> Change:
    def change(inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return attention.refine(inputs[0]) if isinstance(attention, TokenAttention) else inputs[0], output[1]

    return change


def _mean_gates(inputs: Any, output: Gates) -> Gates:
    return output[0].mean(dim=1, keepdim=True).expand_as(output[0]), *output[1:]


def _open_gates(inputs: Any, output: Gates) -> Gates:
    return torch.ones_like(output[0]), *output[1:]


def _closed_gates(inputs: Any, output: Gates) -> Gates:
    return torch.zeros_like(output[0]), *output[1:]


def _gates_of_another(inputs: Any, output: Gates) -> Gates:
    return output[0].roll(1, dims=0), *output[1:]


def _with_tokens(gates: CrossTaskGates, change: Callable[[Tensor], Tensor]) -> Change:
    """The gates that other global tokens (T, C), or (B, T, C), would give."""
    return lambda inputs, output: gates.forward(inputs[0], change(inputs[1]))
