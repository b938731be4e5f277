"""Any other yes or no per pixel, from one logit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from tasktokens.metrics.binary import BinaryOverlap
from tasktokens.tasks.base import KINDS
from tasktokens.tasks.examine import Summary, Sums, summarise_probabilities
from tasktokens.tasks.probability import OneLogit


@dataclass(frozen=True)
@KINDS.register("binary")
class Binary(OneLogit):
    """Yes or no, or a probability. Loss: binary cross-entropy. Prediction: sigmoid. Metrics: IoU, best F1.

    Examples:
        >>> import torch
        >>> task = Binary("roof")
        >>> logits = torch.zeros(1, 1, 1, 1)
        >>> task.decode(logits).item(), task.confidence(logits).item()
        (0.5, 0.0)
    """

    kind: ClassVar[str] = "binary"

    def pixel_loss(self, logits_BKHW: Tensor, target_BCHW: Tensor) -> Tensor:
        """Binary cross-entropy (B, 1, H, W) with soft targets in [0, 1]."""
        return F.binary_cross_entropy_with_logits(logits_BKHW.float(), target_BCHW.float(), reduction="none")

    def pixel_weight(self, target_BCHW: Tensor, valid_B1HW: Tensor) -> Tensor:
        """Weights (B, 1, H, W): 2 x ``positive_weight`` for yes, 2 x (1 - ``positive_weight``) for no."""
        return 2 * (target_BCHW * self.positive_weight + (1 - target_BCHW) * (1 - self.positive_weight))

    def summarise(self, sums: Sums) -> Summary:
        """Histogram of the probabilities; where yes is weighted up, mostly-yes labels may be inverted."""
        return summarise_probabilities(sums, rare=self.positive_weight > 0.5)

    def metric(self) -> BinaryOverlap:
        """IoU, best F1, precision and recall."""
        return BinaryOverlap()
