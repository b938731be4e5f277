"""F-measure of probability maps, pooled over the set (maxF of salient-object detection)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from tasktokens.metrics.base import Metric

LEVELS = tuple(i / 20 for i in range(1, 20))
"""0.05, 0.10, ..., 0.95."""

PAPER_LEVELS = tuple(math.log(t / (1 - t)) for t in (0.5, 0.55, 0.6, 0.65, 0.7))
"""What is left of `LEVELS` where a sigmoid is applied to probabilities: 0, 0.2007, 0.4055, 0.6190, 0.8473."""


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
        return {self.name: self.f_at(self.thresholds).max().item()}

    def f_at(self, thresholds: Sequence[float]) -> Tensor:
        """F in percent at some of the metric's thresholds; NaN where nothing valid was seen."""
        negative, positive = self.state.reshape(2, -1)
        true_positive = positive.flip(0).cumsum(0).flip(0)[1:]
        predicted = true_positive + negative.flip(0).cumsum(0).flip(0)[1:]
        # (1 + β²) TP / (β² P + predicted) is F without a division by zero inside.
        denominator = self.beta2 * positive.sum() + predicted
        f = 100 * (1 + self.beta2) * true_positive / denominator.clamp(min=1)
        chosen = f[[self.thresholds.index(level) for level in thresholds]]
        return chosen if self.state.sum() > 0 else torch.full_like(chosen, torch.nan)


class SaliencyF(FMeasure):
    """Best (maxF) and mean (meanF) F over 19 thresholds, β² = 0.3, in percent (Achanta et al., CVPR 2009).

    Published multi-task code applies a sigmoid to probabilities, so that only five of the thresholds tell pixels apart;
    `compute_paper` takes those.
    """

    higher_is_better: ClassVar[dict[str, bool]] = {"maxF": True, "meanF": True}
    units: ClassVar[dict[str, str]] = {"maxF": "%", "meanF": "%"}

    def __init__(self) -> None:
        super().__init__("maxF", beta2=0.3, thresholds=tuple(sorted(LEVELS + PAPER_LEVELS)))

    def compute(self) -> dict[str, float]:
        return self._best_and_mean(LEVELS)

    def compute_paper(self) -> dict[str, float]:
        return self._best_and_mean(PAPER_LEVELS)

    def _best_and_mean(self, levels: Sequence[float]) -> dict[str, float]:
        f = self.f_at(levels)
        return {"maxF": f.max().item(), "meanF": f.mean().item()}
