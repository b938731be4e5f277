"""SegNet from scratch, the backbone of the older tables of partially labelled tasks, as a timm model."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from timm.models import register_model
from torch import Tensor, nn
from torch.nn import functional as F

from tasktokens.errors import ConfigError
from tasktokens.models.layers import conv_block

FILTERS, LAYERS = (64, 128, 256, 512, 512), (2, 2, 3, 3, 3)
"""Channels and convolutions of each of the five sizes: those of VGG-16."""


class SegNet(nn.Module):
    """Encoder and decoder; the decoder's unpooling puts values where the encoder's pooling found the maximum.

    Source: Badrinarayanan, Kendall, Cipolla, *SegNet* (TPAMI 2017, https://arxiv.org/abs/1511.00561), with the filters
    that MTAN (CVPR 2019), MTPSL (CVPR 2022) and JTR (CVPR 2024) share among tasks. Their tables are of networks without
    pretrained weights.

    Deviations: any image size is taken (sizes that do not divide by 32 are unpooled to what they were).

    Examples:
        >>> import torch
        >>> maps = SegNet((8, 8, 16, 16, 16))(torch.zeros(1, 3, 64, 96))
        >>> [tuple(x.shape[1:]) for x in maps]
        [(8, 64, 96), (8, 32, 48), (8, 16, 24), (16, 8, 12)]
    """

    is_decoder = True
    """The finest map is a decoder's: it holds what the others do."""

    def __init__(self, filters: tuple[int, ...] = FILTERS, layers: tuple[int, ...] = LAYERS) -> None:
        super().__init__()
        encoder, decoder, before = [], [], 3
        for width, count in zip(filters, layers, strict=True):
            encoder.append(_convolutions([before] + [width] * count))
            decoder.append(_convolutions([width] * count + [before if before > 3 else width]))
            before = width
        self.encoder, self.decoder = nn.ModuleList(encoder), nn.ModuleList(decoder)
        channels = [filters[0], filters[0], *filters[1:3]]
        self.feature_info = SimpleNamespace(
            info=[{"num_chs": c, "reduction": 2**i} for i, c in enumerate(channels)], channels=lambda: channels
        )
        self.pretrained_cfg: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

    def forward(self, image_B3HW: Tensor) -> list[Tensor]:
        """Normalised images (B, 3, H, W) to the decoder's maps at strides 1, 2, 4 and 8."""
        x, kept = image_B3HW, []
        for block in self.encoder:
            x = block(x)
            size = x.shape[-2:]
            x, index = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
            kept.append((index, size))
        maps = []
        for block, (index, size) in zip(reversed(self.decoder), reversed(kept), strict=True):
            x = block(F.max_unpool2d(x, index, [2, 2], output_size=list(size)))
            maps.append(x)
        return maps[:0:-1]


def _convolutions(channels: list[int]) -> nn.Sequential:
    return nn.Sequential(*(conv_block(a, b) for a, b in pairwise(channels)))


@register_model  # type: ignore[untyped-decorator]
def segnet(pretrained: bool = False, **settings: Any) -> SegNet:
    """``model.backbone=segnet``; what timm asks of other networks, such as which maps to return, is fixed."""
    network, given = SegNet(), settings.get("pretrained_cfg_overlay") or {}
    if "state_dict" in given:  # model.weights
        network.load_state_dict(given["state_dict"])
    elif pretrained:
        raise ConfigError("there are no ImageNet weights of segnet; set model.pretrained=false")
    return network
