"""Metrics as sums: `update` adds a batch to sufficient statistics, `compute` reads the metrics off them.

The sums have a constant size, so the result is exact for any batch size and, summed over processes, for any number
of ranks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
import torchmetrics
from torch import Tensor

from tasktokens.registry import Registry

Protocol = Literal["correct", "paper"]
"""``correct`` is `Metric.compute`, ``paper`` is `Metric.compute_paper`."""


class Metric(torchmetrics.Metric, ABC):  # type: ignore[misc]
    """A ``torchmetrics.Metric`` of dense predictions, with one state: a float64 vector of sums.

    ``update``, ``compute``, ``reset``, ``forward``, ``to`` and the sync over ranks are those of torchmetrics. Where a
    valid pixel holds NaN or infinity, in the prediction or in the target, all values are NaN. What the
    target holds at pixels that are not valid changes nothing.

    A subclass gives `name`, `higher_is_better`, `units`, `primary`, `statistics` and `compute`.

    Args:
        size: number of sums.

    Attributes:
        state: the sums; adding those of two parts gives the sums of the whole.

    Examples:
        >>> class Mean(Metric):
        ...     higher_is_better, units, primary = {"mean": True}, {"mean": "m"}, "mean"
        ...     def statistics(self, prediction_BCHW, target_BCHW, valid_B1HW):
        ...         return torch.stack([(prediction_BCHW * valid_B1HW).sum(), valid_B1HW.sum()]).double()
        ...     def compute(self):
        ...         return {"mean": (self.state[0] / self.state[1]).item()}
        >>> metric = Mean(2)
        >>> metric.update(torch.full((1, 1, 2, 2), 3.0), torch.zeros(1, 1, 2, 2))
        >>> metric.compute()
        {'mean': 3.0}
    """

    name: ClassVar[str] = ""
    """Name in the registry."""

    higher_is_better: ClassVar[dict[str, bool]] = {}
    """Direction of each of the names that `compute` returns; ``IoU/wall`` goes by ``IoU``."""

    units: ClassVar[dict[str, str]] = {}
    """Unit of each of them: ``%``, ``m``, ``°``."""

    is_differentiable = False
    """For torchmetrics: counting has no gradient."""

    full_state_update = False
    """For torchmetrics: a batch is added once."""

    state: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.add_state("state", torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")

    @property
    @abstractmethod
    def primary(self) -> str:
        """The value that comparisons and Δ_MTL use."""

    @property
    def primary_is_higher(self) -> bool:
        """Whether more of the primary value is better."""
        return higher_is_better(self, self.primary)

    @abstractmethod
    def statistics(self, prediction_BCHW: Tensor, target_BCHW: Tensor, valid_B1HW: Tensor) -> Tensor:
        """The float64 sums of one batch; invalid pixels contribute nothing, whatever their target holds.

        `update` has replaced predictions that are not finite by 0.
        """

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Metrics by name; NaN where nothing valid was seen."""

    def compute_paper(self) -> dict[str, float]:
        """The same names with the quirks of published multi-task code, for comparison: docs/reference/metrics.md."""
        with self.sync_context(self.dist_sync_fn, should_sync=self._to_sync, should_unsync=self._should_unsync):
            return self.paper_values()

    def paper_values(self) -> dict[str, float]:
        """What `compute_paper` reads off the sums of all ranks; the values of `compute` unless a subclass differs."""
        return type(self).compute(self)  # not self.compute, which would sync again

    def update(self, prediction_BCHW: Tensor, target_BCHW: Tensor, valid_B1HW: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            prediction_BCHW: decoded predictions, in the target's unit (class ids, metres, probabilities ...).
            target_BCHW: labels, of the same shape.
            valid_B1HW: bool, which pixels count; all of them by default.

        Raises:
            ValueError: shapes or types do not fit.
        """
        valid = _checked(prediction_BCHW, target_BCHW, valid_B1HW)
        if valid.numel() == 0:
            return
        known = prediction_BCHW.isfinite().all(1, keepdim=True)
        usable = known & target_BCHW.isfinite().all(1, keepdim=True)
        sums = self.statistics(torch.where(known, prediction_BCHW, 0), target_BCHW, valid & usable)
        sums = torch.where((usable | ~valid).all(), sums, torch.nan)
        self.state = self.state + sums.to(self.state.device)


def _checked(prediction: Tensor, target: Tensor, valid: Tensor | None) -> Tensor:
    """The mask, all True by default; raises `ValueError` where shapes would be broadcast."""
    if prediction.ndim != 4 or prediction.shape != target.shape:
        raise ValueError(
            f"prediction and target must both be (B, C, H, W); they are {tuple(prediction.shape)} and "
            f"{tuple(target.shape)}"
        )
    batch, _, height, width = prediction.shape
    if valid is None:
        return torch.ones(batch, 1, height, width, dtype=torch.bool, device=prediction.device)
    if valid.dtype != torch.bool or valid.shape != (batch, 1, height, width):
        raise ValueError(
            f"the mask must be bool of shape {(batch, 1, height, width)}; it is {valid.dtype} of shape "
            f"{tuple(valid.shape)}"
        )
    return valid


def higher_is_better(metric: Metric, name: str) -> bool:
    """Direction of one of the metric's names (per-class values go by their prefix).

    Examples:
        >>> from tasktokens.metrics import MeanIoU
        >>> higher_is_better(MeanIoU(2, ("floor", "wall")), "IoU/wall")
        True
    """
    return metric.higher_is_better.get(name.split("/")[0], True)


METRICS: Registry[type[Metric]] = Registry("metric", "tasktokens.metrics")
"""Metrics by name, for task kinds that choose one by a setting and for ``tasktokens list``."""
