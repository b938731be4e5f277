"""Accumulators of the field's metrics; they know tensors, not tasks."""

from tasktokens.metrics.base import Metric, higher_is_better
from tasktokens.metrics.binary import BinaryOverlap
from tasktokens.metrics.confusion import ConfusionMatrix
from tasktokens.metrics.delta import delta_mtl
from tasktokens.metrics.depth import DepthErrors
from tasktokens.metrics.fmeasure import FMeasure
from tasktokens.metrics.normals import AngularErrors
from tasktokens.metrics.regression import RegressionErrors

__all__ = [
    "AngularErrors", "BinaryOverlap", "ConfusionMatrix", "DepthErrors", "FMeasure", "Metric", "RegressionErrors",
    "delta_mtl", "higher_is_better",
]  # fmt: skip
