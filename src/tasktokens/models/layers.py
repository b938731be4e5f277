"""Blocks that the networks share: convolutions, context, fusion of scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Design:
    """Sizes of what follows the backbone.

    Attributes:
        width: D, channels of the task features and tokens.
        fused: channels of a task's feature after the fusion of scales.
        light: depth-wise separable convolutions and context at half resolution, in place of full ones and ASPP.
        heads: attention heads.
        global_tokens: whether they gate the features and mix across tasks; without, every task reads all features.
        multi_scale: whether they do so at all four scales, or at the coarsest alone.
        fine_tokens: whether they decode; without, a linear classifier of pixels does.
        image_affinity: whether the affinity between tasks depends on the image.
        exchange: how tasks shape the features of each scale; see `HttParts`.
        token_update: rounds in which fine tokens are updated by what they gather from the feature.
        token_exchange: whether the fine tokens of all tasks attend to each other.
        prompt_tokens: whether the global tokens run through the backbone's last stage.
    """

    width: int
    fused: int
    light: bool
    heads: int
    global_tokens: bool = True
    multi_scale: bool = True
    fine_tokens: bool = True
    image_affinity: bool = False
    exchange: str = "affinity"
    token_update: int = 0
    token_exchange: bool = False
    prompt_tokens: bool = False


def conv_block(inputs: int, outputs: int, kernel: int = 3, dilation: int = 1) -> nn.Sequential:
    """Convolution of the same size, batch norm, ReLU."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def separable_block(inputs: int, outputs: int, dilation: int = 1) -> nn.Sequential:
    """Depth-wise 3x3, then a 1x1 block."""
    depth_wise = nn.Conv2d(inputs, inputs, 3, padding=dilation, dilation=dilation, groups=inputs, bias=False)
    return nn.Sequential(depth_wise, *conv_block(inputs, outputs, 1))


def token_scores(feature_BDHW: Tensor, tokens_KD: Tensor) -> Tensor:
    """Inner products of every position with K tokens, (K, D) or (B, K, D), as one matmul: (B, K, H, W)."""
    scores: Tensor = tokens_KD @ feature_BDHW.flatten(2)
    return scores.view(feature_BDHW.shape[0], tokens_KD.shape[-2], *feature_BDHW.shape[-2:])


