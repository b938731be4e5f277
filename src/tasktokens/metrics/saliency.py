"""maxF and meanF of salient-object detection (Achanta et al., CVPR 2009)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from tasktokens.metrics.base import METRICS
from tasktokens.metrics.fmeasure import LEVELS, FMeasure

PAPER_LEVELS = tuple(math.log(t / (1 - t)) for t in (0.5, 0.55, 0.6, 0.65, 0.7))
"""What is left of `LEVELS` where a sigmoid is applied to probabilities: 0, 0.2007, 0.4055, 0.6190, 0.8473."""


@METRICS.register("saliency")
class SaliencyF(FMeasure):
    """Best (maxF) and mean (meanF) F over 19 thresholds, β² = 0.3, in percent (Achanta et al., CVPR 2009).

    Published multi-task code applies a sigmoid to probabilities, so that only five of the thresholds separate pixels;
    `compute_paper` uses those.

    Examples:
        >>> import torch
        >>> metric = SaliencyF()
        >>> metric.update(torch.tensor([[[[0.9, 0.1]]]]), torch.tensor([[[[1.0, 0.0]]]]))
        >>> metric.compute()["maxF"]
        100.0
    """

    name: ClassVar[str] = "saliency"
    higher_is_better: ClassVar[dict[str, bool]] = {"maxF": True, "meanF": True}
    units: ClassVar[dict[str, str]] = {"maxF": "%", "meanF": "%"}

    def __init__(self) -> None:
        super().__init__("maxF", beta2=0.3, thresholds=tuple(sorted(LEVELS + PAPER_LEVELS)))

    def compute(self) -> dict[str, float]:
        """maxF and meanF over 19 thresholds, in percent."""
        return self._best_and_mean(LEVELS)

    def paper_values(self) -> dict[str, float]:
        """maxF and meanF over the five thresholds that published code in effect compares."""
        return self._best_and_mean(PAPER_LEVELS)

    def _best_and_mean(self, levels: Sequence[float]) -> dict[str, float]:
        f = self.f_at(levels)
        return {"maxF": f.max().item(), "meanF": f.mean().item()}
