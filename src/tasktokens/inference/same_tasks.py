"""Whether the data still means what a model was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tasktokens.errors import ConfigError
from tasktokens.tasks import Task


def check_same_tasks(
    model: Mapping[str, Task], data: Mapping[str, Task], zooms: tuple[float, float], model_path: Path, data_path: Path
) -> None:
    """Raise `ConfigError` naming the first difference between a model's tasks and those of its data.

    Args:
        model: as they were trained, able to express every label after zooming.
        data: as the data describes them now.
        zooms: the zoom range of the training (`Augmentation.widest`).
    """
    for name in model:
        if name not in data:
            raise _differs(model_path, data_path, f"task '{name}' is no longer there")
    for name, task in data.items():
        if name not in model:
            raise _differs(model_path, data_path, f"task '{name}' is new, and the model does not predict it")
        trained, now = model[name].spec(), task.widened(zooms).spec()
        for key in dict.fromkeys((*trained, *now)):
            if trained.get(key) != now.get(key):
                found = f"'{key}' of task '{name}' was {trained.get(key)}, now {now.get(key)}"
                raise _differs(model_path, data_path, found)


def _differs(model: Path, data: Path, difference: str) -> ConfigError:
    return ConfigError(
        f"the tasks of {data} are not those that {model} was trained on: {difference}; put the dataset.yaml back as it "
        f"was, or train again"
    )
