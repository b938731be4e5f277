"""Optimiser and learning-rate schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from tasktokens.config import OptimSettings
from tasktokens.models import Network
from tasktokens.models.backbones import freeze_backbones


def make_optimizer(
    network: Network, settings: OptimSettings, beside: Sequence[tuple[nn.Module, float]] = ()
) -> torch.optim.Optimizer:
    """Adam or AdamW; biases, norms and tokens are not decayed. With ``backbone_lr`` 0 the backbone is frozen here.

    Args:
        beside: modules that are trained beside the network, each with its factor of the learning rate.
    """
    if settings.backbone_lr == 0:
        freeze_backbones(network)
    groups: list[dict[str, Any]] = []
    for module, factor in beside:
        for decay in (True, False):
            chosen = [p for p in module.parameters() if (p.ndim > 1) == decay]
            groups.append({"params": chosen, "weight_decay": settings.weight_decay * decay, "factor": factor})
    tokens = {id(p) for name, p in network.named_parameters() if network.is_token(name)}
    factors = {"backbone": settings.backbone_lr, "tokens": settings.token_lr, "others": 1.0}
    for kind, parameters in network.parameter_groups().items():
        for decay in (True, False):
            chosen = [p for p in parameters if p.requires_grad and (p.ndim > 1 and id(p) not in tokens) == decay]
            groups.append({"params": chosen, "weight_decay": settings.weight_decay * decay, "factor": factors[kind]})
    kinds: Mapping[str, type[torch.optim.Optimizer]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return kinds[settings.name](groups, lr=settings.lr, fused=True)  # type: ignore[call-arg]


def set_lr(optimizer: torch.optim.Optimizer, settings: OptimSettings, step: int, steps: int) -> None:
    """Set the learning rates for step ``step`` (from 0) of ``steps``: linear warm-up, then polynomial decay."""
    factor = min(1.0, (step + 1) / (settings.warmup + 1)) * (1 - step / steps) ** settings.power
    for group in optimizer.param_groups:
        group["lr"] = settings.lr * factor * group["factor"]
