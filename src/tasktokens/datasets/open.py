"""Open the data of a run, from whatever source, and choose the labels of it that may be seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tasktokens.config import (
    CityscapesSource,
    ConcatData,
    Config,
    DatasetEntry,
    FolderSource,
    NyudSource,
    RoomsSource,
    Source,
    TaskOptions,
)
from tasktokens.data.visibility import VisibleLabels, draw_visible, published_visible
from tasktokens.datasets.automatic import held_out, settled
from tasktokens.datasets.cityscapes import open_cityscapes
from tasktokens.datasets.concat import combine
from tasktokens.datasets.folder import open_folder
from tasktokens.datasets.index import DatasetIndex
from tasktokens.datasets.nyud.dataset import open_nyud
from tasktokens.datasets.pascal_context.dataset import open_pascal_context
from tasktokens.errors import ConfigError, DataError, did_you_mean
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
    """

    collection: DatasetIndex
    tasks: Mapping[str, Task]
    train: VisibleLabels
    holdout: tuple[str, ...]
    held: VisibleLabels = field(default_factory=dict)


def open_data(config: Config, progress: bool = False) -> Data:
    """Open (and render, for rooms) the data of a run and choose its visible labels.

    Raises `DataError` and `ConfigError` with what is missing and what to do.
    """
    collection = open_data_index(config, progress)
    return choose_data(settled(config, collection), collection)


def open_data_index(config: Config, progress: bool = False) -> DatasetIndex:
    """The data set of a configuration. Raises `DataError` and `ConfigError`; see `open_index`."""
    root = getattr(config.data, "root", None)
    if root is not None and not root.is_absolute() and not root.exists():
        raise DataError(
            f"data folder {root} does not exist in the working directory {Path.cwd()}; give the folder where the data "
            f"lies now (--root DIR, or data.root=DIR)"
        )
    return open_index(config.data, config.data.size, progress)


def choose_data(config: Config, collection: DatasetIndex) -> Data:
    """What a run of these settings, in which nothing is ``auto`` (`settled`), learns from a data set that is open."""
    settings = config.data
    tasks = choose_tasks(collection, config.tasks)
    ids = collection.split("train")
    # Not the run's seed: one that goes on from another with a seed of its own must not have been trained on these.
    seed = settings.label_seed or 0
    held = held_out(ids, settings.holdout, seed)
    train = [id for id in ids if id not in held]
    if not train:
        raise DataError(f"{collection.root} has no training images")
    available = {name: collection.labels[name] for name in tasks}
    holdout = tuple(id for id in ids if id in held)

    def visible(ids: Sequence[str], complete: bool) -> VisibleLabels:
        if settings.label_seed is None and settings.labels in collection.published:
            return published_visible(ids, available, collection.published[settings.labels], settings.labels, complete)
        return draw_visible(ids, available, settings.labels, seed, complete)

    split = visible(train, complete=True)
    # A draw of its own, so that what is seen of the training images does not depend on it.
    return Data(collection, tasks, split, holdout, visible(holdout, complete=False) if holdout else {})


def open_index(settings: Source | ConcatData, size: tuple[int, int], progress: bool = False) -> DatasetIndex:
    """What a source names; nothing is decoded yet.

    Args:
        settings: any kind of ``data`` settings.
        size: (height, width) for sources that render images.
        progress: show it while rendering.
    """
    if isinstance(settings, ConcatData):
        return combine({part.name: _open_part(part, size, progress) for part in settings.parts})
    if isinstance(settings, RoomsSource):
        from tasktokens.datasets.rooms import rooms_folder

        counts = {"train": settings.train, "val": settings.val, "test": settings.test}
        height, width = settings.render_size or size
        return open_folder(rooms_folder(counts, height, width, settings.render_seed, progress=progress))
    if settings.root is None:
        raise ConfigError("data.root is not set; give the data folder, such as data.root=path/to/folder")
    if isinstance(settings, FolderSource):
        return open_folder(settings.root)
    if isinstance(settings, NyudSource):
        return open_nyud(settings.root, settings.classes)
    if isinstance(settings, CityscapesSource):
        return open_cityscapes(settings.root, settings.classes, settings.depth)
    return open_pascal_context(settings.root)


def _open_part(part: DatasetEntry, size: tuple[int, int], progress: bool) -> DatasetIndex:
    """A part's collection with its tasks and splits under the names that the run uses."""
    opened = open_index(part.source, size, progress)
    names = part.tasks if isinstance(part.tasks, dict) else {name: name for name in part.tasks or opened.tasks}
    for name in names:
        if name not in opened.tasks:
            near = did_you_mean(name, opened.tasks)
            raise ConfigError(f"part '{part.name}' has no task '{name}'{near}; found: {', '.join(opened.tasks)}")
    return replace(
        opened,
        tasks={new: replace(opened.tasks[name], name=new) for name, new in names.items()},
        labels={new: opened.labels[name] for name, new in names.items()},
        splits=dict(opened.splits) | {name: opened.split(own) for name, own in part.splits.items()},
        published={},
    )


def choose_tasks(collection: DatasetIndex, options: Mapping[str, TaskOptions] | None) -> dict[str, Task]:
    """The data set's tasks that were asked for (None: all), with their weights and thresholds changed."""
    if options is None:
        return dict(collection.tasks)
    if not options:
        raise ConfigError("'tasks' is empty; name at least one task, or leave it out to learn all")
    tasks = {}
    for name, option in options.items():
        if name not in collection.tasks:
            near = did_you_mean(name, collection.tasks)
            raise ConfigError(f"{collection.root} has no task '{name}'{near}; found: {', '.join(collection.tasks)}")
        tasks[name] = replace(collection.tasks[name], **(option or TaskOptions()).model_dump(exclude_none=True))
    return tasks


def all_visible(collection: DatasetIndex, ids: tuple[str, ...], tasks: Mapping[str, Task]) -> VisibleLabels:
    """Every label that exists: for evaluation."""
    return {id: tuple(name for name in tasks if id in collection.labels[name]) for id in ids}
