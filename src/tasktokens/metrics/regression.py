"""Errors of a scalar map over all valid pixels of the set."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from tasktokens.metrics.base import METRICS, Metric


@METRICS.register("regression")
class RegressionErrors(Metric):
    """MAE and RMSE in the task's unit, and the percent of pixels with an error below 5 % of its range.

    Args:
        span: width of the task's range, in its unit.
        unit: for tables, such as ``°C``.

    Raises:
        ValueError: the span is not a positive number.

    Examples:
        >>> metric = RegressionErrors(span=10.0, unit="K")
        >>> metric.update(torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[[[1.0, 2.0]]]]))
        >>> metric.compute()["MAE"], metric.compute()["within5"]
        (0.5, 50.0)
    """

    name: ClassVar[str] = "regression"
    higher_is_better: ClassVar[dict[str, bool]] = {"MAE": False, "RMSE": False, "within5": True}

    def __init__(self, span: float, unit: str = "") -> None:
        if not 0 < span < math.inf:
            raise ValueError(f"span must be the width of a range, a positive number; it is {span}")
        super().__init__(4)
        self.span = span
        # A constant of the class elsewhere; here the unit is the user's.
        self.units = {"MAE": unit, "RMSE": unit, "within5": "%"}  # type: ignore[misc]

    @property
    def primary(self) -> str:
        """MAE."""
        return "MAE"

    def statistics(self, prediction_BCHW: Tensor, target_BCHW: Tensor, valid_B1HW: Tensor) -> Tensor:
        """Number of valid pixels, sums of absolute and squared errors, pixels within 5 % of the span."""
        truth = torch.where(valid_B1HW, target_BCHW, 0.0).double()
        error = torch.where(valid_B1HW, prediction_BCHW.double() - truth, 0.0).abs()
        within = (error < 0.05 * self.span) & valid_B1HW
        return torch.stack([valid_B1HW.sum().double(), error.sum(), (error**2).sum(), within.sum().double()])

    def compute(self) -> dict[str, float]:
        """MAE and RMSE in the task's unit, within5 in percent."""
        count, absolute, squared, within = self.state
        values = {"MAE": absolute / count, "RMSE": (squared / count).sqrt(), "within5": 100 * within / count}
        return {name: value.item() for name, value in values.items()}
