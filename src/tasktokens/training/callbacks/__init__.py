"""What a run does besides updating weights, one file per concern; `Trainer` sets the order."""

from __future__ import annotations

from tasktokens.training.callbacks.base import Callback
from tasktokens.training.callbacks.calibration import Calibration
from tasktokens.training.callbacks.checkpoints import Checkpoints
from tasktokens.training.callbacks.metrics_log import MetricsLog
from tasktokens.training.callbacks.task_weights import TaskWeights
from tasktokens.training.callbacks.tracking import Tracking
from tasktokens.training.callbacks.validation import Validation

__all__ = ["Calibration", "Callback", "Checkpoints", "MetricsLog", "TaskWeights", "Tracking", "Validation"]
