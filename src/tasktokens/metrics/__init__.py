"""The field's metrics as ``torchmetrics.Metric`` classes; they know tensors, not tasks."""

from tasktokens.metrics.base import METRICS, Metric, Protocol, higher_is_better
from tasktokens.metrics.binary import BinaryOverlap
from tasktokens.metrics.boundary import BoundaryF
from tasktokens.metrics.delta import delta_mtl, mean_improvement
from tasktokens.metrics.depth import DepthErrors
from tasktokens.metrics.edge import EdgeF
from tasktokens.metrics.fmeasure import FMeasure
from tasktokens.metrics.inverse_depth import InverseDepthErrors
from tasktokens.metrics.mean_iou import MeanIoU
from tasktokens.metrics.normals import AngularErrors
from tasktokens.metrics.regression import RegressionErrors
from tasktokens.metrics.reliability import Reliability
from tasktokens.metrics.saliency import SaliencyF

__all__ = [
    "METRICS",
    "AngularErrors", "BinaryOverlap", "BoundaryF", "DepthErrors", "EdgeF", "FMeasure", "InverseDepthErrors", "MeanIoU",
    "Metric", "Protocol", "RegressionErrors", "Reliability", "SaliencyF", "delta_mtl", "higher_is_better",
    "mean_improvement",
]  # fmt: skip
