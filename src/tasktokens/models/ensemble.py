"""Several networks for the same tasks as one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tasktokens.models.base import Rows, TaskOutput
from tasktokens.models.layers import upsample


class Ensemble(nn.Module):
    """The mean of what networks say: logits, and confidences where a network has some, at the first one's size.

    Features and tokens are the first network's: those of networks that were trained apart have nothing in common.

    Args:
        networks: for the same tasks; their kinds, backbones and heads' sizes may differ.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, image_B3HW: Tensor, rows: Rows | None = None) -> dict[str, TaskOutput]:
        """As `Network.forward`."""
        outputs: list[dict[str, TaskOutput]] = [network(image_B3HW, rows) for network in self.networks]
        means = {}
        for name, first in outputs[0].items():
            size = first.logits.shape[-2:]
            said = [output[name] for output in outputs]
            sure = [upsample(one.confidence, size) for one in said if one.confidence is not None]
            means[name] = TaskOutput(
                logits=torch.stack([one.logits_at(size) for one in said]).mean(0),
                feature=first.feature,
                confidence=torch.stack(sure).mean(0) if sure else None,
                token=first.token,
            )
        return means
