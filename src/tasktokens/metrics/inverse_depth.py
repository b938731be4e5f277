"""Errors of inverse depth and of disparity."""

from __future__ import annotations

from typing import ClassVar

from tasktokens.metrics.base import METRICS
from tasktokens.metrics.depth import DepthErrors


@METRICS.register("inverse_depth")
class InverseDepthErrors(DepthErrors):
    """absErr and RMSE in the unit of the labels, relErr, and δ1..δ3: percent within a factor of 1.25, 1.25², 1.25³.

    Examples:
        >>> import torch
        >>> metric = InverseDepthErrors()
        >>> metric.update(torch.tensor([[[[0.1, 0.3]]]]), torch.tensor([[[[0.1, 0.2]]]]))
        >>> round(metric.compute()["relErr"], 2), metric.compute()["delta1"]
        (0.25, 50.0)
    """

    name: ClassVar[str] = "inverse_depth"
    units: ClassVar[dict[str, str]] = {"absErr": "", "RMSE": "", "delta1": "%", "delta2": "%", "delta3": "%"}
