"""Whether the tasks of some data are those that a model has learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasktokens.errors import ConfigError
from tasktokens.tasks.base import Task


def require_same_tasks(
    model: Mapping[str, Task],
    data: Mapping[str, Task],
    model_name: object,
    data_name: object,
    zooms: tuple[float, float] | None = None,
    storage: bool = True,
) -> list[str]:
    """Raise `ConfigError` naming the first difference between the tasks of a model and those of its data.

    Args:
        model: tasks by name, as they were trained.
        data: tasks by name, as the data describes them now; it may have more.
        model_name: what the model's tasks are called in the message, such as a run folder.
        data_name: the same for the data's.
        zooms: the zoom range by which the model's tasks were widened (`Augmentation.widest`); None: they were not.
        storage: whether the label files must be stored in the same way too; false: only predictions must agree.

    Returns:
        Names of tasks that only the data has.
    """
    for name, trained in model.items():
        if name not in data:
            raise _differs(model_name, data_name, f"task '{name}' is in the model and no longer in the data")
        now = data[name] if zooms is None else data[name].widened(zooms)
        # Which classes were labelled where says how images are learned from, not what is predicted.
        left_out = ("labelled",) if storage else (*trained.storage, "void")
        if (found := _difference(name, trained.spec(), now.spec(), left_out)) is not None:
            raise _differs(model_name, data_name, found)
    return [name for name in data if name not in model]


def _difference(task: str, model: Mapping[str, Any], data: Mapping[str, Any], left_out: tuple[str, ...]) -> str | None:
    """The first difference of two task descriptions; None without one."""
    classes, classes_now = model.get("classes"), data.get("classes")
    if isinstance(classes, list) and isinstance(classes_now, list):
        if len(classes) != len(classes_now):
            return f"{task}: {len(classes)} classes in the model, now {len(classes_now)} in the data"
        for number, (name, now) in enumerate(zip(classes, classes_now, strict=True)):
            if name != now:
                return f"{task}: class {number} is '{name}' in the model and '{now}' in the data"
    for key in dict.fromkeys((*model, *data)):
        if key not in left_out and model.get(key) != data.get(key):
            return f"{task}: '{key}' is {model.get(key)} in the model and {data.get(key)} in the data"
    return None


def _differs(model: object, data: object, difference: str) -> ConfigError:
    return ConfigError(
        f"the tasks of {data} are not those that {model} was trained on: {difference}; put the description of the data "
        f"back as it was, or train anew"
    )
