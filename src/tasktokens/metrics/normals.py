"""Angles between predicted and true surface normals over all valid pixels of the set."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from tasktokens.metrics.base import METRICS, Metric

_BINS_PER_DEGREE = 20


@METRICS.register("normals")
class AngularErrors(Metric):
    """mErr (mean) and median in degrees, and percent of pixels strictly below 11.25°, 22.5° and 30°.

    The median is read off a histogram of 0.05° bins, so its own error is below 0.05°; the rest is exact. Vectors need
    not have length 1. A prediction of (0, 0, 0) has no direction and counts as 90° (a cosine of 0); a valid target of
    (0, 0, 0) makes all values NaN.

    Examples:
        >>> metric = AngularErrors()
        >>> metric.update(torch.zeros(1, 3, 1, 1), torch.tensor([0.0, 0.0, -1.0]).view(1, 3, 1, 1))
        >>> metric.compute()["mErr"]
        90.0
    """

    name: ClassVar[str] = "normals"
    higher_is_better: ClassVar[dict[str, bool]] = {
        "mErr": False, "median": False, "within11.25": True, "within22.5": True, "within30": True,
    }  # fmt: skip
    units: ClassVar[dict[str, str]] = {
        "mErr": "°", "median": "°", "within11.25": "%", "within22.5": "%", "within30": "%",
    }  # fmt: skip

    def __init__(self) -> None:
        super().__init__(5 + 180 * _BINS_PER_DEGREE + 1)

    @property
    def primary(self) -> str:
        """mErr."""
        return "mErr"

    def statistics(self, prediction_BCHW: Tensor, target_BCHW: Tensor, valid_B1HW: Tensor) -> Tensor:
        """Number of valid pixels, sum of angles, pixels within each limit, histogram of angles."""
        truth = torch.where(valid_B1HW, target_BCHW, 0.0).double()
        guess = prediction_BCHW.double()
        # atan2 keeps its precision near 0°, where the arc cosine loses it.
        angle = torch.atan2(torch.linalg.cross(guess, truth, dim=1).norm(dim=1), (guess * truth).sum(dim=1))
        valid = valid_B1HW[:, 0]
        nowhere = (guess == 0).all(dim=1)
        angle = torch.where(nowhere, 90.0, angle * (180 / math.pi))
        angle = torch.where(valid, angle, 0.0)
        within = [((angle < limit) & valid).sum().double() for limit in (11.25, 22.5, 30.0)]
        index = torch.where(valid, (angle * _BINS_PER_DEGREE).long(), 180 * _BINS_PER_DEGREE + 1)
        histogram = torch.bincount(index.flatten(), minlength=180 * _BINS_PER_DEGREE + 2)[:-1].double()
        sums = torch.cat([torch.stack([valid.sum().double(), angle.sum(), *within]), histogram])
        return torch.where((valid & (truth == 0).all(dim=1)).any(), torch.nan, sums)

    def compute(self) -> dict[str, float]:
        """mErr and median in degrees, within11.25 to within30 in percent."""
        count, total, *within = self.state[:5]
        histogram = self.state[5:].cumsum(0)
        middle = torch.searchsorted(histogram, count / 2) if count > 0 else torch.tensor(math.nan)
        values = {"mErr": total / count, "median": (middle + 0.5) / _BINS_PER_DEGREE}
        values |= {
            f"within{limit}": 100 * hits / count for limit, hits in zip(("11.25", "22.5", "30"), within, strict=True)
        }
        return {name: float(value) for name, value in values.items()}
