"""Any timm backbone as four feature maps, finest first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from timm.layers import PatchEmbed
from timm.models import load_state_dict
from timm.models._hub import hf_split
from torch import Tensor, nn

import tasktokens.models.segnet  # noqa: F401, registers itself with timm
from tasktokens.config import ModelSettings
from tasktokens.errors import ConfigError, WeightsError, did_you_mean
from tasktokens.hub.download import local_model
from tasktokens.models.layers import upsample

_DECODED = 32
"""The coarsest stride of an encoder whose decoder alone shows its maps."""
_OWN = "backbone.network."
"""How the keys of a backbone begin in the file of a model."""
CONNECT_SECONDS = 5.0
"""How long the hub may take to answer before training ends for want of weights."""


class Backbone(nn.Module):
    """A timm network with ``features_only``; takes uint8 images and normalises them itself.

    A network in stages gives its last four, a plain vision transformer blocks at a quarter, half, three quarters and
    the whole of its depth, all at one size.

    Attributes:
        mean, std: of RGB, (3, 1, 1), in the units of the pixels.
        channels: C_i of the four maps.
        is_decoder: whether the finest map is a decoder's, which needs no fusion with the others (`segnet`).
        stride: pixels per cell of the coarsest map that it computes: an image that is moved by a multiple of it has the
            same features, moved.
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
        self.is_decoder: bool = getattr(self.network, "is_decoder", False)
        self._multiple = _patch(self.network)
        reductions = [int(each["reduction"]) for each in self.network.feature_info.info]
        self.stride = _DECODED if self.is_decoder else math.lcm(max(reductions), self._multiple)
        self._frozen = False
        self._channels_last: bool = getattr(self.network, "output_fmt", "NCHW") == "NHWC"
        config = self.network.pretrained_cfg
        config.pop("state_dict", None)  # or each copy of the network would hold the weights twice
        self.register_buffer("mean", torch.tensor(config["mean"])[:, None, None] * 255, persistent=False)
        self.register_buffer("std", torch.tensor(config["std"])[:, None, None] * 255, persistent=False)

    def freeze(self) -> None:
        """Keep the weights as they are, and batch norms at the statistics that they have, in training too."""
        self.requires_grad_(False)
        self._frozen = True
        self.eval()

    def train(self, mode: bool = True) -> Backbone:
        """Set training mode, but of a frozen backbone, whose batch norms would go on to move."""
        return super().train(mode and not self._frozen)

    def forward(self, image_B3HW: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W), uint8 or 0..255, to four maps (B, C_i, H_i, W_i)."""
        normalised = (image_B3HW.float() - self.mean) / self.std
        if self._multiple > 1:
            whole = [(side + self._multiple - 1) // self._multiple * self._multiple for side in image_B3HW.shape[-2:]]
            normalised = upsample(normalised, whole)  # a stretch by less than a patch
        try:
            maps = self.network(normalised.contiguous(memory_format=torch.channels_last))
        except AssertionError as error:
            height, width = image_B3HW.shape[-2:]
            message = f"the backbone cannot take images of {height}x{width}: {error}; change data.size"
            raise ConfigError(message) from error
        # Swin and its kin return channels last. Shapes cannot tell: a map may be as high as it has channels.
        return [x.permute(0, 3, 1, 2) for x in maps] if self._channels_last else maps


@contextmanager
def recorded_maps(network: nn.Module) -> Iterator[list[Tensor]]:
    """Within, each forward pass of a network, wrapped for several ranks or not, leaves its backbone's maps in the list.

    Raises:
        ConfigError: the network has no backbone of this kind.
    """
    maps: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Sequence[Tensor]) -> None:
        maps[:] = output

    backbone = next((module for module in network.modules() if isinstance(module, Backbone)), None)
    if backbone is None:
        raise ConfigError(f"a {type(network).__name__} has no backbone whose features could be read")
    handle = backbone.register_forward_hook(keep)
    try:
        yield maps
    finally:
        handle.remove()


def freeze_backbones(network: nn.Module) -> None:
    """Freeze the backbone of a network, or the backbones of one network per task (`Backbone.freeze`)."""
    for module in network.modules():
        if isinstance(module, Backbone):
            module.freeze()


def check_backbone(settings: ModelSettings) -> None:
    """Raise for a backbone that cannot be made: what can be said before any data is opened, within seconds.

    Weights that are not on this machine yet are downloaded here.

    Raises:
        ConfigError: timm has no such model, or it does not give four feature maps.
        WeightsError: its weights are missing, belong to another network, or cannot be downloaded.
    """
    with torch.random.fork_rng(devices=[]):
        Backbone(settings.backbone, settings.pretrained, settings.weights)


def require_reachable(name: str) -> None:
    """Raise `WeightsError` within seconds where the hub with a model's weights does not answer.

    Its own client would try for a minute before it says so.
    """
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise _unreachable(name, "timm knows of no weights for it")
    if not config.hf_hub_id or constants.HF_HUB_OFFLINE:
        return  # timm says what is wrong with another source, and at once where it is told to be offline
    repository, revision = hf_split(config.hf_hub_id)
    url = hf_hub_url(repository, config.hf_hub_filename or "model.safetensors", revision=revision)
    try:
        get_hf_file_metadata(url, timeout=CONNECT_SECONDS)
    except HfHubHTTPError:
        return  # it answers; which of its files there are is for timm to find out
    except Exception as error:  # the HTTP libraries of different versions have errors of their own
        raise _unreachable(name, error) from error


def _cached(name: str) -> Path | None:
    """The ImageNet weights of a model where the hub's client has stored them before; None where it has not."""
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id or config.custom_load:
        return None
    repository, revision = hf_split(config.hf_hub_id)
    for file in [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]:
        found = try_to_load_from_cache(repository, file, revision=revision)
        if isinstance(found, str):
            return Path(found)
    return None


