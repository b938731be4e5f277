"""Boundaries matched within a distance, and pixel against pixel."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from tasktokens.metrics.base import METRICS, Metric
from tasktokens.metrics.boundary import Annotators, BoundaryF, boundary_values
from tasktokens.metrics.fmeasure import LEVELS, f_counts, f_scores


@METRICS.register("edge")
class EdgeF(Metric):
    """Best F of boundaries matched within a distance, in percent: odsF, oisF; AP. pixelF: pixel against pixel.

    Arguments as for `BoundaryF`.

    Examples:
        >>> metric = EdgeF(max_distance=0.1)
        >>> line = torch.zeros(1, 1, 16, 16)
        >>> line[..., 8] = 1
        >>> metric.update(line.roll(1, -1), line)
        >>> metric.compute()["odsF"], metric.compute()["pixelF"]
        (100.0, 0.0)
    """

    name: ClassVar[str] = "edge"
    higher_is_better: ClassVar[dict[str, bool]] = BoundaryF.higher_is_better | {"pixelF": True}
    units: ClassVar[dict[str, str]] = BoundaryF.units | {"pixelF": "%"}

    def __init__(self, max_distance: float = 0.0075, annotators: Annotators = "one") -> None:
        matched = BoundaryF(max_distance, annotators)
        super().__init__(len(matched.state) + 2 * (len(LEVELS) + 1))
        self.matched = matched

    @property
    def primary(self) -> str:
        """odsF."""
        return "odsF"

    def statistics(self, prediction_BCHW: Tensor, target_BCHW: Tensor, valid_B1HW: Tensor) -> Tensor:
        """The sums of `BoundaryF` and `FMeasure`."""
        matched = self.matched.statistics(prediction_BCHW, target_BCHW, valid_B1HW)
        return torch.cat([matched, f_counts(prediction_BCHW, target_BCHW, valid_B1HW, LEVELS)])

    def compute(self) -> dict[str, float]:
        """odsF, oisF, AP and pixelF, in percent."""
        pixels = 2 * (len(LEVELS) + 1)
        return boundary_values(self.state[:-pixels]) | {
            "pixelF": f_scores(self.state[-pixels:], beta2=1.0).max().item()
        }
