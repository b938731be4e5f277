"""The tokens of Hierarchical Task Tokens (Zhang et al., arXiv 2411.18823, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasktokens.models.layers import token_scores
from tasktokens.models.token_exchange import ChannelModulation


class CrossTaskGates(nn.Module):
    """Global tokens at one scale: task gates on the feature map, mixed across tasks by the tokens' affinity.

    The method mixes T gated feature maps, ``sum_s A_ts (F * a_s)``; here the T one-channel gates are mixed instead,
    which is the same function: ``F * (sum_s A_ts a_s)``.

    Args:
        tasks: T.
        token_channels: width of the stored tokens.
        channels: C of this scale.
        light: divide gate scores by sqrt(C), so that they start near 0.5 for any width, after a depth-wise 3x3
            convolution; the paper divides by nothing, and its convolution is 1x1.
        image_affinity: how much a task takes of another depends on the image: on what each task's gate lets through.
            The paper's affinity depends on the stored tokens alone.
        exchange: ``affinity``; ``none``: nothing is mixed; ``modulation``: nor here, but each task has a factor for
            each channel too (`modulation`).
    """

    def __init__(
        self,
        tasks: int,
        token_channels: int,
        channels: int,
        light: bool,
        image_affinity: bool = False,
        exchange: str = "affinity",
    ) -> None:
        super().__init__()
        spread = token_channels**-0.5 if light else (2 / (token_channels + channels)) ** 0.5  # Xavier
        self.project = nn.Parameter(torch.randn(tasks, token_channels, channels) * spread)
        kernel = 3 if light else 1
        self.depth_wise = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.mixes = exchange == "affinity"
        if self.mixes:
            self.query = nn.Linear(channels, channels)
            self.key = nn.Linear(channels, channels)
        self.modulation = ChannelModulation(channels) if exchange == "modulation" else None
        self.factor = channels**-0.5 if light else 1.0
        self.seen: nn.Sequential | None = None
        if image_affinity and self.mixes:
            project = nn.Linear(channels, channels)
            nn.init.zeros_(project.weight)  # starts as an affinity that no image changes
            self.seen = nn.Sequential(nn.LayerNorm(channels), project)

    def forward(self, feature_BCHW: Tensor, tokens_TC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns mixed gates (B, T, H, W) in [0, 1], mixed tokens (B, T, C) and the affinity (B, T, T).

        The tokens are those of all images, (T, C), or of each, (B, T, C).
        """
        tokens = self.tokens_here(tokens_TC)
        spread = self.depth_wise(feature_BCHW)
        gates = self.own_gates(spread, tokens)
        tokens_BTC = tokens.expand(feature_BCHW.shape[0], -1, -1)
        if not self.mixes:
            return gates, tokens_BTC, torch.eye(gates.shape[1], device=gates.device).expand(gates.shape[0], -1, -1)
        about_BTC = tokens_BTC if self.seen is None else tokens_BTC + self.seen(_gated_mean(spread, gates))
        logits = self.query(about_BTC) @ self.key(about_BTC).mT * tokens.shape[-1] ** -0.5
        affinity = logits.softmax(dim=-1)
        return token_scores(gates, affinity), affinity @ tokens_BTC, affinity

    def tokens_here(self, tokens_TC: Tensor) -> Tensor:
        """The tokens projected to this scale, (T, C) or (B, T, C)."""
        equation = "tc,tcd->td" if tokens_TC.ndim == 2 else "btc,tcd->btd"
        return torch.einsum(equation, tokens_TC, self.project)

    def channel_factors(self, feature_BCHW: Tensor, gates_BTHW: Tensor, tokens_BTC: Tensor) -> Tensor | None:
        """For ``modulation`` factors (B, T, C) from 0 to 2 of what the gates let through; else None."""
        if self.modulation is None:
            return None
        factors: Tensor = self.modulation(_gated_mean(feature_BCHW, gates_BTHW), tokens_BTC)
        return factors

    def own_gates(self, depth_wise_BCHW: Tensor, tokens_TC: Tensor) -> Tensor:
        """Each task's own gate (B, T, H, W) in [0, 1], not mixed yet."""
        return torch.sigmoid(token_scores(depth_wise_BCHW, tokens_TC) * self.factor)


def _gated_mean(feature_BCHW: Tensor, gates_BTHW: Tensor) -> Tensor:
    """What each gate lets through, averaged over the image: (B, T, C)."""
    weights = gates_BTHW.flatten(2)
    total: Tensor = weights @ feature_BCHW.flatten(2).mT
    return total / weights.sum(dim=2, keepdim=True).clamp(min=1e-6)


class OpenGates(nn.Module):
    """In place of `CrossTaskGates` where global tokens are turned off: every gate is 1, no task mixes with another."""

    def forward(self, feature_BCHW: Tensor, tokens_TC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `CrossTaskGates.forward`, with mixed tokens of 0."""
        tasks, (batch, channels, height, width) = tokens_TC.shape[-2], feature_BCHW.shape
        gates = feature_BCHW.new_ones(()).expand(batch, tasks, height, width)
        affinity = torch.eye(tasks, device=tokens_TC.device).expand(batch, -1, -1)
        return gates, tokens_TC.new_zeros(()).expand(batch, tasks, channels), affinity

    def channel_factors(self, feature_BCHW: Tensor, gates_BTHW: Tensor, tokens_BTC: Tensor) -> None:
        """No factors."""


class ConfidenceToken(nn.Module):
    """A token (B, D) to the one (B, 1, D) whose inner products with the feature are the logits of the confidence.

    It starts as the token itself, as published. Neither it nor the feature that it meets passes a gradient on: "is the
    prediction right here?" must not bend what makes the prediction.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Parameter(torch.eye(width))

    def forward(self, token_BD: Tensor) -> Tensor:
        """(B, D) to (B, 1, D)."""
        return F.linear(token_BD.detach(), self.project)[:, None]


class FineTokens(nn.Module):
    """K fine-grained tokens of a task from its image-conditioned token (section 3.3): (B, D) to (B, K, D)."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.index = nn.Parameter(torch.randn(count, width))
        self.mix = index_mixer(count)

    def forward(self, token_BD: Tensor) -> Tensor:
        """(B, D) to (B, K, D)."""
        embedded_BKD = token_BD[:, None] + self.index
        mixed: Tensor = self.mix(embedded_BKD.transpose(1, 2)).transpose(1, 2)
        return mixed


def index_mixer(count: int, hidden: int = 128) -> nn.Sequential:
    """An MLP with two hidden layers over the index of K tokens: (..., K) to (..., K)."""
    return nn.Sequential(
        nn.Linear(count, hidden), nn.LayerNorm(hidden), nn.GELU(),
        nn.Linear(hidden, hidden), nn.LayerNorm(hidden), nn.GELU(),
        nn.Linear(hidden, count),
    )  # fmt: skip
