"""TaskTokens: one network for many dense prediction tasks from partially labelled images.

- `load` a trained model and ``model.predict(...)``; `create_model` and `open_dataset` for a loop of your own.
- The verbs of the command line as functions: `init`, `check`, `prepare`, `train`, `evaluate`, `predict`, `explain`,
  `discover`, `discover_shards`, `compare`, `export`, `demo`; `load_config` reads their settings.
- `tasks`, `losses`, `metrics`, `methods` and `models` are modules that work alone.

Every path may be text or a `pathlib.Path`. Names are imported on first use, so that ``import tasktokens`` is quick.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Read when torch is loaded: threads that wait for each other must not keep cores busy, or beside other work a run takes
# several times as long (docs/reference/runs.md).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from tasktokens import data, datasets, errors, losses, methods, metrics, models, tasks
    from tasktokens.config import Augmentation, Config, load_config
    from tasktokens.datasets.opened import OpenedDataset, open_dataset
    from tasktokens.datasets.prepare import prepare
    from tasktokens.exporting.export import export
    from tasktokens.inference.discover import discover
    from tasktokens.inference.evaluate import evaluate
    from tasktokens.inference.explain import explain
    from tasktokens.inference.load import load
    from tasktokens.inference.model import Model, from_pretrained
    from tasktokens.inference.predict import predict
    from tasktokens.inference.results import Prediction, Result
    from tasktokens.inference.shards.discover import discover_shards
    from tasktokens.inspection.check import check
    from tasktokens.inspection.init import init
    from tasktokens.models.create import create_model
    from tasktokens.models.files import load_model
    from tasktokens.reporting.comparison.compare import compare
    from tasktokens.reporting.demo import demo
    from tasktokens.reporting.train import train
    from tasktokens.training.callbacks import Callback

    __version__: str

_HOMES = {
    "Augmentation": "tasktokens.config",
    "Callback": "tasktokens.training.callbacks",
    "Config": "tasktokens.config",
    "Model": "tasktokens.inference.model",
    "OpenedDataset": "tasktokens.datasets.opened",
    "Prediction": "tasktokens.inference.results",
    "Result": "tasktokens.inference.results",
    "check": "tasktokens.inspection.check",
    "compare": "tasktokens.reporting.comparison.compare",
    "create_model": "tasktokens.models.create",
    "demo": "tasktokens.reporting.demo",
    "discover": "tasktokens.inference.discover",
    "discover_shards": "tasktokens.inference.shards.discover",
    "evaluate": "tasktokens.inference.evaluate",
    "explain": "tasktokens.inference.explain",
    "export": "tasktokens.exporting.export",
    "from_pretrained": "tasktokens.inference.model",
    "init": "tasktokens.inspection.init",
    "load": "tasktokens.inference.load",
    "load_config": "tasktokens.config",
    "load_model": "tasktokens.models.files",
    "open_dataset": "tasktokens.datasets.opened",
    "predict": "tasktokens.inference.predict",
    "prepare": "tasktokens.datasets.prepare",
    "train": "tasktokens.reporting.train",
}
_MODULES = ("data", "datasets", "errors", "losses", "methods", "metrics", "models", "tasks")

__all__ = [
    "Augmentation",
    "Callback",
    "Config",
    "Model",
    "OpenedDataset",
    "Prediction",
    "Result",
    "check",
    "compare",
    "create_model",
    "data",
    "datasets",
    "demo",
    "discover",
    "discover_shards",
    "errors",
    "evaluate",
    "explain",
    "export",
    "from_pretrained",
    "init",
    "load",
    "load_config",
    "load_model",
    "losses",
    "methods",
    "metrics",
    "models",
    "open_dataset",
    "predict",
    "prepare",
    "tasks",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("tasktokens")
    if name in _MODULES:
        return import_module(f"tasktokens.{name}")
    if name not in _HOMES:
        from tasktokens.errors import did_you_mean

        raise AttributeError(f"module 'tasktokens' has no attribute '{name}'{did_you_mean(name, __all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
