"""Open the data of a run: a folder or the embedded rooms, and the labels of it that may be seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tasktokens.config import Config, RoomsData, TaskOptions
from tasktokens.data.folder import Folder, open_folder
from tasktokens.data.partial import Split, draw_split
from tasktokens.errors import ConfigError, DataError, did_you_mean
from tasktokens.tasks import Task


@dataclass(frozen=True)
class Data:
    """What a run learns from.

    Attributes:
        folder: the files.
        tasks: the run's tasks by name, with its weights and thresholds.
        train: visible labels of the training images.
        holdout: ids of training images set aside for validation; never trained on.
    """

    folder: Folder
    tasks: Mapping[str, Task]
    train: Split
    holdout: tuple[str, ...]


def open_data(config: Config, progress: bool = False) -> Data:
    """Open (and render, for rooms) the data of a run and draw its visible labels.

    Raises `DataError` and `ConfigError` with what is missing and what to do.
    """
    settings = config.data
    if isinstance(settings, RoomsData):
        from tasktokens.data.rooms import rooms_folder

        counts = {"train": settings.train, "val": settings.val, "test": settings.test}
        folder = open_folder(rooms_folder(counts, *settings.size, settings.render_seed, progress=progress))
    elif settings.root is None:
        raise ConfigError("data.root is not set; give the data folder, such as data.root=path/to/folder")
    else:
        folder = open_folder(settings.root)
    tasks = choose_tasks(folder, config.tasks)
    ids = folder.split("train")
    held = round(settings.holdout * len(ids))
    chosen = set(np.random.RandomState(config.seed).permutation(len(ids))[:held].tolist())
    train = [id for i, id in enumerate(ids) if i not in chosen]
    if not train:
        raise DataError(f"{folder.root} has no training images")
    available = {name: folder.labels[name] for name in tasks}
    split = draw_split(train, available, settings.labels, settings.label_seed)
    return Data(folder, tasks, split, tuple(id for i, id in enumerate(ids) if i in chosen))


def choose_tasks(folder: Folder, options: Mapping[str, TaskOptions] | None) -> dict[str, Task]:
    """The data set's tasks that were asked for (None: all), with their weights and thresholds changed."""
    if options is None:
        return dict(folder.tasks)
    if not options:
        raise ConfigError("'tasks' is empty; name at least one task, or leave it out to learn all")
    tasks = {}
    for name, option in options.items():
        if name not in folder.tasks:
            near = did_you_mean(name, folder.tasks)
            raise ConfigError(f"{folder.root} has no task '{name}'{near}; found: {', '.join(folder.tasks)}")
        tasks[name] = replace(folder.tasks[name], **(option or TaskOptions()).model_dump(exclude_none=True))
    return tasks


def full_split(folder: Folder, ids: tuple[str, ...], tasks: Mapping[str, Task]) -> Split:
    """Every label that exists: for evaluation."""
    return {id: tuple(name for name in tasks if id in folder.labels[name]) for id in ids}
