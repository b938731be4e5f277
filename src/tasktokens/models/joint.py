"""Networks that read labels and predictions: into a space that pairs of tasks share, or that all tasks share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasktokens.models.layers import conv_block, upsample


class ConditionedBlock(nn.Module):
    """3x3 convolution, batch norm, a scale and a shift of each channel that depend on a code (FiLM), ReLU."""

    def __init__(self, inputs: int, outputs: int, codes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs, affine=False)
        self.scale = nn.Parameter(torch.ones(codes, outputs))
        self.shift = nn.Parameter(torch.zeros(codes, outputs))

    def forward(self, x_NCHW: Tensor, code_N: Tensor) -> Tensor:
        """(N, inputs, H, W) with the codes (N,) int64 of its N maps to (N, outputs, H / stride, W / stride)."""
        scale, shift = self.scale[code_N][..., None, None], self.shift[code_N][..., None, None]
        return F.relu(self.norm(self.conv(x_NCHW)) * scale + shift)


class PairMapping(nn.Module):
    """Maps of one task, conditioned on which other task they are compared with, to the joint space of the two.

    An input convolution of each task, then an encoder and decoder that all ordered pairs share (MTPSL, CVPR 2022).

    Args:
        channels: of each of the T tasks' maps.
        outputs: channels of the joint space.
        width: of the layers.
    """

    def __init__(self, channels: Sequence[int], outputs: int, width: int = 64) -> None:
        super().__init__()
        codes = len(channels) ** 2
        self.tasks = len(channels)
        self.inputs = nn.ModuleList([nn.Conv2d(c, width, 3, padding=1) for c in channels])
        self.fine = ConditionedBlock(width, width, codes)
        self.middle = ConditionedBlock(width, 2 * width, codes, stride=2)
        self.coarse = ConditionedBlock(2 * width, 2 * width, codes, stride=2)
        self.deep = ConditionedBlock(2 * width, 2 * width, codes)
        self.back = ConditionedBlock(2 * width, 2 * width, codes)
        self.out = nn.Conv2d(2 * width, outputs, 1)

    def forward(self, maps: Sequence[tuple[int, int, Tensor]]) -> list[Tensor]:
        """Each (task, other task, map (n, C, H, W)) to (n, outputs, H / 2, W / 2), all in one batch.

        Args:
            maps: tasks are numbers from 0; of which pair the maps are is known to every layer.
        """
        stems = [self.inputs[task](x) for task, _, x in maps]
        sizes = [len(x) for x in stems]
        code = torch.cat([torch.full((len(x),), task * self.tasks + other, device=x.device) for task, other, x in maps])
        half = self.middle(self.fine(torch.cat(stems), code), code)
        deep = self.deep(self.coarse(half, code), code)
        joint: Tensor = self.out(self.back(half + upsample(deep, half.shape[-2:]), code))
        return list(torch.split_with_sizes(joint, sizes))


class JointAutoEncoder(nn.Module):
    """One latent space of the stacked maps of all tasks, and the way back (JTR, CVPR 2024).

    The latent's channels are standardised: an offset that all latents share would bring every cosine to 1.

    Args:
        channels: of the stack.
        width: of the finest layers; the latent has four times as many channels, at a quarter of the size.
    """

    def __init__(self, channels: int, width: int = 64) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            conv_block(channels, width), _smaller(width, 2 * width), conv_block(2 * width, 2 * width),
            _smaller(2 * width, 4 * width), nn.Conv2d(4 * width, 4 * width, 3, padding=1, bias=False),
            nn.BatchNorm2d(4 * width, affine=False),
        )  # fmt: skip
        self.wide = conv_block(4 * width, 2 * width)
        self.fine = conv_block(2 * width, width)
        self.out = nn.Conv2d(width, channels, 3, padding=1)

    def encode(self, stack_BEHW: Tensor) -> Tensor:
        """(B, E, H, W) to the latent (B, 4 x width, H / 4, W / 4)."""
        latent: Tensor = self.encoder(stack_BEHW)
        return latent

    def decode(self, latent_BLhw: Tensor, size: Sequence[int]) -> Tensor:
        """The latent to a stack (B, E, H, W) of (height, width)."""
        half = [-(-side // 2) for side in size]
        x = self.wide(upsample(latent_BLhw, half))
        stack: Tensor = self.out(self.fine(upsample(x, size)))
        return stack


def _smaller(inputs: int, outputs: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class MapDiscriminator(nn.Module):
    """Says at each place whether a map of a task is a label or a prediction: fully convolutional, without norms.

    Five 4x4 convolutions of stride 2 with leaky ReLUs (Hung et al., BMVC 2018); without norms, what it says of a map
    does not depend on its companions.

    Args:
        channels: of the maps. width: of the first layer; doubled in each of the next three.
    """

    def __init__(self, channels: int, width: int = 64) -> None:
        super().__init__()
        sizes = [channels, width, 2 * width, 4 * width, 8 * width]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=2), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, stride=2, padding=2))

    def forward(self, map_BCHW: Tensor) -> Tensor:
        """(B, channels, H, W) to the logit of "this is a label", (B, 1, H, W)."""
        return upsample(self.layers(map_BCHW).float(), map_BCHW.shape[-2:])
