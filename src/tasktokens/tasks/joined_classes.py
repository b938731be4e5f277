"""One task of classes for several data sets, whose lists of classes may differ where each says what was labelled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tasktokens.errors import ConfigError
from tasktokens.tasks.base import Array, Joined
from tasktokens.tasks.partial_classes import with_mirrored

if TYPE_CHECKING:
    from tasktokens.tasks.segmentation import Segmentation


def join_classes(name: str, parts: Mapping[str, Segmentation]) -> Joined:
    """The task ``name`` of all parts: classes of the same name are one, in the order in which they first come.

    A part that lists fewer classes than all of them must say which of its own were labelled: its other pixels may be of
    any class that it does not know.

    Raises `ConfigError` for a part that does not say so.
    """
    tasks = list(parts.values())
    names = tuple(dict.fromkeys(each for task in tasks for each in task.classes))
    for part, task in parts.items():
        if task.reads is None and len(task.classes) < len(names):
            lacks = next(each for each in names if each not in task.classes)
            raise ConfigError(
                f"task '{name}' of part '{part}' has no class '{lacks}', which another part has; say which of its "
                f"classes were labelled there, such as labelled: [{task.classes[-1]}], or rename the task"
            )
    pairs = dict.fromkeys(
        (names.index(task.classes[a]), names.index(task.classes[b])) for task in tasks for a, b in task.mirror
    )
    sets = dict.fromkeys(
        tuple(sorted(names.index(task.classes[number]) for number in each)) for task in tasks for each in task.labelled
    )
    same = all(task.classes == names for task in tasks)
    # Files of other classes are stored otherwise than any of the parts' own.
    own = tasks[0] if same else replace(tasks[0], void=(255,), ids=(), colours=(), void_colours=())
    mirror = tuple(pairs)
    joined = replace(own, classes=names, mirror=mirror, labelled=with_mirrored(tuple(sets), mirror), reads=None)
    if (wrong := joined.validate()) is not None:
        raise ConfigError(f"task '{name}' of the parts {', '.join(parts)}: {wrong}")
    return Joined(joined, {part: values_in(task, joined) for part, task in parts.items()})


def values_in(task: Segmentation, other: Segmentation) -> Array:
    """The value (classes + sets,) uint8 that each value of a task's labels has in another task."""
    classes = [other.classes.index(name) for name in task.classes]
    sets = [other.labelled.index(tuple(sorted(classes[number] for number in each))) for each in task.labelled]
    return np.array([*classes, *(len(other.classes) + number for number in sets)], np.uint8)
