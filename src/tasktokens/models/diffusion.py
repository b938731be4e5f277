"""DiffusionMTL: preliminary predictions or features are noised and denoised, conditioned on those of all tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasktokens.models.backbones import Backbone
from tasktokens.models.layers import Design, conv_block, separable_block, upsample
from tasktokens.models.mtl import BaselineHead
from tasktokens.models.outputs import NETWORKS, Network, Rows, TaskOutput, index_rows
from tasktokens.tasks import Task

STEPS, BETAS = 2, (1e-3, 1e-2)
"""Steps of the diffusion, and the first and last of their linearly growing variances, as published."""
_POOL = 4


class MapNoise(Protocol):
    """Noise of the images of a batch."""

    def normal(self, kind: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Standard normal numbers (B, *shape), others for every ``kind``."""


@dataclass(frozen=True)
class DiffusedOutput(TaskOutput):
    """The output after denoising, with the logits (n, K, h, w) before it, which training supervises too."""

    preliminary: Tensor | None = None
    """(n, K, h, w), logits of the preliminary head, before anything was denoised."""


class DiffusionNetwork(Network):
    """Shared backbone and preliminary heads; a denoiser and a last classifier per task.

    The predictions of all tasks, without gradient, are the condition of every denoiser. Noise is added in training
    alone: to a prediction the denoiser gets the mean of what it got there, so that a prediction depends on nothing but
    its image.

    Args:
        tasks: by name. backbone: four feature maps. design: sizes.
    """

    level: ClassVar[Literal["feature", "prediction"]]
    """What is noised and denoised."""

    def __init__(self, tasks: Mapping[str, Task], backbone: Backbone, design: Design) -> None:
        super().__init__(tasks)
        self.backbone = backbone
        width, all_maps = design.width, sum(task.map_channels for task in tasks.values())
        self.heads = nn.ModuleDict(
            {name: BaselineHead(task.num_tokens, backbone.channels, design) for name, task in tasks.items()}
        )
        self.condition = nn.Sequential(conv_block(all_maps, width), conv_block(width, width))
        inputs = {name: width if self.level == "feature" else task.map_channels for name, task in tasks.items()}
        self.denoisers = nn.ModuleDict({name: Denoiser(inputs[name], design) for name in tasks})
        self.out = nn.ModuleDict({name: nn.Conv2d(width, task.num_tokens, 1) for name, task in tasks.items()})

    def forward(
        self, image_B3HW: Tensor, rows: Rows | None = None, noise: MapNoise | None = None
    ) -> dict[str, TaskOutput]:
        """As `Network.forward`. The preliminary heads see all images, since each task's denoiser needs them all.

        Args:
            image_B3HW, rows: as there.
            noise: of these images; None: no noise is added.
        """
        features = self.backbone(image_B3HW)
        first = {name: head(features) for name, head in self.heads.items()}
        maps = {name: task.prediction_map(first[name].logits) for name, task in self.tasks.items()}
        condition = self.condition(torch.cat([x.detach() for x in maps.values()], dim=1))
        outputs: dict[str, TaskOutput] = {}
        for number, name in enumerate(self.tasks):
            chosen = None if rows is None else rows[name]
            clean = index_rows(first[name].feature if self.level == "feature" else maps[name], chosen)
            added = None
            if noise is not None:
                added = index_rows(noise.normal(number, tuple(clean.shape[1:]), clean.device), chosen).to(clean.dtype)
            logits, feature = self._denoise(name, clean, added, index_rows(condition, chosen))
            outputs[name] = DiffusedOutput(logits, feature, preliminary=index_rows(first[name].logits, chosen))
        return outputs

    def _denoise(self, name: str, clean: Tensor, noise: Tensor | None, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and feature after all steps; every step predicts the clean map, and DDIM (2021) goes one back."""
        kept = kept_shares()
        x = math.sqrt(kept[-1]) * clean
        if noise is not None:
            x = x + math.sqrt(1 - kept[-1]) * noise
        for step in reversed(range(STEPS)):
            feature = self.denoisers[name](x, condition, step)
            logits = self.out[name](feature).float()
            if step == 0:
                break
            found = feature if self.level == "feature" else self.tasks[name].prediction_map(logits)
            left = (x - math.sqrt(kept[step]) * found) / math.sqrt(1 - kept[step])
            x = math.sqrt(kept[step - 1]) * found + math.sqrt(1 - kept[step - 1]) * left
        return logits, feature


@NETWORKS.register("diffusion_feature")
class FeatureDiffusion(DiffusionNetwork):
    """DiffusionMTL (CVPR 2024) on each task's feature."""

    level: ClassVar[Literal["feature", "prediction"]] = "feature"
    """What is noised and denoised."""


@NETWORKS.register("diffusion_prediction")
class PredictionDiffusion(DiffusionNetwork):
    """DiffusionMTL (CVPR 2024) on each task's predicted map."""

    level: ClassVar[Literal["feature", "prediction"]] = "prediction"
    """What is noised and denoised."""


def kept_shares() -> list[float]:
    """The share of a map's variance that is kept after 1, 2, ... steps.

    Examples:
        >>> [round(share, 5) for share in kept_shares()]
        [0.999, 0.98901]
    """
    shares, kept = [], 1.0
    for step in range(STEPS):
        kept *= 1 - (BETAS[0] + (BETAS[1] - BETAS[0]) * step / (STEPS - 1))
        shares.append(kept)
    return shares


class Denoiser(nn.Module):
    """Four blocks of cross-attention: queries from the condition, keys and values from the noisy map and the step.

    Attention is at a quarter of the map's size; what it finds is added to the map at full size.
    """

    def __init__(self, inputs: int, design: Design, blocks: int = 4) -> None:
        super().__init__()
        width = design.width
        self.embed = nn.Conv2d(inputs, width, 3, padding=1)
        self.step = nn.Parameter(torch.randn(STEPS, width) * width**-0.5)
        self.blocks = nn.ModuleList([CrossAttention(width, design.heads) for _ in range(blocks)])
        self.refine = (separable_block if design.light else conv_block)(width, width)

    def forward(self, noisy_BCHW: Tensor, condition_BDHW: Tensor, step: int) -> Tensor:
        """Noisy map (B, C, H, W), condition (B, D, H, W) and the step's number from 0 to a feature (B, D, H, W)."""
        embedded = self.embed(noisy_BCHW) + self.step[step][:, None, None]
        small, query = (F.avg_pool2d(x, _POOL, ceil_mode=True) for x in (embedded, condition_BDHW))
        keys, tokens = small.flatten(2).mT, query.flatten(2).mT
        for block in self.blocks:
            tokens = block(tokens, keys)
        found = tokens.mT.reshape(query.shape)
        refined: Tensor = self.refine(embedded + upsample(found, embedded.shape[-2:]))
        return refined


class CrossAttention(nn.Module):
    """Attention from some tokens to others, then an MLP; both with layer norm before and a residual connection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.norm_keys, self.norm_mlp = (nn.LayerNorm(width) for _ in range(3))
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens_BND: Tensor, keys_BMD: Tensor, bias_BNM: Tensor | None = None) -> Tensor:
        """Tokens (B, N, D) that ask (B, M, D) ones; ``bias_BNM`` is added to the scores. Returns (B, N, D)."""
        q = self.query(self.norm(tokens_BND)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        pair = self.key_value(self.norm_keys(keys_BMD)).unflatten(-1, (2, self.heads, -1))
        k, v = pair.permute(2, 0, 3, 1, 4)
        bias = None if bias_BNM is None else bias_BNM[:, None].to(q.dtype)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2)
        tokens = tokens_BND + self.out(mixed)
        result: Tensor = tokens + self.mlp(self.norm_mlp(tokens))
        return result
