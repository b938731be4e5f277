"""The methods and how to build one from its settings."""

from __future__ import annotations

from collections.abc import Mapping

from tasktokens.config import MethodSettings
from tasktokens.losses import Term
from tasktokens.methods.base import METHODS, Method, PixelSampler, PreparedBatch, Stage, StepOptions
from tasktokens.methods.htt import Htt
from tasktokens.methods.htt_settings import HttMethod
from tasktokens.methods.mtl import MtlMethod, Supervised
from tasktokens.methods.strong_view import StrongView
from tasktokens.tasks import Task

__all__ = [
    "METHODS", "Htt", "HttMethod", "Method", "MtlMethod", "PixelSampler", "PreparedBatch", "Stage", "StepOptions",
    "StrongView", "Supervised", "Term", "build_method",
]  # fmt: skip


def build_method(settings: MethodSettings, tasks: Mapping[str, Task], mirrored: bool = True) -> Method:
    """The method that the settings describe; ``mirrored``: whether training images are (`Method.mirrored`).

    Examples:
        >>> import tasktokens
        >>> config = tasktokens.load_config(overrides=["method.name=mtl", "method.steps=20"])
        >>> [(stage.name, stage.steps) for stage in build_method(config.method, {}).stages()]
        [('supervised', 20)]
    """
    method = METHODS[settings.name](tasks, settings)
    method.mirrored = mirrored
    return method
