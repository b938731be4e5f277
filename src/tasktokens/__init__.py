"""TaskTokens: one network for many dense prediction tasks from partially labelled images.

The verbs of the command line as functions. They are imported on first use, so that ``import tasktokens`` is quick.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasktokens.config import Config, load_config
    from tasktokens.datasets.prepare import prepare
    from tasktokens.inference.discover import discover
    from tasktokens.inference.evaluate import evaluate
    from tasktokens.inference.explain import explain
    from tasktokens.inference.predict import predict
    from tasktokens.inspection.check import check
    from tasktokens.models.files import load_model
    from tasktokens.reporting.demo import demo
    from tasktokens.reporting.train import train

__version__ = version("tasktokens")

_HOMES = {
    "Config": "tasktokens.config",
    "check": "tasktokens.inspection.check",
    "demo": "tasktokens.reporting.demo",
    "discover": "tasktokens.inference.discover",
    "evaluate": "tasktokens.inference.evaluate",
    "explain": "tasktokens.inference.explain",
    "load_config": "tasktokens.config",
    "load_model": "tasktokens.models.files",
    "predict": "tasktokens.inference.predict",
    "prepare": "tasktokens.datasets.prepare",
    "train": "tasktokens.reporting.train",
}

__all__ = [
    "Config",
    "check",
    "demo",
    "discover",
    "evaluate",
    "explain",
    "load_config",
    "load_model",
    "predict",
    "prepare",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tasktokens' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
