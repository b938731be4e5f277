"""Accumulators of the field's metrics; they know tensors, not tasks."""

from tasktokens.metrics.base import Metric, Protocol, higher_is_better
from tasktokens.metrics.binary import BinaryOverlap
from tasktokens.metrics.boundary import BoundaryF, EdgeF
from tasktokens.metrics.confusion import ConfusionMatrix
from tasktokens.metrics.delta import delta_mtl, mean_improvement
from tasktokens.metrics.depth import DepthErrors
from tasktokens.metrics.fmeasure import FMeasure, SaliencyF
from tasktokens.metrics.normals import AngularErrors
from tasktokens.metrics.regression import RegressionErrors
from tasktokens.metrics.reliability import Reliability

__all__ = [
    "AngularErrors", "BinaryOverlap", "BoundaryF", "ConfusionMatrix", "DepthErrors", "EdgeF", "FMeasure", "Metric",
    "Protocol", "RegressionErrors", "Reliability", "SaliencyF", "delta_mtl", "higher_is_better", "mean_improvement",
]  # fmt: skip