def upsample(x_BCHW: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear resizing to (height, width)."""
    traced = isinstance(x_BCHW.shape[-1], Tensor)  # sizes are then tensors, and whether they are equal may change
    if not traced and tuple(x_BCHW.shape[-2:]) == tuple(size):
        return x_BCHW
    if x_BCHW.is_cuda:
        return upsample_by_matrices(x_BCHW, size)
    return F.interpolate(x_BCHW, tuple(size), mode="bilinear", align_corners=False)


def upsample_by_matrices(x_BCHW: Tensor, size: Sequence[int]) -> Tensor:
    """The same as two matrix products, in the precision of ``x`` also under autocast.

    On a GPU autocast has `F.interpolate` in fp32, and all that is added to its result; its backward pass adds
    atomically. Together they were a fifth of the GPU's time in a step of the second stage (docs/dev/lab-log.md).
    """
    (batch, channels, height, width), dtype, device = x_BCHW.shape, x_BCHW.dtype, x_BCHW.device
    with torch.autocast(device.type, enabled=False):
        rows = _interpolation(height, size[0], dtype, device).mT
        columns = _interpolation(width, size[1], dtype, device)
        if x_BCHW.stride(1) == 1:  # channels last
            x_BHWC = x_BCHW.permute(0, 2, 3, 1)
            y = rows.expand(batch, -1, -1) @ x_BHWC.reshape(batch, height, width * channels)
            y = columns.mT.expand(batch * size[0], -1, -1) @ y.view(batch * size[0], width, channels)
            return y.view(batch, *size, channels).permute(0, 3, 1, 2)
        y = x_BCHW.reshape(batch * channels * height, width) @ columns
        y = rows.expand(batch * channels, -1, -1) @ y.view(batch * channels, height, size[1])
        return y.view(batch, channels, *size)


@lru_cache(maxsize=128)
def _interpolation(before: int, after: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(before, after): what each position of a line gives to each of the resized one."""
    with torch.inference_mode(False), torch.no_grad():
        line = torch.eye(before, device=device)[None]
        return F.interpolate(line, after, mode="linear", align_corners=False)[0].to(dtype)


class ImagePool(nn.Module):
    """The image's mean feature, projected, at every position.

    No batch norm: a single image has one value per channel here, which has no variance.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W), constant over each image."""
        pooled: Tensor = F.relu(self.project(x_BCHW.mean(dim=(2, 3), keepdim=True)))
        return pooled.expand(-1, -1, *x_BCHW.shape[-2:])


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (DeepLab v3, Chen et al. 2017): 1x1, three dilated 3x3 and the image's mean."""

    def __init__(self, inputs: int, outputs: int, rates: Sequence[int] = (12, 24, 36)) -> None:
        super().__init__()
        branches = [conv_block(inputs, outputs, 1), *(conv_block(inputs, outputs, 3, rate) for rate in rates)]
        self.branches = nn.ModuleList([*branches, ImagePool(inputs, outputs)])
        self.project = conv_block(len(self.branches) * outputs, outputs, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W)."""
        out: Tensor = self.project(torch.cat([branch(x_BCHW) for branch in self.branches], dim=1))
        return out


class LightContext(nn.Module):
    """Dilated depth-wise convolutions and the image's mean at half resolution, added to the input."""

    def __init__(self, channels: int, rates: Sequence[int] = (1, 2, 4)) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [nn.Conv2d(channels, channels, 3, padding=r, dilation=r, groups=channels, bias=False) for r in rates]
        )
        self.pool = ImagePool(channels, channels)
        self.project = conv_block((len(self.branches) + 1) * channels, channels, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        half = F.avg_pool2d(x_BCHW, 2, ceil_mode=True)
        context = self.project(torch.cat([*(branch(half) for branch in self.branches), self.pool(half)], dim=1))
        return x_BCHW + upsample(context, x_BCHW.shape[-2:])


def context_block(design: Design) -> nn.Module:
    """From a task's fused feature to its feature of D channels."""
    if design.light:
        return nn.Sequential(LightContext(design.fused), separable_block(design.fused, design.width))
    return nn.Sequential(ASPP(design.fused, design.width), nn.Conv2d(design.width, design.width, 3, padding=1))


class Fusion(nn.Module):
    """A 1x1 convolution over the concatenated, upsampled scales, computed at each scale's own size.

    Bilinear upsampling and 1x1 convolutions commute, so projecting first and adding the upsampled results is the same
    function (method notes, rewrite 2) at a fraction of the cost.
    """

    def __init__(self, channels: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.project = nn.ModuleList([nn.Conv2d(c, outputs, 1, bias=i == 0) for i, c in enumerate(channels)])

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features (B, C_i, H_i, W_i), finest first, to (B, outputs, H_1, W_1)."""
        size = features[0].shape[-2:]
        parts = [upsample(project(x), size) for project, x in zip(self.project, features, strict=True)]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total


@torch.no_grad()
def init_as_published(*parts: nn.Module) -> None:
    """Xavier's normal initialisation of all convolutions and linear layers within, biases 0; what starts at 0 does so.

    A `Fusion` is drawn as the one convolution that it stands for.
    """
    for module in (module for part in parts for module in part.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear) and module.weight.any():
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                module.bias.zero_()
    for fusion in (module for part in parts for module in part.modules() if isinstance(module, Fusion)):
        parts_of_it = [project for project in fusion.project if isinstance(project, nn.Conv2d)]
        inputs = sum(project.in_channels for project in parts_of_it)
        for project in parts_of_it:
            project.weight.normal_(std=(2 / (inputs + project.out_channels)) ** 0.5)
