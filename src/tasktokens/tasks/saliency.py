"""Saliency: a probability per pixel, from two logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from tasktokens.metrics.saliency import SaliencyF
from tasktokens.tasks.base import KINDS, largest_probability
from tasktokens.tasks.probability import Probability


@dataclass(frozen=True)
@KINDS.register("saliency")
class Saliency(Probability):
    """Salient or not. Loss: cross-entropy, the two classes balanced within each image. Prediction: P(salient).

    Examples:
        >>> task = Saliency("saliency")
        >>> logits = torch.tensor([0.0, 2.0]).view(1, 2, 1, 1)
        >>> round(task.decode(logits).item(), 2)
        0.88
    """

    threshold: float = 0.7
    kind: ClassVar[str] = "saliency"

    @property
    def num_tokens(self) -> int:
        """2 logits per pixel: not salient, salient."""
        return 2

    def token_names(self) -> tuple[str, ...]:
        """``not NAME`` and ``NAME``."""
        return f"not {self.name}", self.name

    def pixel_loss(self, logits_BKHW: Tensor, target_BCHW: Tensor) -> Tensor:
        """Cross-entropy (B, 1, H, W) with soft targets in [0, 1]."""
        log_p = F.log_softmax(logits_BKHW.float(), dim=1)
        return -(target_BCHW * log_p[:, 1:2] + (1 - target_BCHW) * log_p[:, 0:1])

    def pixel_weight(self, target_BCHW: Tensor, valid_B1HW: Tensor) -> Tensor:
        """Weights (B, 1, H, W) in [0, 2] that balance the two classes within each image."""
        # An image (or crop) with one class only, or with nothing valid, keeps weights of 1.
        valid = valid_B1HW.float()
        share = (target_BCHW * valid).sum((1, 2, 3), keepdim=True) / valid.sum((1, 2, 3), keepdim=True).clamp(min=1)
        balanced = target_BCHW * (1 - share) * 2 + (1 - target_BCHW) * share * 2
        return torch.where((share > 0) & (share < 1), balanced, torch.ones_like(balanced))

    def decode(self, logits_BKHW: Tensor) -> Tensor:
        """P(salient), (B, 1, H, W) in [0, 1]."""
        return F.softmax(logits_BKHW.float(), dim=1)[:, 1:2]

    def confidence(self, logits_BKHW: Tensor) -> Tensor:
        """Probability of the likelier class, (B, 1, H, W) in [0.5, 1]."""
        return largest_probability(logits_BKHW)

    def metric(self) -> SaliencyF:
        """maxF and meanF with β² = 0.3."""
        return SaliencyF()
