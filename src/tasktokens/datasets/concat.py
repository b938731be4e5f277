"""Several data sets as one: each may be labelled for other tasks (disjoint labels), the case of real life."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field, field_validator

from tasktokens.config.base import Chosen, Settings
from tasktokens.datasets.base import DATASETS, DatasetSource
from tasktokens.datasets.index import DatasetIndex, LabelFile
from tasktokens.errors import ConfigError, did_you_mean
from tasktokens.tasks import Task

Value = TypeVar("Value")


def concat(parts: Mapping[str, DatasetIndex]) -> DatasetIndex:
    """Join collections; an id of a part becomes ``part/id``. A task of the same name in two parts is one task.

    A part that lacks a task has no labels for it; splits of the same name are joined.

    Raises:
        ConfigError: two parts mean different things by a task's name.
    """
    tasks: dict[str, Task] = {}
    labels: dict[str, dict[str, LabelFile]] = {}
    for part, index in parts.items():
        for name, task in index.tasks.items():
            known = tasks.setdefault(name, task)
            if not task.predicts_like(known):
                raise ConfigError(
                    f"task '{name}' of part '{part}' is {task.spec()}, of another part {known.spec()}; "
                    f"rename one of them, such as tasks: {{{name}: {part}_{name}}}"
                )
            # A file of another storage is not what the one task of this name would write.
            files = {f"{part}/{id}": file for id, file in index.labels.get(name, {}).items()}
            labels.setdefault(name, {}).update(
                files if task == known else {id: file._replace(plain=False) for id, file in files.items()}
            )
    images = {f"{part}/{id}": file for part, each in parts.items() for id, file in each.images.items()}
    names = dict.fromkeys(split for each in parts.values() for split in each.splits)
    splits = {
        name: tuple(f"{part}/{id}" for part, each in parts.items() for id in each.splits.get(name, ()))
        for name in names
    }
    return DatasetIndex(
        Path("+".join(parts)), images, tasks, labels, splits,
        discovered=_by_task({part: index.discovered for part, index in parts.items()}),
        provenance=_by_task({part: index.provenance for part, index in parts.items()}),
    )  # fmt: skip


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
