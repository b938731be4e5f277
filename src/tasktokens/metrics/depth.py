"""Depth errors over all valid pixels of the set (Eigen et al., NeurIPS 2014)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from tasktokens.metrics.base import METRICS, Metric


@METRICS.register("depth")
class DepthErrors(Metric):
    """absErr and RMSE in metres, relErr, and δ1..δ3: percent of pixels within a factor of 1.25, 1.25², 1.25³.

    A prediction of 0 or below lies within no factor. Where a valid target is 0 or below, relErr and δ are NaN.

    Examples:
        >>> metric = DepthErrors()
        >>> metric.update(torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[[[1.0, 2.0]]]]))
        >>> metric.compute()["absErr"], metric.compute()["delta1"]
        (0.5, 50.0)
    """

    name: ClassVar[str] = "depth"
    higher_is_better: ClassVar[dict[str, bool]] = {
        "absErr": False, "relErr": False, "RMSE": False, "delta1": True, "delta2": True, "delta3": True,
    }  # fmt: skip
    units: ClassVar[dict[str, str]] = {"absErr": "m", "RMSE": "m", "delta1": "%", "delta2": "%", "delta3": "%"}

    def __init__(self) -> None:
        super().__init__(7)

    @property
    def primary(self) -> str:
        """absErr."""
        return "absErr"

    def statistics(self, prediction_BCHW: Tensor, target_BCHW: Tensor, valid_B1HW: Tensor) -> Tensor:
        """Number of valid pixels, sums of errors, and pixels within each factor."""
        truth = torch.where(valid_B1HW, target_BCHW, 1.0).double()
        error = torch.where(valid_B1HW, prediction_BCHW.double() - truth, 0.0).abs()
        ratio = torch.maximum(prediction_BCHW.double() / truth, truth / prediction_BCHW.double().clamp(min=1e-6))
        within = [((ratio < 1.25**k) & valid_B1HW).sum().double() for k in (1, 2, 3)]
        absolute, relative, squared = error.sum(), (error / truth).sum(), (error**2).sum()
        ratios = torch.where((truth > 0).all(), torch.stack([relative, *within]), torch.nan)
        return torch.stack([valid_B1HW.sum().double(), absolute, ratios[0], squared, *ratios[1:]])

    def compute(self) -> dict[str, float]:
        """absErr and RMSE in metres, relErr as a ratio, delta1 to delta3 in percent."""
        count, absolute, relative, squared, *within = self.state
        values = {"absErr": absolute / count, "relErr": relative / count, "RMSE": (squared / count).sqrt()}
        values |= {f"delta{k + 1}": 100 * hits / count for k, hits in enumerate(within)}
        return {name: value.item() for name, value in values.items()}
