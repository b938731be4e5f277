"""Open the data of a run, from whatever source, and choose the labels of it that may be seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tasktokens.config import Config, TaskOptions
from tasktokens.data.visibility import VisibleLabels, draw_visible, published_visible
from tasktokens.datasets.automatic import held_out, settled
from tasktokens.datasets.base import DatasetSource
from tasktokens.datasets.discovered_folders import DiscoveredFolders, require_told_apart
from tasktokens.datasets.index import DatasetIndex
from tasktokens.errors import ConfigError, DataError, did_you_mean
from tasktokens.hub.address import is_address
from tasktokens.tasks import Task


@dataclass(frozen=True)
class Data:
    """What a run learns from.

    Attributes:
        collection: the files.
        tasks: the run's tasks by name, with its weights and thresholds.
        train: visible labels of the training images.
        holdout: ids of training images set aside for validation; never trained on.
        held: visible labels of the held-out images, chosen by the same rule as those of the training images.
        discovered: labels of training images that were discovered before, here or elsewhere; None: there are none.
    """

    collection: DatasetIndex
    tasks: Mapping[str, Task]
    train: VisibleLabels
    holdout: tuple[str, ...]
    held: VisibleLabels = field(default_factory=dict)
    discovered: DiscoveredFolders | None = None

    @property
    def learned(self) -> VisibleLabels:
        """For each training image the tasks that need no teacher: their label is visible, or was discovered before."""
        found = self.discovered
        if found is None or found.in_place_of_teacher:
            return self.train
        return {
            id: tuple(name for name in self.tasks if name in seen or found.has(id, name))
            for id, seen in self.train.items()
        }


def open_data(config: Config, progress: bool = False) -> Data:
    """Open (and render, for rooms) the data of a run and choose its visible labels.

    Raises `DataError` and `ConfigError` with what is missing and what to do.
    """
    index = open_index(config, progress)
    return choose_data(settled(config, index), index)


def choose_data(config: Config, index: DatasetIndex) -> Data:
    """What a run of these settings, in which nothing is ``auto`` (`settled`), learns from a data set that is open."""
    settings = config.data
    tasks = choose_tasks(index, config.tasks)
    ids = index.split("train")
    # Not the run's seed: one that goes on from another with a seed of its own must not have been trained on these.
    seed = settings.label_seed or 0
    held = held_out(ids, settings.holdout, seed)
    train = [id for id in ids if id not in held]
    if not train:
        raise DataError(f"{index.root} has no training images")
    available = {name: index.labels[name] for name in tasks}
    holdout = tuple(id for id in ids if id in held)

    def visible(ids: Sequence[str], complete: bool) -> VisibleLabels:
        if settings.label_seed is None and settings.labels in index.published:
            return published_visible(ids, available, index.published[settings.labels], settings.labels, complete)
        return draw_visible(ids, available, settings.labels, seed, complete, index.images)

    split = visible(train, complete=True)
    # A draw of its own, so that what is seen of the training images does not depend on it.
    return Data(index, tasks, split, holdout, visible(holdout, complete=False) if holdout else {})


def open_index(config: Config, progress: bool = False) -> DatasetIndex:
    """The data set that a configuration names; nothing is decoded yet.

    Raises `DataError` and `ConfigError` with what is missing and what to do.
    """
    root = getattr(config.data, "root", None)
    if root is not None and not root.is_absolute() and not is_address(root) and not root.exists():
        raise DataError(
            f"data folder {root} does not exist in the working directory {Path.cwd()}; give the folder where the data "
            f"lies now (--root DIR, or data.root=DIR)"
        )
    assert isinstance(config.data, DatasetSource)  # its class is that of a registered data set
    index = config.data.open_index(config.data.size, progress)
    require_told_apart(index, config.data.discovered)
    return index


def choose_tasks(index: DatasetIndex, options: Mapping[str, TaskOptions] | None) -> dict[str, Task]:
    """The data set's tasks that were asked for (None: all), with their weights and thresholds changed."""
    if options is None:
        return dict(index.tasks)
    if not options:
        raise ConfigError("'tasks' is empty; name at least one task, or leave it out to learn all")
    tasks = {}
    for name, option in options.items():
        if name not in index.tasks:
            near = did_you_mean(name, index.tasks)
            raise ConfigError(f"{index.root} has no task '{name}'{near}; found: {', '.join(index.tasks)}")
        tasks[name] = replace(index.tasks[name], **(option or TaskOptions()).model_dump(exclude_none=True))
    return tasks


def all_visible(index: DatasetIndex, ids: tuple[str, ...], tasks: Mapping[str, Task]) -> VisibleLabels:
    """Every label that exists: for evaluation."""
    return {id: tuple(name for name in tasks if id in index.labels[name]) for id in ids}
