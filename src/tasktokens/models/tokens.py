"""The tokens of Hierarchical Task Tokens (Zhang et al., arXiv 2411.18823, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasktokens.models.layers import conv_block, token_scores, upsample


class CrossTaskGates(nn.Module):
    """Global tokens at one scale: task gates on the feature map, mixed across tasks by the tokens' affinity.

    The method mixes T gated feature maps, ``sum_s A_ts (F * a_s)``; here the T one-channel gates are mixed instead,
    which is the same function: ``F * (sum_s A_ts a_s)``.

    Args:
        tasks: T.
        token_channels: width of the stored tokens.
        channels: C of this scale.
        scaled: divide gate scores by sqrt(C), so that they start near 0.5 for any width; the paper does not.
        image_affinity: how much a task takes of another depends on the image: on what each task's gate lets through.
            The paper's affinity depends on the stored tokens alone.
    """

    def __init__(
        self, tasks: int, token_channels: int, channels: int, scaled: bool, image_affinity: bool = False
    ) -> None:
        super().__init__()
        self.project = nn.Parameter(torch.randn(tasks, token_channels, channels) * token_channels**-0.5)
        self.depth_wise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.factor = channels**-0.5 if scaled else 1.0
        self.seen: nn.Sequential | None = None
        if image_affinity:
            project = nn.Linear(channels, channels)
            nn.init.zeros_(project.weight)  # starts as an affinity that no image changes
            self.seen = nn.Sequential(nn.LayerNorm(channels), project)

    def forward(self, feature_BCHW: Tensor, tokens_TC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns mixed gates (B, T, H, W) in [0, 1], mixed tokens (B, T, C) and the affinity (B, T, T)."""
        tokens = self.tokens_here(tokens_TC)
        spread = self.depth_wise(feature_BCHW)
        gates = self.own_gates(spread, tokens)
        tokens_BTC = tokens.expand(len(feature_BCHW), -1, -1)
        about_BTC = tokens_BTC if self.seen is None else tokens_BTC + self.seen(_gated_mean(spread, gates))
        logits = self.query(about_BTC) @ self.key(about_BTC).mT * tokens.shape[1] ** -0.5
        affinity = logits.softmax(dim=-1)
        return token_scores(gates, affinity), affinity @ tokens_BTC, affinity

    def tokens_here(self, tokens_TC: Tensor) -> Tensor:
        """The stored tokens projected to this scale, (T, C)."""
        return torch.einsum("tc,tcd->td", tokens_TC, self.project)

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
        tasks, (batch, channels, height, width) = len(tokens_TC), feature_BCHW.shape
        gates = feature_BCHW.new_ones(()).expand(batch, tasks, height, width)
        affinity = torch.eye(tasks, device=tokens_TC.device).expand(batch, -1, -1)
        return gates, tokens_TC.new_zeros(()).expand(batch, tasks, channels), affinity


class TokenAttention(nn.Module):
    """Self-attention over a task's feature, reduced by 2, and its global token (section 3.2).

    Returns the refined feature (B, D, H, W) and the token conditioned on the image (B, D). Nothing is averaged over
    the batch: what an image gets does not depend on its companions.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.reduce = nn.Conv2d(width, width, 3, stride=2, padding=1, groups=width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.refine = conv_block(width, width)

    def forward(self, feature_BDHW: Tensor, token_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Feature (B, D, H, W) and token (B, D) to the refined feature and token of the same shapes."""
        reduced = self.reduce(feature_BDHW)
        height, width = reduced.shape[-2:]
        sequence_BND = torch.cat([reduced.flatten(2).transpose(1, 2), token_BD[:, None]], dim=1)
        q, k, v = self.qkv(sequence_BND).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        mixed_BND = self.out(mixed)
        spatial = mixed_BND[:, :-1].transpose(1, 2).unflatten(2, (height, width))
        refined = self.refine(feature_BDHW + upsample(spatial, feature_BDHW.shape[-2:]))
        return refined, mixed_BND[:, -1]


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

    def __init__(self, count: int, width: int, hidden: int = 128) -> None:
        super().__init__()
        self.index = nn.Parameter(torch.randn(count, width))
        self.mix = nn.Sequential(
            nn.Linear(count, hidden), nn.LayerNorm(hidden), nn.GELU(),
            nn.Linear(hidden, hidden), nn.LayerNorm(hidden), nn.GELU(),
            nn.Linear(hidden, count),
        )  # fmt: skip

    def forward(self, token_BD: Tensor) -> Tensor:
        """(B, D) to (B, K, D)."""
        embedded_BKD = token_BD[:, None] + self.index
        mixed: Tensor = self.mix(embedded_BKD.transpose(1, 2)).transpose(1, 2)
        return mixed


class TokenDecoder(nn.Module):
    """Dense interaction: class scores of the fine-grained tokens weigh the class maps (section 3.3).

    ``logits = Conv3x3(Conv1x1(f) * softplus(<f, E_k>))`` at the feature's size. The scores are one matmul over the
    channels, never a (K, B, C, H, W) product.
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.maps = nn.Conv2d(width, count, 1)
        self.out = nn.Conv2d(count, count, 3, padding=1)

    def forward(self, feature_BDHW: Tensor, tokens_BKD: Tensor) -> Tensor:
        """Feature (B, D, H, W) and tokens (B, K, D) to logits (B, K, H, W)."""
        logits: Tensor = self.out(self.maps(feature_BDHW) * self.scores(feature_BDHW, tokens_BKD))
        return logits

    def scores(self, feature_BDHW: Tensor, tokens_BKD: Tensor) -> Tensor:
        """The token maps (B, K, H, W): how far each position agrees with each token, above 0."""
        return F.softplus(token_scores(feature_BDHW, tokens_BKD))