def _require_name(name: str) -> None:
    if not timm.is_model(name):
        near = did_you_mean(name, timm.list_models())
        raise ConfigError(f"model.backbone: timm has no model '{name}'{near}")


def _create(name: str, pretrained: bool, weights: Path | None) -> Any:
    _require_name(name)
    weights = None if weights is None else _weights_file(weights)
    if weights is not None and not weights.is_file():
        raise WeightsError(
            f"backbone weights {weights} do not exist; give a .safetensors or .pth file or leave the setting out"
        )
    # A file that is here is read without asking the hub, whose client would try for half a minute offline.
    file = weights or (_cached(name) if pretrained else None)
    if pretrained and file is None:
        require_reachable(name)
    try:
        return _four_maps(
            name,
            pretrained=pretrained or file is not None,
            pretrained_cfg_overlay={"state_dict": _weights_only(file)} if file is not None else None,
        )
    except Exception as error:  # the hub's client raises errors of many libraries
        if weights is not None:
            raise WeightsError(f"backbone weights {weights} do not fit {name}: {str(error)[:300]}") from error
        if not pretrained:
            raise ConfigError(f"model.backbone: '{name}' does not give four feature maps ({error})") from error
        raise _unreachable(name, error) from error


def _weights_only(path: Path) -> Mapping[str, Any]:
    """The tensors of a file; what timm does with one of another kind depends on its version, and some unpickle.

    Of a model of this package those of its backbone.
    """
    state: Mapping[str, Any] = load_state_dict(str(path), weights_only=True)
    own = {key.removeprefix(_OWN): tensor for key, tensor in state.items() if key.startswith(_OWN)}
    return own or state


def _weights_file(weights: Path) -> Path:
    """The file that ``model.weights`` names: itself, or that of a model, whatever `local_model` takes for one."""
    folder = local_model(weights)
    found = [folder / part / "model.safetensors" for part in ("model", ".")]
    return next((file for file in found if file.is_file()), folder)


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


def _unreachable(name: str, error: Exception | str) -> WeightsError:
    reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return WeightsError(
        f"ImageNet weights of '{name}' cannot be loaded from timm's hub ({reason}); "
        f"use model.weights=FILE with weights that you have, let a machine with a network fill the cache "
        f"({constants.HF_HUB_CACHE}) and copy it here, or take model.pretrained=false to train from scratch"
    )
