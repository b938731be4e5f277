"""Whether a run may be resumed: its settings, tasks and environment are compared with those that it began with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from tasktokens.config import Config, load_config, to_yaml
from tasktokens.datasets.open import Data
from tasktokens.errors import CheckpointError, ConfigError
from tasktokens.tasks import Task, build_task
from tasktokens.tasks.same import require_same_tasks
from tasktokens.training.checkpoint import complete_checkpoints, latest_checkpoint
from tasktokens.training.run_folder import ENVIRONMENT, TASKS, environment
from tasktokens.utils.safe_io import read_json

_CHANGE_NOTHING: Mapping[str, tuple[str, ...]] = {
    "run": ("dir", "threads", "keep", "log_every", "checkpoint_every", "rank_timeout", "track"),
    "data": ("root", "workers", "cache", "check"),
}
"""Settings that change no result: another spelling of a folder, or another place, is the same run."""


def settings_to_resume(config: Config) -> Config:
    """The settings to resume a run with: those given, with the run's own values for ``auto`` and its steps for minutes.

    Raises `ConfigError` where one that changes results is not the run's; the first is named.
    """
    folder = config.run.dir
    if not (folder / "config.yaml").is_file():
        raise CheckpointError(f"{folder} holds no run to resume (no config.yaml)")
    if not complete_checkpoints(folder / "checkpoints"):
        latest_checkpoint(folder / "checkpoints")  # says so
    old = load_config(folder / "config.yaml")
    config = _without_auto(config, old)
    before, now = _deciding(old), _deciding(config)
    if before != now:
        raise ConfigError(
            f"{folder} was started with other settings; resume with its own ({_difference(before, now)}), which "
            f"'tasktokens train --resume run.dir={folder}' does"
        )
    return config


def require_same_run(config: Config, data: Data, accelerator: Accelerator) -> list[str]:
    """Raise `ConfigError` where the tasks of the data are no longer those of a run.

    Returns:
        Lines to print: tasks that only the data has; versions, device and precision that have changed.
    """
    folder, root, zooms = config.run.dir, data.collection.root, config.data.augmentation.widest
    if (folder / TASKS).is_file():
        added = require_same_tasks(_tasks(folder / TASKS, ()), data.collection.tasks, folder, root)
    else:  # of an earlier version: only its models say what it learned
        models = [folder / name / "model.json" for name in ("model", "best", "teacher")]
        written = next((path for path in models if path.is_file()), None)
        model = {} if written is None else _tasks(written, ("tasks",))
        added = require_same_tasks(model, data.collection.tasks, folder, root, zooms) if model else []
    lines = [
        f"task '{name}' of {root} is new; the run continues without it" for name in added if name not in data.tasks
    ]
    return [*lines, *_other_environment(folder, accelerator)]


def _without_auto(config: Config, old: Config) -> Config:
    data, optim, run = config.data, config.optim, config.run
    if data.labels == "auto":
        data = data.model_copy(update={"labels": old.data.labels})
    if run.evaluate == "auto":
        run = run.model_copy(update={"evaluate": old.run.evaluate})
        if data.holdout == 0 and old.run.evaluate == "holdout":
            data = data.model_copy(update={"holdout": old.data.holdout})
    if optim.batch_size == "auto":
        optim = optim.model_copy(update={"batch_size": old.optim.batch_size})
    method = config.method
    if optim.minutes is not None and type(method) is type(old.method):
        optim = optim.model_copy(update={"minutes": None})
        method = method.model_copy(update={name: getattr(old.method, name) for name in method.step_settings()})
    return config.model_copy(update={"data": data, "method": method, "optim": optim, "run": run})


def _deciding(config: Config) -> str:
    """The settings that change results, as YAML."""
    sections = {name: getattr(config, name) for name in _CHANGE_NOTHING}
    same: dict[str, Any] = {
        name: section.model_copy(
            update={
                key: type(section).model_fields[key].default
                for key in _CHANGE_NOTHING[name]
                if key in type(section).model_fields
            }
        )
        for name, section in sections.items()
    }
    return to_yaml(config.model_copy(update=same))


def _difference(before: str, now: str) -> str:
    """The first setting that differs."""
    pairs = zip_longest(before.splitlines(), now.splitlines(), fillvalue="")
    return next((f"'{a.strip()}' there, '{b.strip()}' here" for a, b in pairs if a != b), "see config.yaml")


def _tasks(path: Path, keys: tuple[str, ...]) -> dict[str, Task]:
    try:
        values = read_json(path)
        for key in keys:
            values = values[key]
        return {name: build_task(name, spec) for name, spec in values.items()}
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged ({type(error).__name__} {error})") from error


def _other_environment(folder: Path, accelerator: Accelerator) -> Iterator[str]:
    """What the run was begun with and is no longer so, in one line."""
    try:
        before = dict(read_json(folder / ENVIRONMENT))
    except (OSError, ValueError, TypeError):
        return
    now = environment(accelerator)
    changed = [f"{key} {before[key]}, now {now[key]}" for key in now if key in before and before[key] != now[key]]
    if changed:
        yield f"the run was begun with {'; '.join(changed)}: results may differ from those of one uninterrupted run"
