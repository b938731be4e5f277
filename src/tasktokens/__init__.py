"""TaskTokens: one network for many dense prediction tasks from partially labelled images.

The verbs of the command line as functions. They are imported on first use, so that ``import tasktokens`` is quick.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasktokens.apps.check import check
    from tasktokens.apps.demo import demo
    from tasktokens.apps.discover import discover
    from tasktokens.apps.explain import explain
    from tasktokens.apps.predict import predict
    from tasktokens.apps.prepare import prepare
    from tasktokens.apps.train import train
    from tasktokens.config import Config, load_config
    from tasktokens.engine.evaluate import evaluate
    from tasktokens.engine.model_file import load_model

__version__ = version("tasktokens")

_HOMES = {
    "Config": "tasktokens.config",
    "check": "tasktokens.apps.check",
    "demo": "tasktokens.apps.demo",
    "discover": "tasktokens.apps.discover",
    "evaluate": "tasktokens.engine.evaluate",
    "explain": "tasktokens.apps.explain",
    "load_config": "tasktokens.config",
    "load_model": "tasktokens.engine.model_file",
    "predict": "tasktokens.apps.predict",
    "prepare": "tasktokens.apps.prepare",
    "train": "tasktokens.apps.train",
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
