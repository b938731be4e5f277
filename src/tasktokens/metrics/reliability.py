"""Reliability of a confidence: how often pixels of each confidence are right."""

from __future__ import annotations

from typing import ClassVar

import torch
import torchmetrics
from torch import Tensor

_GRAIN = 2**20
"""Confidences are summed as whole numbers of this fraction: such a sum is the same in any order."""


class Reliability(torchmetrics.Metric):  # type: ignore[misc]
    """Counts of pixels and of right pixels in bins of confidence, for each group of a task.

    A ``torchmetrics.Metric``; beside `compute`, the methods below read more off the counts of this process (after
    ``sync()``: of all ranks).

    ``state`` is one float64 tensor (3, G, N + 1) of pixels, right pixels and summed confidences; adding the states of
    two parts gives the state of the whole, to the bit. Bin k of N holds confidences above (k - 1) / N and up to k / N,
    bin 0 those of exactly 0, so that the counts above each k / N are exact. A confidence that is not finite counts as
    nothing: where no other is, all values are NaN.

    Args:
        groups: G, kinds of predictions that are counted apart.
        bins: N.

    Examples:
        >>> metric = Reliability()
        >>> metric.update(torch.full((1, 1, 1, 2), 0.75), torch.tensor([[[[True, False]]]]), torch.ones(1, 1, 1, 2) > 0)
        >>> metric.compute()
        {'ECE': 0.25, 'accuracy': 0.5}
    """

    name: ClassVar[str] = "reliability"
    higher_is_better: ClassVar[dict[str, bool]] = {"ECE": False, "accuracy": True}
    is_differentiable = False
    """For torchmetrics: counting has no gradient."""

    full_state_update = False
    """For torchmetrics: a batch is added once."""

    state: Tensor

    def __init__(self, groups: int = 1, bins: int = 50) -> None:
        super().__init__()
        self.groups, self.bins = groups, bins
        self.levels = tuple(k / bins for k in range(bins))
        """The thresholds that counts are exact for."""
        self.add_state("state", torch.zeros(3, groups, bins + 1, dtype=torch.float64), dist_reduce_fx="sum")

    def update(
        self, confidence_B1HW: Tensor, correct_B1HW: Tensor, valid_B1HW: Tensor, group_B1HW: Tensor | None = None
    ) -> None:
        """Add a batch: confidence in [0, 1], correct and valid bool, group int64 (default: all 0), (B, 1, H, W)."""
        confidence = confidence_B1HW.float()
        levels = torch.tensor(self.levels, device=confidence.device, dtype=confidence.dtype)
        cell = torch.bucketize(confidence.contiguous(), levels)
        if group_B1HW is not None:
            cell = cell + (self.bins + 1) * group_B1HW
        size = self.groups * (self.bins + 1)
        cell = torch.where(valid_B1HW & confidence.isfinite(), cell, size).flatten()
        grains = (confidence.nan_to_num(0, 0, 0).clamp(0, 1) * _GRAIN).round().double().flatten()
        right = torch.bincount(2 * cell + correct_B1HW.flatten(), minlength=2 * size + 2).view(-1, 2)
        # Not a weighted bincount, which has no deterministic form on GPUs.
        total = torch.zeros(size + 1, dtype=torch.float64, device=cell.device).index_add_(0, cell, grains)
        sums = torch.stack([right.sum(1).double(), right[:, 1].double(), total / _GRAIN])[:, :-1]
        self.state = self.state + sums.view(3, self.groups, -1).to(self.state.device)

    def compute(self) -> dict[str, float]:
        """Expected calibration error and the share of right pixels, both in [0, 1]; NaN without pixels."""
        return {"ECE": self.expected_calibration_error(), "accuracy": _ratio(self.state[1].sum(), self.state[0].sum())}

    def coverage(self, threshold: float) -> float:
        """Share of the pixels, over all groups, whose confidence is above one of the levels; NaN without pixels."""
        pixels, _ = self._above()
        return _ratio(pixels.sum(0)[self._level(threshold)], self.state[0].sum())

    def accuracy(self, threshold: float) -> float:
        """Share of right pixels among those; NaN where there is none."""
        pixels, right = self._above()
        level = self._level(threshold)
        return _ratio(right.sum(0)[level], pixels.sum(0)[level])

    def binned(self, count: int) -> Tensor:
        """Pixels, right pixels and summed confidences (3, count), over all groups; ``count`` divides the bins.

        A confidence of exactly 0 is in the first.
        """
        every = self.state.sum(1)
        bins = torch.cat([every[:, :1] + every[:, 1:2], every[:, 2:]], dim=1)
        return bins.view(3, count, -1).sum(-1)

    def expected_calibration_error(self) -> float:
        """Mean over the pixels of |accuracy - mean confidence| of their bin (Guo et al., ICML 2017), in [0, 1]."""
        pixels, right, confidence = self.binned(self.bins)
        return _ratio((right - confidence).abs().sum(), pixels.sum())

    def thresholds(self, accuracy: float) -> Tensor:
        """For each group (G,) the smallest level whose pixels above it are right at least that often; 1 where none."""
        pixels, right = self._above()
        accurate = (right >= accuracy * pixels) & (pixels > 0)
        levels = torch.tensor([*self.levels, 1.0], dtype=torch.float64, device=accurate.device)
        found = (
            torch.cat([accurate, torch.ones_like(accurate[:, :1])], dim=1).int().argmax(dim=1)
        )  # the first of several
        return levels[found]

    def _above(self) -> tuple[Tensor, Tensor]:
        """Pixels and right pixels (G, N) above each level."""
        above = self.state[:2].flip(-1).cumsum(-1).flip(-1)[..., 1:]
        return above[0], above[1]

    def _level(self, threshold: float) -> int:
        try:
            return self.levels.index(threshold)
        except ValueError:
            raise ValueError(f"counts are exact for multiples of 1/{self.bins} below 1, not for {threshold}") from None


def _ratio(part: Tensor, whole: Tensor) -> float:
    return (part / whole).item()
