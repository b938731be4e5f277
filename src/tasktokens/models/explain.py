"""Every stage of a network by name, for inspection; the forward pass itself knows nothing of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from tasktokens.models.backbones import Backbone
from tasktokens.models.htt import HttNetwork
from tasktokens.models.light import LightDecoder, LightHead
from tasktokens.models.outputs import Network
from tasktokens.models.paper import PaperHead, TokenDecoder
from tasktokens.models.tokens import CrossTaskGates, OpenGates

Stages = dict[str, Tensor]
"""Outputs of the parts of a network by name; see `stages`."""
_Naming = Callable[[Any, Any], Stages]
"""The inputs and the output of a module to stages by name."""


def stages(network: Network, image_B3HW: Tensor) -> Stages:
    """What the network computes for images, stage by stage, in evaluation mode and without gradients.

    Scales ``i`` count from 1, the finest. For each scale of any network ``scale{i}.features`` (B, C_i, H_i, W_i), the
    backbone's map; of `HttNetwork` also

    - ``scale{i}.own_gates`` (B, T, H_i, W_i) in [0, 1]: where each task's global token lets the map through,
    - ``scale{i}.affinity`` (B, T, T): row t says how much task t takes of each task's gate; rows add up to 1,
    - ``scale{i}.gates`` (B, T, H_i, W_i) in [0, 1]: the own gates mixed by the affinity,
    - ``scale{i}.tokens`` (B, T, C_i): the global tokens mixed by the affinity.

    For each task ``{task}.fused`` (B, D', H_1, W_1) and ``{task}.context`` (B, D, H_1, W_1), in heads of the ``htt``
    variant at half that size; ``{task}.feature`` (B, D, H_1, W_1) after token attention, or the baseline's last block;
    and ``{task}.logits`` (B, K, H_1, W_1); of `HttNetwork` also

    - ``{task}.gated{i}`` (B, C_i, H_i, W_i): the task's gate times the map, which the head gets,
    - ``{task}.global_token`` (B, D): its refined global token, ``{task}.token`` (B, D): conditioned on the image,
    - ``{task}.fine_tokens`` (B, K, D), one per class, bin or direction,
    - ``{task}.token_maps`` (B, K, H_1, W_1) above 0: agreement of each position with each fine-grained token,
    - ``{task}.class_maps`` (B, K, H_1, W_1): what the token maps weigh,
    - ``{task}.confidence`` (B, 1, H_1, W_1): logit of "the prediction is right here".

    A network of another kind gives ``{task}.feature``, ``{task}.logits`` and what else its `TaskOutput` holds.

    Args:
        network: left as it was: mode of every module, batch statistics, hooks.
        image_B3HW: images, uint8 or 0..255, on the network's device.

    Raises:
        ValueError: the images have another shape.
    """
    if image_B3HW.ndim != 4 or image_B3HW.shape[1] != 3 or 0 in image_B3HW.shape:
        raise ValueError(f"expected images of shape (B, 3, H, W), none of them 0, found {tuple(image_B3HW.shape)}")
    modes = [(module, module.training) for module in network.modules()]
    try:
        with torch.no_grad(), recording(network.eval()) as recorded:
            network(image_B3HW)
    finally:
        for module, training in modes:
            module.training = training
    return recorded


@contextmanager
def recording(network: Network) -> Iterator[Stages]:
    """Within, a forward pass in training or evaluation mode leaves its stages in the dictionary, gradients included.

    The names are those of `stages`. The tensors are the network's own: change none in place.
    """
    recorded: Stages = {}

    def record(naming: _Naming) -> Callable[..., None]:
        return lambda _, inputs, output: recorded.update(naming(inputs, output))

    handles = [module.register_forward_hook(record(naming)) for module, naming in _observed(network)]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


def _observed(network: Network) -> Iterator[tuple[nn.Module, _Naming]]:
    """The modules whose inputs and outputs are stages."""
    yield (
        network,
        lambda _, outputs: {
            f"{task}.{field.name}": value
            for task, output in outputs.items()
            for field in fields(output)
            if (value := getattr(output, field.name)) is not None
        },
    )
    backbone, heads = getattr(network, "backbone", None), getattr(network, "heads", None)
    if isinstance(backbone, Backbone):
        yield backbone, lambda _, maps: {f"scale{i}.features": x for i, x in enumerate(maps, 1)}
    for task, head in heads.items() if isinstance(heads, nn.ModuleDict) else ():
        for part, name in (("fusion", "fused"), ("context", "context")):
            if isinstance(module := getattr(head, part, None), nn.Module):
                yield module, _output(f"{task}.{name}")
    if isinstance(network, HttNetwork):
        for i, gates in enumerate(network.gates, 1):
            assert isinstance(gates, CrossTaskGates | OpenGates)
            yield from _observed_gates(f"scale{i}", gates)
        for task, head in network.heads.items():
            assert isinstance(head, PaperHead | LightHead)
            yield from _observed_head(task, head)


def _observed_gates(scale: str, gates: CrossTaskGates | OpenGates) -> Iterator[tuple[nn.Module, _Naming]]:
    def mixed(inputs: Sequence[Tensor], output: Sequence[Tensor]) -> Stages:
        feature, tokens = inputs
        named = {f"{scale}.{name}": x for name, x in zip(("gates", "tokens", "affinity"), output, strict=True)}
        if isinstance(gates, OpenGates):
            return {f"{scale}.own_gates": named[f"{scale}.gates"]} | named
        own = gates.own_gates(gates.depth_wise(feature), gates.tokens_here(tokens))
        return {f"{scale}.own_gates": own} | named

    yield gates, mixed


def _observed_head(task: str, head: PaperHead | LightHead) -> Iterator[tuple[nn.Module, _Naming]]:
    yield head, lambda inputs, _: {f"{task}.gated{i}": x for i, x in enumerate(inputs[0], 1)}
    yield head.attention, lambda inputs, _: {f"{task}.global_token": inputs[1]}
    decoder = head.decoder
    if head.fine_tokens is None or not isinstance(decoder, TokenDecoder | LightDecoder):
        return  # a plain classifier decodes
    tokens = head.last_tokens if isinstance(head, LightHead) else head.fine_tokens
    yield tokens, _output(f"{task}.fine_tokens")
    yield decoder.maps, _output(f"{task}.class_maps")
    yield decoder, lambda inputs, _: {f"{task}.token_maps": decoder.scores(*inputs)}


def _output(name: str) -> _Naming:
    return lambda _, output: {name: output[-1] if isinstance(output, tuple) else output}
