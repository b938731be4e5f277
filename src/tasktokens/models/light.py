"""Blocks of the default variant's heads: what those of the paper compute, at a fraction of the cost.

Maps stay in channels-last layout. The coarser scales are added up and given context at stride 8, and enlarged once; the
attention sees a grid of bounded size, so that a head's cost is linear in the pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasktokens.models.layers import Design, upsample
from tasktokens.models.outputs import TaskOutput
from tasktokens.models.token_exchange import TokenUpdate
from tasktokens.models.tokens import ConfidenceToken, FineTokens

ATTENDED = 192
"""Most positions that attend to each other: stride 24 of an image of 288x384, stride 8 up to 96x128."""


class Pointwise(nn.Conv2d):
    """A 1x1 convolution of a map in channels-last layout as one matrix product; on a CPU core a fifth faster."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, 1, bias=bias)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W), channels last."""
        return F.linear(x_BCHW.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


def pointwise_block(inputs: int, outputs: int) -> nn.Sequential:
    """1x1 convolution, batch norm, ReLU."""
    return nn.Sequential(Pointwise(inputs, outputs, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def depthwise(channels: int, dilation: int = 1) -> nn.Conv2d:
    """3x3 convolution of each channel by itself."""
    return nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, groups=channels, bias=False)


class TwoLevelFusion(nn.Module):
    """Scales projected by 1x1 convolutions and added up at two sizes: the finest scale's, and half of it.

    A scale is added at the size that it is nearer to, so nothing coarse is enlarged to stride 4 more than once.
    """

    def __init__(self, channels: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.project = nn.ModuleList([Pointwise(c, outputs, bias=i == 0) for i, c in enumerate(channels)])

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Features (B, C_i, H_i, W_i), finest first.

        Returns:
            What is finer than half the finest size, (B, outputs, H_1, W_1), and all scales at half of it, rounded up.
        """
        fine, *others = [project(x) for project, x in zip(self.project, features, strict=True)]
        size = fine.shape[-2:]
        half = [(side + 1) // 2 for side in size]
        coarse = [x for x in others if x.shape[-2] <= half[0]]
        for x in others[: len(others) - len(coarse)]:  # a vision transformer's maps have one size
            fine = fine + upsample(x, size)
        total = F.avg_pool2d(fine, 2, ceil_mode=True)
        for x in coarse:
            total = total + upsample(x, half)
        return fine, total


class Context(nn.Module):
    """Dilated depth-wise convolutions and the image's mean, added to the input.

    No batch norm of the mean: a single image has one value per channel there, which has no variance.
    """

    def __init__(self, channels: int, rates: Sequence[int] = (1, 2, 4)) -> None:
        super().__init__()
        self.branches = nn.ModuleList([depthwise(channels, rate) for rate in rates])
        self.pool = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels, bias=False))
        self.project = Pointwise(channels, channels, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        first, *others = [branch(x_BCHW) for branch in self.branches]
        for other in others:
            first = first + other
        near = self.norm(self.project(first))
        whole_BC11 = self.pool(x_BCHW.mean(dim=(2, 3)))[..., None, None]
        return x_BCHW + F.relu(near + whole_BC11)


class PooledAttention(nn.Module):
    """Self-attention over a task's feature, pooled to at most `ATTENDED` positions, and its global token.

    In the paper (section 3.2) all positions attend to each other, which grows with the square of the pixels. Nothing is
    averaged over the batch: what an image gets does not depend on its companions. The output starts at 0, so that a
    fresh network reads the feature as it is: with few images a random one is learned by heart (docs/dev/lab-log.md).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, feature_BDHW: Tensor, token_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Feature (B, D, H, W) and token (B, D) to the refined feature and token of the same shapes."""
        size = feature_BDHW.shape[-2:]
        pooled = pool_to(feature_BDHW, ATTENDED)
        sequence_BND = torch.cat([pooled.flatten(2).mT, token_BD[:, None]], dim=1)
        q, k, v = self.qkv(self.norm(sequence_BND)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed_BND = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        spatial = mixed_BND[:, :-1].mT.unflatten(2, pooled.shape[-2:])
        return feature_BDHW + upsample(spatial, size), mixed_BND[:, -1]


def pool_to(x_BCHW: Tensor, most: int) -> Tensor:
    """Means over squares, the smallest of which no more than about ``most`` cover the map: (B, C, h, w).

    While a network is exported, height and width are no numbers, as a kernel of `F.avg_pool2d` has to be: the means are
    then matrix products.

    Examples:
        >>> pool_to(torch.arange(10.0).view(1, 1, 2, 5), most=3)
        tensor([[[[3.0000, 5.0000, 6.5000]]]])
    """
    height, width = x_BCHW.shape[-2:]
    if type(height) is int and type(width) is int:
        stride = max(1, math.ceil(math.sqrt(height * width / most)))
        return F.avg_pool2d(x_BCHW, stride, ceil_mode=True) if stride > 1 else x_BCHW
    area: Any = height * width / most
    side: Any
    if isinstance(area, Tensor):  # of a traced shape
        side = area.sqrt().ceil().clamp(min=1).long()
    else:
        side = torch.sym_max(1, math.ceil(torch.sym_sqrt(area)))
    return _means(height, side) @ x_BCHW @ _means(width, side).mT


def _means(length: int, stride: int) -> Tensor:
    """The matrix (ceil(length / stride), length) that averages each run of ``stride`` positions, the last as it is."""
    cell = torch.arange(length) // stride
    inside = (torch.arange((length + stride - 1) // stride)[:, None] == cell).float()
    return inside / inside.sum(dim=1, keepdim=True)


class LightDecoder(nn.Module):
    """`TokenDecoder` with class scores divided by sqrt(D), which starts as the identity: as a classifier of pixels."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.maps = Pointwise(width, count)
        near, mixed = nn.Conv2d(count, count, 3, padding=1, groups=count, bias=False), Pointwise(count, count)
        nn.init.dirac_(near.weight, groups=count)
        nn.init.dirac_(mixed.weight)
        self.out = nn.Sequential(near, mixed)
        self.factor = width**-0.5

    def forward(self, feature_BDHW: Tensor, tokens_BKD: Tensor) -> Tensor:
        """Feature (B, D, H, W) and tokens (B, K, D) to logits (B, K, H, W)."""
        logits: Tensor = self.out(self.maps(feature_BDHW) * self.scores(feature_BDHW, tokens_BKD))
        return logits

    def scores(self, feature_BDHW: Tensor, tokens_BKD: Tensor) -> Tensor:
        """The token maps (B, K, H, W): how far each position agrees with each token, above 0."""
        return softplus(scores(feature_BDHW, tokens_BKD * self.factor))


class LightHead(nn.Module):
    """One task of the ``htt`` variant, from its gated feature maps and refined global token to logits.

    The token starts as the global one; what the image adds comes in as far as it proves useful, for with few labels it
    is learned by heart: it held the scale of each training image's depth.
    """

    def __init__(self, count: int, channels: list[int], design: Design) -> None:
        super().__init__()
        self.token = nn.ModuleList([nn.Linear(c, design.width) for c in channels])
        self.fusion = TwoLevelFusion(channels, design.fused)
        self.context = Context(design.fused)
        self.mix = nn.Sequential(depthwise(design.fused), *pointwise_block(design.fused, design.width))
        self.attention = PooledAttention(design.width, design.heads)
        self.refine = nn.Sequential(depthwise(design.width), *pointwise_block(design.width, design.width))
        self.image_part = nn.Parameter(torch.zeros(design.width))
        self.fine_tokens = FineTokens(count, design.width) if design.fine_tokens else None
        self.decoder = LightDecoder(count, design.width) if design.fine_tokens else nn.Conv2d(design.width, count, 1)
        self.confidence = ConfidenceToken(design.width)
        self.update = nn.ModuleList([TokenUpdate(design.width) for _ in range(design.token_update)])
        self.last_tokens = nn.Identity()  # where they can be looked at and exchanged, whatever has updated them
        self.factor = design.width**-0.5

    def forward(self, features: list[Tensor], tokens: list[Tensor]) -> TaskOutput:
        """Gated features (B, C_i, H_i, W_i) and the task's mixed global tokens (B, C_i), one per scale."""
        feature, token, fine_tokens = self.encode(features, tokens)
        return self.decode(feature, token, fine_tokens)

    def encode(self, features: list[Tensor], tokens: list[Tensor]) -> tuple[Tensor, Tensor, Tensor | None]:
        """To the task's feature (B, D, H, W), its token (B, D) and, unless they are off, fine tokens (B, K, D)."""
        token_BD = torch.stack([project(token) for project, token in zip(self.token, tokens, strict=True)]).sum(0)
        fine, coarse = self.fusion(features)
        mixed = self.mix(fine + upsample(self.context(coarse), fine.shape[-2:]))
        attended, of_image_BD = self.attention(mixed, token_BD)
        feature = self.refine(attended)
        token = token_BD + self.image_part * of_image_BD
        if self.fine_tokens is None:
            return feature, token, None
        tokens_BKD = self.fine_tokens(token)
        for update in self.update:
            tokens_BKD = update(tokens_BKD, feature, self.decoder(feature, tokens_BKD))
        return feature, token, tokens_BKD

    def decode(self, feature: Tensor, token: Tensor, fine_tokens: Tensor | None) -> TaskOutput:
        """What `encode` gives, to logits and confidence."""
        if fine_tokens is None:
            logits = self.decoder(feature)
        else:
            logits = self.decoder(feature, self.last_tokens(fine_tokens))
        confidence = scores(feature.detach(), self.confidence(token) * self.factor)
        return TaskOutput(logits.float(), feature, confidence.float(), token)


def scores(feature_BDHW: Tensor, tokens_BKD: Tensor) -> Tensor:
    """Inner products of every position with each of an image's K tokens: (B, K, H, W), channels last."""
    positions_BND = feature_BDHW.flatten(2).mT
    return (positions_BND @ tokens_BKD.mT).mT.view(*tokens_BKD.shape[:2], *feature_BDHW.shape[-2:])


def softplus(x: Tensor) -> Tensor:
    """``log(1 + exp(x))`` up to 80, where it ends; `F.softplus` takes five times as long on a CPU.

    Below -16 the value is 0, as float32 has it; the gradient is exact.

    Examples:
        >>> softplus(torch.tensor([-100.0, 0.0, 60.0])).tolist()
        [0.0, 0.6931471824645996, 60.0]
    """
    return x.clamp(max=80).exp().add(1).log()
