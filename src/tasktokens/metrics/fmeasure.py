"""F-measure of probability maps, pooled over the set (maxF of salient-object detection)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from tasktokens.metrics.base import Metric


class FMeasure(Metric):
    """The best F over fixed thresholds, in percent: (1 + β²) P R / (β² P + R).

    Counts are pooled over all valid pixels of the set; the truth is positive above 0.5, the prediction strictly above
    the threshold. ``name`` is the metric's name in tables: ``maxF`` or ``pixelF``.
    """

    higher_is_better: ClassVar[dict[str, bool]] = {"maxF": True, "pixelF": True}
    units: ClassVar[dict[str, str]] = {"maxF": "%", "pixelF": "%"}

    def __init__(self, name: str, beta2: float, thresholds: tuple[float, ...]) -> None:
        self.name, self.beta2, self.thresholds = name, beta2, thresholds
        super().__init__(2 * (len(thresholds) + 1))

    @property
    def primary(self) -> str:
        return self.name

    def statistics(self, prediction_BCHW: Tensor, target_BCHW: Tensor, valid_B1HW: Tensor) -> Tensor:
        levels = torch.tensor(self.thresholds, device=prediction_BCHW.device)
        # Number of thresholds that a pixel passes; one histogram then counts all thresholds at once.
        passed = torch.bucketize(prediction_BCHW.float().contiguous(), levels)
        count = len(self.thresholds) + 1
        index = passed + count * (target_BCHW > 0.5).long()
        index = torch.where(valid_B1HW, index, 2 * count)
        return torch.bincount(index.flatten(), minlength=2 * count + 1)[:-1].double()

    def compute(self) -> dict[str, float]:
        negative, positive = self.state.reshape(2, -1)
        true_positive = positive.flip(0).cumsum(0).flip(0)[1:]
        predicted = true_positive + negative.flip(0).cumsum(0).flip(0)[1:]
        # (1 + β²) TP / (β² P + predicted) is F without a division by zero inside.
        denominator = self.beta2 * positive.sum() + predicted
        f = 100 * (1 + self.beta2) * true_positive / denominator.clamp(min=1)
        return {self.name: f.max().item() if self.state.sum() > 0 else float("nan")}
