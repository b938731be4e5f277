"""Networks; they know nothing of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from tasktokens.config import ModelSettings
from tasktokens.models.backbones import Backbone
from tasktokens.models.layers import Design
from tasktokens.models.outputs import NETWORKS, Network, Rows, TaskOutput, at_least_one, head_rows
from tasktokens.tasks import Task

__all__ = ["DESIGNS", "NETWORKS", "Network", "Rows", "TaskOutput", "at_least_one", "build_network", "head_rows"]

DESIGNS = {
    "htt": Design(width=64, fused=64, light=True, heads=4, image_affinity=True),
    "paper": Design(width=256, fused=512, light=False, heads=1),
}
"""Design of each ``variant``: ours, and that of the paper (Zhang et al., arXiv 2411.18823)."""


def build_network(kind: str, tasks: Mapping[str, Task], settings: ModelSettings, load_weights: bool = True) -> Network:
    """Build a network of a kind in `NETWORKS`; without ``load_weights`` the backbone starts at random."""
    design = DESIGNS[settings.variant]
    if settings.width is not None:
        design = replace(design, width=settings.width, fused=settings.width * design.fused // design.width)
    parts: dict[str, Any] = {name: getattr(settings, name) for name in ("global_tokens", "multi_scale", "fine_tokens")}
    if settings.image_affinity is not None:
        parts["image_affinity"] = settings.image_affinity
    design = replace(design, **parts, **dict(settings.htt))
    pretrained, weights = (settings.pretrained, settings.weights) if load_weights else (False, None)
    backbone = Backbone(settings.backbone, pretrained, weights)
    network = NETWORKS[kind](tasks, backbone, design)
    # A quarter less time per training step on a CPU, measured; GPUs prefer it in half precision.
    return network.to(memory_format=torch.channels_last)
