"""Several data sets as one: each may be labelled for other tasks (disjoint labels), the case of real life."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import numpy as np
from pydantic import Field, field_validator

from tasktokens.config.base import Chosen, Settings
from tasktokens.datasets.base import DATASETS, DatasetSource
from tasktokens.datasets.index import DatasetIndex, DiscoveredLabel, LabelFile
from tasktokens.errors import ConfigError, did_you_mean
from tasktokens.tasks import Task
from tasktokens.tasks.base import Array

Value = TypeVar("Value")


def concat(parts: Mapping[str, DatasetIndex]) -> DatasetIndex:
    """Join collections; an id of a part becomes ``part/id``. A task of the same name in two parts is one task.

    A part that lacks a task has no labels for it; splits of the same name are joined.

    Raises:
        ConfigError: two parts mean different things by a task's name.
    """
    parts = dict(parts)
    tasks: dict[str, Task] = {}
    labels: dict[str, dict[str, LabelFile]] = {}
    for name in dict.fromkeys(name for index in parts.values() for name in index.tasks):
        of_parts = {part: index.tasks[name] for part, index in parts.items() if name in index.tasks}
        joined = next(iter(of_parts.values())).join(of_parts)
        tasks[name], labels[name] = joined.task, {}
        for part, task in of_parts.items():
            values, same = joined.values.get(part), task.coded_as(joined.task) == joined.task
            read = {id: _of_whole(file, values, same) for id, file in parts[part].labels.get(name, {}).items()}
            labels[name] |= {f"{part}/{id}": file for id, file in read.items()}
            if values is not None:
                parts[part] = _with_values(parts[part], name, values, same)
    images = {f"{part}/{id}": file for part, each in parts.items() for id, file in each.images.items()}
    names = dict.fromkeys(split for each in parts.values() for split in each.splits)
    splits = {
        name: tuple(f"{part}/{id}" for part, each in parts.items() for id in each.splits.get(name, ()))
        for name in names
    }
    return DatasetIndex(
        Path("+".join(parts)), images, tasks, labels, splits,
        discovered=_by_task({part: index.discovered for part, index in parts.items()}),
        completions=_by_task({part: index.completions for part, index in parts.items()}),
        provenance=_by_task({part: index.provenance for part, index in parts.items()}),
    )  # fmt: skip


def _with_values(index: DatasetIndex, name: str, values: Array, same: bool) -> DatasetIndex:
    """A part whose discovered labels of a task have the values of the whole."""

    def moved(found: Mapping[str, Mapping[str, DiscoveredLabel]]) -> dict[str, Mapping[str, DiscoveredLabel]]:
        own = {id: each._replace(label=_of_whole(each.label, values, same)) for id, each in found.get(name, {}).items()}
        return {**found, **({name: own} if own else {})}

    return replace(index, discovered=moved(index.discovered), completions=moved(index.completions))


def _of_whole(file: LabelFile, values: Array | None, same: bool) -> LabelFile:
    """A part's label as one of the whole: with its values there, and no longer plain where its files are stored
    otherwise than the one task of this name would write.
    """
    if values is not None and not np.array_equal(values, np.arange(len(values))):
        file = file._replace(reader=partial(read_values, reader=file.reader, values=values))
    return file if same else file._replace(plain=False)


def read_values(path: Path, reader: Callable[[Path], tuple[Array, Array]], values: Array) -> tuple[Array, Array]:
    """Read a label and give each value its new one."""
    value, valid = reader(path)
    return np.where(valid, values[value], np.uint8(0)), valid


def _by_task(parts: Mapping[str, Mapping[str, Mapping[str, Value]]]) -> dict[str, dict[str, Value]]:
    """What each part has by task and id, under the ids of the whole."""
    joined: dict[str, dict[str, Value]] = {}
    for part, tasks in parts.items():
        for name, values in tasks.items():
            joined.setdefault(name, {}).update({f"{part}/{id}": value for id, value in values.items()})
    return joined


class DatasetEntry(Settings):
    """One of the data sets that a run learns from."""

    name: str = Field(pattern=r"^\w[\w.-]*$", description="first part of its images' ids")
    source: Annotated[DatasetSource, Chosen("kind", lambda: DATASETS, lambda values: "folder")] = Field(
        description="its settings, as in the section data"
    )
    tasks: dict[str, str] | list[str] | None = Field(
        None, description="its tasks to use, or new names for them ({semseg: street}); null: all"
    )
    splits: dict[str, str] = Field({}, description="for a split, the data set's own name of it, such as {test: val}")

    def open_index(self, size: tuple[int, int], progress: bool = False) -> DatasetIndex:
        """The data set with its tasks and splits under the names that the run uses."""
        opened = self.source.open_index(size, progress)
        names = self.tasks if isinstance(self.tasks, dict) else {name: name for name in self.tasks or opened.tasks}
        for name in names:
            if name not in opened.tasks:
                near = did_you_mean(name, opened.tasks)
                raise ConfigError(f"part '{self.name}' has no task '{name}'{near}; found: {', '.join(opened.tasks)}")
        return replace(
            opened,
            tasks={new: replace(opened.tasks[name], name=new) for name, new in names.items()},
            labels={new: opened.labels[name] for name, new in names.items()},
            discovered={new: opened.discovered[name] for name, new in names.items() if name in opened.discovered},
            completions={new: opened.completions[name] for name, new in names.items() if name in opened.completions},
            provenance={new: opened.provenance[name] for name, new in names.items() if name in opened.provenance},
            splits=dict(opened.splits) | {name: opened.split(own) for name, own in self.splits.items()},
            published={},
        )


@DATASETS.register("concat")
class ConcatSource(DatasetSource):
    """Several data sets as one, each perhaps labelled for other tasks."""

    kind: Literal["concat"] = "concat"
    parts: list[DatasetEntry] = Field(min_length=1, description="the data sets")

    @field_validator("parts")
    @classmethod
    def _own_names(cls, parts: list[DatasetEntry]) -> list[DatasetEntry]:
        for name, count in Counter(part.name for part in parts).items():
            if count > 1:
                raise ValueError(f"two parts are named '{name}'")
        return parts

    def open_index(self, size: tuple[int, int], progress: bool = False) -> DatasetIndex:
        """Open each part and join them; see `concat`."""
        return concat({part.name: part.open_index(size, progress) for part in self.parts})
