"""Any timm backbone as four feature maps, finest first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import PatchEmbed
from timm.models import load_state_dict
from torch import Tensor, nn

from tasktokens.errors import ConfigError, WeightsError, did_you_mean
from tasktokens.models.layers import upsample


class Backbone(nn.Module):
    """A timm network with ``features_only``; takes uint8 images and normalises them itself.

    A network in stages gives its last four, a plain vision transformer blocks at a quarter, half, three quarters and
    the whole of its depth, all at one size.

    Attributes:
        channels: C_i of the four maps.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, pretrained: bool = False, weights: Path | None = None) -> None:
        super().__init__()
        drawn_from = torch.get_rng_state()
        self.network = _create(name, pretrained, weights)
        if weights is not None:
            _check_taken(self.network, name, weights, drawn_from)
        self.channels: list[int] = list(self.network.feature_info.channels())
        self._multiple = _patch(self.network)
        self._channels_last: bool = getattr(self.network, "output_fmt", "NCHW") == "NHWC"
        config = self.network.pretrained_cfg
        config.pop("state_dict", None)  # or each copy of the network would hold the weights twice
        self.register_buffer("mean", torch.tensor(config["mean"])[:, None, None] * 255, persistent=False)
        self.register_buffer("std", torch.tensor(config["std"])[:, None, None] * 255, persistent=False)

    def forward(self, image_B3HW: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W), uint8 or 0..255, to four maps (B, C_i, H_i, W_i)."""
        normalised = (image_B3HW.float() - self.mean) / self.std
        whole = [-(-side // self._multiple) * self._multiple for side in image_B3HW.shape[-2:]]
        normalised = upsample(normalised, whole)  # a stretch by less than a patch
        try:
            maps = self.network(normalised.contiguous(memory_format=torch.channels_last))
        except AssertionError as error:
            height, width = image_B3HW.shape[-2:]
            message = f"the backbone cannot take images of {height}x{width}: {error}; change data.size"
            raise ConfigError(message) from error
        # Swin and its kin return channels last. Shapes cannot tell: a map may be as high as it has channels.
        return [x.permute(0, 3, 1, 2) for x in maps] if self._channels_last else maps


def _create(name: str, pretrained: bool, weights: Path | None) -> Any:
    if not timm.is_model(name):
        near = did_you_mean(name, timm.list_models())
        raise ConfigError(f"model.backbone: timm has no model '{name}'{near}")
    if weights is not None and not weights.is_file():
        raise WeightsError(
            f"backbone weights {weights} do not exist; give a .safetensors or .pth file or leave the setting out"
        )
    try:
        return _four_maps(
            name,
            pretrained=pretrained or weights is not None,
            pretrained_cfg_overlay={"state_dict": _weights_only(weights)} if weights is not None else None,
        )
    except Exception as error:  # the hub's client raises errors of many libraries
        if weights is not None:
            raise WeightsError(f"backbone weights {weights} do not fit {name}: {str(error)[:300]}") from error
        if not pretrained:
            raise ConfigError(f"model.backbone: '{name}' does not give four feature maps ({error})") from error
        raise _unreachable(name, error) from error


def _weights_only(path: Path) -> Mapping[str, Any]:
    """The tensors of a file; what timm does with one of another kind depends on its version, and some unpickle."""
    state: Mapping[str, Any] = load_state_dict(str(path), weights_only=True)
    return state


def _four_maps(name: str, **settings: Any) -> Any:
    """The last four stages; of a network without stages, such as a ViT, four blocks at even depths (DPT, 2021).

    The last four blocks of such a network say nearly the same: edges and places are gone from all of them.
    """
    network = _any_size(name, features_only=True, out_indices=(-4, -3, -2, -1), **settings)
    blocks = network.feature_info.info
    alike = len({(block["reduction"], block["num_chs"]) for block in blocks}) == 1
    if alike and len(blocks) > 4 and hasattr(network, "out_indices"):
        network.out_indices = network.feature_info.out_indices = [len(blocks) * part // 4 - 1 for part in (1, 2, 3, 4)]
    return network


def _any_size(name: str, **settings: Any) -> Any:
    """`timm.create_model`, with the families that are built for one image size told to take any."""
    for extra in ({"dynamic_img_size": True, "dynamic_img_pad": True}, {"strict_img_size": False}):
        try:
            return timm.create_model(name, **settings, **extra)
        except TypeError:  # the model does not know this setting
            continue
    return timm.create_model(name, **settings)


def _patch(network: Any) -> int:
    """The patch that images must be a multiple of; 1 where the network pads them itself or has no patches."""
    patches = [m for m in network.modules() if isinstance(m, PatchEmbed) and not m.dynamic_img_pad]
    return int(patches[0].patch_size[0]) if patches else 1


def _check_taken(network: nn.Module, name: str, weights: Path, drawn_from: Tensor) -> None:
    """Refuse a file of another network: timm only warns, and training would start from scratch."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(drawn_from)
        fresh = dict(_create(name, pretrained=False, weights=None).named_parameters())
    matrices = {key: p for key, p in network.named_parameters() if p.ndim > 1}
    same = [key for key, p in matrices.items() if torch.equal(p, fresh[key])]
    if len(same) > len(matrices) / 2:
        raise WeightsError(f"backbone weights {weights} do not fit {name}: {len(same)} tensors are missing")


def _unreachable(name: str, error: Exception) -> WeightsError:
    reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return WeightsError(
        f"ImageNet weights of '{name}' cannot be loaded from timm's hub ({reason}); "
        f"use model.weights=FILE, or model.pretrained=false to train from scratch"
    )
