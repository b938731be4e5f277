"""Whether batch norm has more than one value per channel to take its statistics over."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tasktokens.config import Config
from tasktokens.errors import ConfigError
from tasktokens.models.files import ModelInfo


def check_batch_norm(info: ModelInfo, config: Config, ranks: int, images: int) -> None:
    """Raise `ConfigError` where training would meet a batch norm with one value per channel, which torch refuses.

    A head sees only the images that have its label, which can be one of any batch; the backbone sees a rank's share of
    a part of the batch.

    Args:
        ranks: number of processes.
        images: number of training images.
    """
    share = min(config.optim.images, images) // (ranks * config.optim.accumulate)
    if share > 1 and prod(info.size) > 128**2:  # no map of these has a single position
        return
    backbone, others = single_positions(info)
    if not others and (share > 1 or not backbone):
        return
    height, width = info.size
    raise ConfigError(
        f"batch norm needs more than one value per channel, and images of {height}x{width} leave it one position for "
        f"each of {share} image(s) at once ({(others or backbone)[0]}): raise "
        + ("data.size" if others else "optim.batch_size, lower optim.accumulate, or raise data.size")
    )


@torch.no_grad()
def single_positions(info: ModelInfo) -> tuple[list[str], list[str]]:
    """Names of batch norms that get one position per image: those of the backbone, and those of all else."""
    found: list[str] = []
    with torch.random.fork_rng(devices=[]):
        network = info.build().eval()
        for name, module in network.named_modules():
            if isinstance(module, _BatchNorm):
                module.register_forward_pre_hook(_noting(name, found))
        network(torch.zeros(1, 3, *info.size, dtype=torch.uint8))
    own = [name for name in found if name.startswith("backbone.")]
    return own, [name for name in found if name not in own]


def _noting(name: str, found: list[str]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0][:1].numel() == inputs[0].shape[1]:
            found.append(name)

    return note
