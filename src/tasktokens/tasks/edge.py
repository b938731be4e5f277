"""Edges: the probability of a boundary per pixel, from one logit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, get_args

from torch import Tensor
from torch.nn import functional as F

from tasktokens.metrics.boundary import Annotators
from tasktokens.metrics.edge import EdgeF
from tasktokens.metrics.fmeasure import FMeasure
from tasktokens.tasks.base import KINDS
from tasktokens.tasks.probability import OneLogit


@dataclass(frozen=True)
@KINDS.register("edge")
class Edge(OneLogit):
    """Boundary probability. Loss: binary cross-entropy, positive weight 0.95. Prediction: sigmoid.

    Discovered labels have the factor 0.05 of the release on all pixels. Metrics: odsF, oisF, AP, pixelF.

    Attributes:
        max_distance: how far apart boundaries may lie that match in odsF, as a share of the image's diagonal: 0.0075 on
            PASCAL and BSDS500, 0.011 on NYUD. 0: no matching, which costs time; pixelF only.
        annotators: labels hold the lines of ``one`` person, or the ``mean`` over several, as BSDS500 is often stored.

    Examples:
        >>> import torch
        >>> task = Edge("edge", max_distance=0.011)
        >>> task.decode(torch.zeros(1, 1, 1, 1)).item(), task.metric().primary
        (0.5, 'odsF')
    """

    positive_weight: float = 0.95
    max_distance: float = 0.0075
    annotators: Annotators = "one"
    kind: ClassVar[str] = "edge"
    settings: ClassVar[tuple[str, ...]] = ("positive_weight", "max_distance", "annotators")

    def spec(self) -> dict[str, Any]:
        """The values of the probability kinds, with ``max_distance`` and ``annotators``."""
        return super().spec() | {"max_distance": self.max_distance, "annotators": self.annotators}

    def validate(self) -> str | None:
        """An error message for a matching distance outside [0, 1) or an unknown ``annotators``."""
        if not 0 <= self.max_distance < 1:
            return f"max_distance must be at least 0 and below 1 (a share of the diagonal), found {self.max_distance}"
        if self.annotators not in get_args(Annotators):
            return f"annotators must be one of {', '.join(get_args(Annotators))}, found {self.annotators!r}"
        return super().validate()

    def resize(self, value_CHW: Tensor, valid_1HW: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """One-pixel lines would fall between the samples of a smaller grid: there, take the area's maximum."""
        height, width = value_CHW.shape[-2:]
        shrunk = (min(size[0], height), min(size[1], width))
        if shrunk != (height, width):
            value_CHW = F.adaptive_max_pool2d(value_CHW, shrunk)
            valid_1HW = F.adaptive_max_pool2d(valid_1HW.float(), shrunk) > 0
        return super().resize(value_CHW, valid_1HW, size)

    def pixel_loss(self, logits_BKHW: Tensor, target_BCHW: Tensor) -> Tensor:
        """Binary cross-entropy (B, 1, H, W), times 1 - ``positive_weight`` on every pixel."""
        loss = F.binary_cross_entropy_with_logits(logits_BKHW.float(), target_BCHW.float(), reduction="none")
        return loss * (1 - self.positive_weight)

    def pixel_weight(self, target_BCHW: Tensor, valid_B1HW: Tensor) -> Tensor:
        """Weights (B, 1, H, W) of given labels: p / (1 - p) on edges, 1 elsewhere, where p is ``positive_weight``."""
        return 1 + target_BCHW * (self.positive_weight / (1 - self.positive_weight) - 1)

    def metric(self) -> EdgeF | FMeasure:
        """odsF, oisF, AP and pixelF; pixelF only where ``max_distance`` is 0."""
        if self.max_distance == 0:
            return FMeasure()
        return EdgeF(self.max_distance, self.annotators)
