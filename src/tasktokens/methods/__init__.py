"""The methods and how to build one from its settings."""

from __future__ import annotations

from collections.abc import Mapping

from tasktokens.config import HttMethod, MtlMethod
from tasktokens.losses import Term
from tasktokens.methods.base import Method, PixelSampler, PreparedBatch, Stage, StepOptions
from tasktokens.methods.htt import Htt
from tasktokens.methods.mtl import Supervised
from tasktokens.tasks import Task

__all__ = [
    "Htt",
    "Method",
    "PixelSampler",
    "PreparedBatch",
    "Stage",
    "StepOptions",
    "Supervised",
    "Term",
    "build_method",
]


def build_method(settings: HttMethod | MtlMethod, tasks: Mapping[str, Task]) -> Method:
    """The method that the settings describe."""
    if isinstance(settings, MtlMethod):
        return Supervised(tasks, settings)
    return Htt(tasks, settings)
