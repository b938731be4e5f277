"""Tokens that learn from the image and from each other; each module starts as the identity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TokenUpdate(nn.Module):
    """Fine-grained tokens updated by what each gathers from the feature where it is predicted.

    After K-Net (Zhang et al., NeurIPS 2021, https://arxiv.org/abs/2106.14855, section 3.2): the mean feature of the
    pixels of token k, by the softmax over the tokens' logits, meets the token in a gated update. The last projection
    starts at 0: a fresh module changes nothing.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.of_token = nn.Linear(width, width)
        self.of_feature = nn.Linear(width, width)
        self.gate = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.Sigmoid())
        self.value = nn.Linear(width, width)
        self.out = _zero(nn.Linear(width, width))

    def forward(self, tokens_BKD: Tensor, feature_BDHW: Tensor, logits_BKHW: Tensor) -> Tensor:
        """Tokens (B, K, D), the feature that they decode and the logits that they gave, to tokens (B, K, D)."""
        gathered_BKD = gather(feature_BDHW, logits_BKHW)
        gate = self.gate(self.of_token(tokens_BKD) * self.of_feature(gathered_BKD))
        updated: Tensor = tokens_BKD + self.out(gate * self.value(gathered_BKD))
        return updated


def gather(feature_BDHW: Tensor, logits_BKHW: Tensor) -> Tensor:
    """The mean feature of each token's pixels, weighted by the softmax over the K logits: (B, K, D).

    Examples:
        >>> feature = torch.tensor([[[[1.0, 3.0]]]])
        >>> gather(feature, torch.tensor([[[[99.0, 0.0]], [[0.0, 99.0]]]])).flatten().tolist()
        [1.0, 3.0]
    """
    weights_BKN = logits_BKHW.flatten(2).softmax(dim=1)
    total: Tensor = weights_BKN.to(feature_BDHW.dtype) @ feature_BDHW.flatten(2).mT
    return total / weights_BKN.sum(dim=2, keepdim=True).clamp(min=1e-6).to(total.dtype)


class TokenExchange(nn.Module):
    """Attention among the fine-grained tokens of all tasks of an image, each marked by its task.

    Args:
        counts: number of tokens of each task.
        width: D.
        heads: of the attention.
    """

    def __init__(self, counts: Sequence[int], width: int, heads: int) -> None:
        super().__init__()
        self.counts, self.heads = list(counts), heads
        self.task = nn.Parameter(torch.randn(len(self.counts), width) * width**-0.5)
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = _zero(nn.Linear(width, width))

    def forward(self, tokens: Sequence[Tensor]) -> list[Tensor]:
        """For each task tokens (B, K_t, D), to the same shapes."""
        mark_ND = torch.cat([mark.expand(count, -1) for mark, count in zip(self.task, self.counts, strict=True)])
        whole_BND = torch.cat(list(tokens), dim=1)
        batch, length, width = whole_BND.shape
        qkv = self.qkv(self.norm(whole_BND + mark_ND)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return list((whole_BND + self.out(mixed)).split(self.counts, dim=1))


class ChannelModulation(nn.Module):
    """A factor per task and channel of a feature map, from the task's token and what its gate lets through.

    All factors start as 1 and stay between 0 and 2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.factors = _zero(nn.Linear(2 * channels, channels))

    def forward(self, seen_BTC: Tensor, tokens_BTC: Tensor) -> Tensor:
        """The gates' mean features and the tokens at this scale, (B, T, C) each, to factors (B, T, C)."""
        return 2 * torch.sigmoid(self.factors(torch.cat([self.norm(seen_BTC), tokens_BTC], dim=2)))


class Prompts(nn.Module):
    """Global tokens that look at the deepest map, and a map that looks at them, by cross-attention.

    For backbones of convolutions, in whose last stage no token can run along. Both outputs start at 0.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(channels) for _ in range(2)])
        self.qkv = nn.ModuleList([nn.Linear(channels, 3 * channels) for _ in range(2)])
        self.out = nn.ModuleList([_zero(nn.Linear(channels, channels)) for _ in range(2)])

    def forward(self, map_BCHW: Tensor, tokens_TC: Tensor) -> tuple[Tensor, Tensor]:
        """The map (B, C, H, W) and the tokens (T, C), to a map and tokens (B, T, C) of this image."""
        batch = map_BCHW.shape[0]
        tokens_BTC = tokens_TC.expand(batch, -1, -1).clone()  # module hooks cannot follow a view of a parameter
        positions_BNC = map_BCHW.flatten(2).mT
        tokens_BTC = tokens_BTC + self._attend(0, tokens_BTC, positions_BNC)
        changed_BNC = positions_BNC + self._attend(1, positions_BNC, tokens_BTC)
        return changed_BNC.mT.reshape(map_BCHW.shape), tokens_BTC

    def _attend(self, which: int, asking: Tensor, asked: Tensor) -> Tensor:
        norm, qkv = self.norms[which], self.qkv[which]
        q, _, _ = _heads(qkv(norm(asking)), self.heads)
        _, k, v = _heads(qkv(norm(asked)), self.heads)
        mixed: Tensor = self.out[which](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return mixed


def _heads(qkv_BNE: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    batch, length, width = qkv_BNE.shape
    q, k, v = qkv_BNE.view(batch, length, 3, heads, width // (3 * heads)).permute(2, 0, 3, 1, 4)
    return q, k, v


def last_blocks(network: Any) -> list[nn.Module]:
    """The last quarter of a plain vision transformer's blocks, through which tokens can run; else nothing.

    Transformers that turn queries and keys by their place (rotary embedding) have none for tokens.
    """
    model = getattr(network, "model", None)
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.Sequential | nn.ModuleList) or getattr(model, "rope", None) is not None:
        return []
    plain = all(hasattr(block, "attn") and hasattr(block, "mlp") for block in blocks)
    return list(blocks)[len(blocks) * 3 // 4 :] if plain and hasattr(model, "patch_embed") else []


@contextmanager
def running_along(blocks: Sequence[nn.Module], tokens_TC: Tensor) -> Iterator[list[Tensor]]:
    """Within, tokens (T, C) run through transformer blocks beside the patches; the list then has them, (B, T, C)."""
    count, found = len(tokens_TC), list[Tensor]()

    def enter(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        x_BNC = inputs[0]
        return torch.cat([x_BNC, tokens_TC.to(x_BNC.dtype).expand(x_BNC.shape[0], -1, -1)], dim=1), *inputs[1:]

    def leave(module: nn.Module, inputs: Any, x_BNC: Tensor) -> Tensor:
        found[:] = [x_BNC[:, -count:]]
        return x_BNC[:, :-count]

    handles = [blocks[0].register_forward_pre_hook(enter), blocks[-1].register_forward_hook(leave)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
