"""The trackers of accelerate: where each keeps a run, and that nothing is sent unless its own variable says so.

What a tracker is told here are defaults: an environment variable of its own that is set is left alone.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import tracking
from accelerate.utils import LoggerType

from tasktokens.config import Config
from tasktokens.errors import ConfigError
from tasktokens.utils.atomic import write_atomically

PROJECT = "tasktokens"
_PACKAGES = {"comet_ml": "comet-ml", "tensorboard": "tensorboard or pip install 'tasktokens[track]'"}
"""What to install, where it is not the tracker's name."""


def check_installed(names: list[str]) -> None:
    """Raise `ConfigError` for a tracker whose package is not installed."""
    installed = {str(getattr(name, "value", name)) for name in tracking.get_available_trackers()}
    of_accelerate = {each.value for each in LoggerType}
    for name in names:
        if name in of_accelerate - installed:  # one that was registered brings its own package
            raise ConfigError(
                f"run.track names {name}, which is not installed: pip install {_PACKAGES.get(name, name)}"
            )


class TrackedRun(NamedTuple):
    """What a tracker needs to know.

    Attributes:
        name: of the tracker.
        config: of the run.
        done: steps that were logged before, 0 for a new run.
    """

    name: str
    config: Config
    done: int

    @property
    def folder(self) -> Path:
        """The run's."""
        return self.config.run.dir

    @property
    def note(self) -> Path:
        """The file that holds `id`."""
        return self.folder / self.name / "id"

    @property
    def id(self) -> str:
        """Of the run with this tracker: drawn once, so that a resumed run has the same."""
        if not self.note.is_file():
            write_atomically(self.note, uuid.uuid4().hex.encode())
        return self.note.read_text(encoding="utf-8")


def start_tracker(name: str, config: Config, done: int) -> Any:
    """A tracker of a run of which ``done`` steps are done."""
    run = TrackedRun(name, config, done)
    for variable, value in _VARIABLES.get(name, _nothing)(run).items():
        os.environ.setdefault(variable, value)
    kind = tracking.LOGGER_TYPE_TO_CLASS[name]
    where = [run.folder / name] if kind.requires_logging_directory else []
    tracker = kind(PROJECT, *where, **_OPTIONS.get(name, _nothing)(run))
    if hasattr(tracker, "start"):  # earlier versions of accelerate start it at once
        tracker.start()
    if name == "mlflow":
        write_atomically(run.note, tracker.tracker.info.run_id.encode())
    if name not in ("tensorboard", "wandb") and not done:
        tracker.store_init_configuration(_flat(config.model_dump(mode="json")))
    return tracker


_Told = Mapping[str, Callable[[TrackedRun], dict[str, Any]]]


def _nothing(run: TrackedRun) -> dict[str, Any]:
    return {}


def _wandb(run: TrackedRun) -> dict[str, Any]:
    mode = os.environ.get("WANDB_MODE", "offline")
    settings = run.config.model_dump(mode="json")
    return {
        "dir": str(run.folder),
        "name": run.folder.name,
        "id": run.id[:8],
        "resume": "allow",
        "config": settings,
        "mode": mode,
    }


def _mlflow(run: TrackedRun) -> dict[str, Any]:
    return {"run_name": run.folder.name} | ({"run_id": run.id} if run.done else {})


def _comet(run: TrackedRun) -> dict[str, Any]:
    online = os.environ.get("COMET_START_ONLINE", "0").lower() in ("1", "true")
    return {"experiment_key": run.id, "online": online}


def _swanlab(run: TrackedRun) -> dict[str, Any]:
    mode = os.environ.get("SWANLAB_MODE", "offline")
    return {"experiment_name": run.folder.name, "logdir": str(run.folder / "swanlab"), "mode": mode}


_OPTIONS: _Told = {
    "tensorboard": lambda run: {"purge_step": run.done + 1 if run.done else None},
    "wandb": _wandb,
    "mlflow": _mlflow,
    "comet_ml": _comet,
    "swanlab": _swanlab,
    "trackio": lambda run: {"name": f"{run.folder.name}-{run.id[:8]}", "resume": "allow"},
    "clearml": lambda run: {"task_name": run.folder.name},
    "dvclive": lambda run: {"dir": str(run.folder / "dvclive"), "resume": run.done > 0, "save_dvc_exp": False},
}
"""Arguments of the package's own ``init``, beside the project."""

_VARIABLES: _Told = {
    "mlflow": lambda run: {"MLFLOW_TRACKING_URI": (run.folder / "mlflow").resolve().as_uri()},
    "comet_ml": lambda run: {"COMET_OFFLINE_DIRECTORY": str(run.folder / "comet_ml")},
    "clearml": lambda run: {"CLEARML_OFFLINE_MODE": "1"},
}
"""Environment variables, where a package takes no arguments for what they say."""


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str | int | float | bool]:
    """Settings as trackers take them: ``optim.lr`` and a plain value."""
    found: dict[str, str | int | float | bool] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value if isinstance(value, str | int | float) else str(value)
    return found
