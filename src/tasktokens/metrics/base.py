"""Metrics as sums: `update` adds a batch to sufficient statistics, `compute` reads the metrics off them.

The sums have a constant size, so the result is exact for any batch size and, summed over processes, for any number
of ranks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

Protocol = Literal["correct", "paper"]
"""``correct`` is `Metric.compute`, ``paper`` is `Metric.compute_paper`."""


class Metric(ABC):
    """An accumulator. ``state`` is one float64 tensor; adding the states of two parts gives the state of the whole."""

    higher_is_better: ClassVar[dict[str, bool]] = {}
    units: ClassVar[dict[str, str]] = {}

    def __init__(self, size: int) -> None:
        self.state = torch.zeros(size, dtype=torch.float64)

    @property
    @abstractmethod
    def primary(self) -> str:
        """The metric that comparisons and Δ_MTL use."""

    @abstractmethod
    def statistics(self, prediction_BCHW: Tensor, target_BCHW: Tensor, valid_B1HW: Tensor) -> Tensor:
        """The float64 sums of one batch; invalid pixels contribute nothing, whatever their target holds."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Metrics by name; NaN where nothing valid was seen."""

    def compute_paper(self) -> dict[str, float]:
        """The same names with the quirks of published multi-task code, for comparison; docs/metrics.md lists them."""
        return self.compute()

    def update(self, prediction_BCHW: Tensor, target_BCHW: Tensor, valid_B1HW: Tensor) -> None:
        """Add a batch: prediction and target (B, C, H, W), valid (B, 1, H, W) bool."""
        self.state = self.state.to(prediction_BCHW.device) + self.statistics(prediction_BCHW, target_BCHW, valid_B1HW)


def higher_is_better(metric: Metric, name: str) -> bool:
    """Direction of one of the metric's names (per-class values go by their prefix)."""
    return metric.higher_is_better.get(name.split("/")[0], True)
