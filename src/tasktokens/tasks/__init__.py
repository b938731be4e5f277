"""The tasks, and how to build one from the plain values of a ``dataset.yaml`` or a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasktokens.errors import ConfigError, did_you_mean
from tasktokens.tasks.base import KINDS, TRAINING, Task, check_numbers
from tasktokens.tasks.binary import Binary
from tasktokens.tasks.depth import Depth
from tasktokens.tasks.edge import Edge
from tasktokens.tasks.names import check_task_name
from tasktokens.tasks.normals import Normals
from tasktokens.tasks.regression import Regression
from tasktokens.tasks.saliency import Saliency
from tasktokens.tasks.segmentation import Segmentation
from tasktokens.tasks.vectors import Vectors

__all__ = [
    "KINDS", "Binary", "Depth", "Edge", "Normals", "Regression", "Saliency", "Segmentation", "Task", "Vectors",
    "build_task",
]  # fmt: skip


def build_task(name: str, spec: Mapping[str, Any]) -> Task:
    """Build a task from its name and plain values such as ``{"kind": "depth", "range": [0.5, 10]}``.

    Raises `ConfigError` for a reserved name, an unknown kind or setting, or a value of the wrong form.

    Examples:
        >>> task = build_task("depth", {"kind": "depth", "range": [0.5, 10], "bins": 20})
        >>> task.num_tokens, task.spec()["range"]
        (20, [0.5, 10])
    """
    check_task_name(name)
    values = dict(spec)
    kind = values.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        raise ConfigError(
            f"task '{name}' has kind {kind!r}{did_you_mean(str(kind), KINDS)}; expected one of: {', '.join(KINDS)}"
        )
    common = {name: values.pop(name, None) for name in TRAINING}
    try:
        parsed = common | KINDS[kind].parse(values)
        given = {key: value for key, value in parsed.items() if value is not None}
        check_numbers(KINDS[kind], given)
        task = KINDS[kind](name=name, **given)
        wrong = task.validate()
    except ConfigError as error:
        wrong = str(error)
    except KeyError as error:
        wrong = f"needs the setting {error}"
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        wrong = f"{type(error).__name__} for {error} in {dict(spec)}"
    if wrong:
        raise ConfigError(f"task '{name}' of kind '{kind}': {wrong}")
    return task
