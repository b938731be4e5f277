"""Several data sets as one: each may be labelled for other tasks (disjoint labels), the case of real life."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tasktokens.datasets.index import DatasetIndex, LabelFile
from tasktokens.errors import ConfigError
from tasktokens.tasks import Task


def combine(parts: Mapping[str, DatasetIndex]) -> DatasetIndex:
    """Join collections; an id of a part becomes ``part/id``. A task of the same name in two parts is one task.

    A part that lacks a task has no labels for it; splits of the same name are joined.

    Raises:
        ConfigError: two parts mean different things by a task's name.
    """
    tasks: dict[str, Task] = {}
    labels: dict[str, dict[str, LabelFile]] = {}
    for part, collection in parts.items():
        for name, task in collection.tasks.items():
            known = tasks.setdefault(name, task)
            if not task.predicts_like(known):
                raise ConfigError(
                    f"task '{name}' of part '{part}' is {task.spec()}, of another part {known.spec()}; "
                    f"rename one of them, such as tasks: {{{name}: {part}_{name}}}"
                )
            # A file of another storage is not what the one task of this name would write.
            files = {f"{part}/{id}": file for id, file in collection.labels.get(name, {}).items()}
            labels.setdefault(name, {}).update(
                files if task == known else {id: file._replace(plain=False) for id, file in files.items()}
            )
    images = {f"{part}/{id}": file for part, each in parts.items() for id, file in each.images.items()}
    names = dict.fromkeys(split for each in parts.values() for split in each.splits)
    splits = {
        name: tuple(f"{part}/{id}" for part, each in parts.items() for id in each.splits.get(name, ()))
        for name in names
    }
    return DatasetIndex(Path("+".join(parts)), images, tasks, labels, splits)
