"""The head of the ``paper`` variant: one task from gated features to logits, to the letter of the release.

Source: Zhang et al., arXiv 2411.18823, section 3, with what the released settings say of its parts. Left out is what
cannot be meant: an average of tokens over the batch, and dropout before the feature that is distilled.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasktokens.models.layers import Design, Fusion, context_block, conv_block, token_scores, upsample
from tasktokens.models.outputs import TaskOutput
from tasktokens.models.tokens import ConfidenceToken, index_mixer


class PaperHead(nn.Module):
    """One task of the paper's network, from its gated feature maps and refined global token to logits."""

    def __init__(self, count: int, channels: list[int], design: Design) -> None:
        super().__init__()
        self.scales = nn.ModuleList([conv_block(c, c) for c in channels])
        self.token = nn.ModuleList([nn.Linear(c, design.width) for c in channels])
        self.fusion = Fusion(channels, design.fused)
        self.context = context_block(design)
        self.attention = TokenAttention(design.width, design.heads)
        self.fine_tokens = PaperFineTokens(count, design.width) if design.fine_tokens else None
        self.decoder = TokenDecoder(count, design.width) if design.fine_tokens else nn.Conv2d(design.width, count, 1)
        self.confidence = ConfidenceToken(design.width)

    def forward(self, features: list[Tensor], tokens: list[Tensor]) -> TaskOutput:
        """Gated features (B, C_i, H_i, W_i) and the task's mixed global tokens (B, C_i), one per scale."""
        token_BD = torch.stack([project(token) for project, token in zip(self.token, tokens, strict=True)]).sum(0)
        fused = self.fusion([scale(x) for scale, x in zip(self.scales, features, strict=True)])
        feature, token = self.attention(self.context(fused), token_BD)
        logits = self.decoder(feature) if self.fine_tokens is None else self.decoder(feature, self.fine_tokens(token))
        confidence = token_scores(feature.detach(), self.confidence(token))
        return TaskOutput(logits.float(), feature, confidence.float(), token)


class TokenAttention(nn.Module):
    """Self-attention over a task's feature, reduced by 2, and its global token (section 3.2).

    Queries, keys and values each have a reduction and a projection of their own, feature and token each their own
    projection of what comes out. Returns the refined feature (B, D, H, W) and the token conditioned on the image
    (B, D). Nothing is averaged over the batch: what an image gets does not depend on its companions.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.reduce = nn.ModuleDict({name: nn.Conv2d(width, width, 2, 2, groups=width) for name in ("q", "k", "v")})
        self.project = nn.ModuleDict({name: nn.Linear(width, width) for name in ("q", "k", "v")})
        self.of_feature = nn.Linear(width, width)
        self.of_token = nn.Linear(width, width)
        self.refine = conv_block(width, width)

    def forward(self, feature_BDHW: Tensor, token_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Feature (B, D, H, W) and token (B, D) to the refined feature and token of the same shapes."""
        height, width = feature_BDHW.shape[-2:]
        even = F.pad(feature_BDHW, (0, width % 2, 0, height % 2), mode="replicate")
        q, k, v = (self._sequence(name, even, token_BD) for name in ("q", "k", "v"))
        mixed_BND = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        spatial = self.of_feature(mixed_BND[:, :-1]).mT.unflatten(2, (even.shape[2] // 2, even.shape[3] // 2))
        refined = self.refine(feature_BDHW + upsample(spatial, (height, width)))
        return refined, self.of_token(mixed_BND[:, -1])

    def _sequence(self, name: str, feature_BDHW: Tensor, token_BD: Tensor) -> Tensor:
        """Queries, keys or values of the reduced positions and the token: (B, heads, N + 1, D / heads)."""
        reduced = self.reduce[name](feature_BDHW).flatten(2).mT
        projected: Tensor = self.project[name](torch.cat([reduced, token_BD[:, None]], dim=1))
        batch, length, width = projected.shape
        return projected.view(batch, length, self.heads, width // self.heads).transpose(1, 2)


class PaperFineTokens(nn.Module):
    """K fine-grained tokens of a task from its image-conditioned token (section 3.3): (B, D) to (B, K, D).

    The index k enters as a linear layer on one-hot k, whose Xavier initialisation is small beside the token: about 0.09
    for 13 to 40 tokens of width 256.
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.index = nn.Linear(count, width)
        self.mix = index_mixer(count)

    def forward(self, token_BD: Tensor) -> Tensor:
        """(B, D) to (B, K, D)."""
        index_KD = self.index.weight.mT + self.index.bias  # the layer on each one-hot vector
        mixed: Tensor = self.mix((token_BD[:, None] + index_KD).mT).mT
        return mixed


class TokenDecoder(nn.Module):
    """Dense interaction: class scores of the fine-grained tokens weigh the class maps (section 3.3).

    ``logits = Conv3x3(Conv1x1(f) * softplus(<depthwise(f), E_k>))`` at the feature's size. The scores are one matmul
    over the channels, never a (K, B, C, H, W) product.
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.maps = nn.Conv2d(width, count, 1)
        self.depth_wise = nn.Conv2d(width, width, 1, groups=width)
        self.out = nn.Conv2d(count, count, 3, padding=1)

    def forward(self, feature_BDHW: Tensor, tokens_BKD: Tensor) -> Tensor:
        """Feature (B, D, H, W) and tokens (B, K, D) to logits (B, K, H, W)."""
        logits: Tensor = self.out(self.maps(feature_BDHW) * self.scores(feature_BDHW, tokens_BKD))
        return logits

    def scores(self, feature_BDHW: Tensor, tokens_BKD: Tensor) -> Tensor:
        """The token maps (B, K, H, W): how far each position agrees with each token, above 0."""
        return F.softplus(token_scores(self.depth_wise(feature_BDHW), tokens_BKD))
