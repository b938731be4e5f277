"""F-measure of probability maps, pooled over the set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from tasktokens.metrics.base import METRICS, Metric

LEVELS = tuple(i / 20 for i in range(1, 20))
"""0.05, 0.10, ..., 0.95."""


@METRICS.register("f_measure")
class FMeasure(Metric):
    """The best F over fixed thresholds, in percent: (1 + β²) P R / (β² P + R).

    Counts are pooled over all valid pixels of the set; the truth is positive above 0.5, the prediction strictly above
    the threshold. F is 0 without a true positive, and NaN if no pixel is positive and a threshold predicts none.

    Args:
        key: what `compute` calls it: ``maxF`` or ``pixelF``.
        beta2: β².
        thresholds: increasing.

    Examples:
        >>> metric = FMeasure()
        >>> metric.update(torch.tensor([[[[0.9, 0.6, 0.2]]]]), torch.tensor([[[[1.0, 0.0, 0.0]]]]))
        >>> metric.compute()
        {'pixelF': 100.0}
    """

    name: ClassVar[str] = "f_measure"
    higher_is_better: ClassVar[dict[str, bool]] = {"maxF": True, "pixelF": True}
    units: ClassVar[dict[str, str]] = {"maxF": "%", "pixelF": "%"}

    def __init__(self, key: str = "pixelF", beta2: float = 1.0, thresholds: tuple[float, ...] = LEVELS) -> None:
        super().__init__(2 * (len(thresholds) + 1))
        self.key, self.beta2, self.thresholds = key, beta2, thresholds

    @property
    def primary(self) -> str:
        """The metric's only value, under the name given."""
        return self.key

    def statistics(self, prediction_BCHW: Tensor, target_BCHW: Tensor, valid_B1HW: Tensor) -> Tensor:
        """Pixels by number of thresholds passed; see `f_counts`."""
        return f_counts(prediction_BCHW, target_BCHW, valid_B1HW, self.thresholds)

    def compute(self) -> dict[str, float]:
        """Best F over the thresholds, in percent."""
        return {self.key: self.f_at(self.thresholds).max().item()}

    def f_at(self, thresholds: Sequence[float]) -> Tensor:
        """F in percent at some of the metric's thresholds; NaN where nothing valid was seen."""
        return f_scores(self.state, self.beta2)[[self.thresholds.index(level) for level in thresholds]]


def f_counts(prediction_BCHW: Tensor, target_BCHW: Tensor, valid_B1HW: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Pixels by number of thresholds passed, float64 (2 (T + 1)): the negative ones, then the positive ones."""
    levels = torch.tensor(thresholds, device=prediction_BCHW.device)
    # One histogram counts all thresholds at once.
    passed = torch.bucketize(prediction_BCHW.float().contiguous(), levels)
    count = len(thresholds) + 1
    index = passed + count * (target_BCHW > 0.5).long()
    index = torch.where(valid_B1HW, index, 2 * count)
    return torch.bincount(index.flatten(), minlength=2 * count + 1)[:-1].double()


def f_scores(counts: Tensor, beta2: float) -> Tensor:
    """F in percent (T) at each threshold of `f_counts`; NaN where nothing is positive and nothing predicted."""
    negative, positive = counts.reshape(2, -1)
    true_positive = positive.flip(0).cumsum(0).flip(0)[1:]
    predicted = true_positive + negative.flip(0).cumsum(0).flip(0)[1:]
    # (1 + β²) TP / (β² P + predicted) is F without a division by zero inside.
    denominator = beta2 * positive.sum() + predicted
    f: Tensor = 100 * (1 + beta2) * true_positive / denominator
    return f
