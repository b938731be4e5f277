"""The images of a shard, from a table of files or from a tar file, as one kind of item."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tasktokens.datasets.file_table import FileRow
from tasktokens.datasets.provenance import SOURCES, TRUSTED, ProvenanceRow
from tasktokens.datasets.tars import Member, TarSample, image_of, read_samples
from tasktokens.errors import DataError, did_you_mean
from tasktokens.inference.shards.plan import Plan, WorkFolder
from tasktokens.tasks import Task
from tasktokens.utils.file_kinds import ARRAY_ENDINGS, IMAGE_ENDINGS, LABEL_ENDINGS
from tasktokens.utils.safe_io import read_json

PROVENANCE_ENDING = "provenance.json"
"""Of the file of a sample that says where its labels come from."""


@dataclass(frozen=True)
class Item:
    """An image and its given labels.

    Attributes:
        number: its place in the shard.
        id: in tables and folders; ``key``: in tar files.
        image: its file.
        labels: the files of its given labels, by task, in the order of the tasks.
        origins: the rows of ``provenance.csv`` of those that a person accepted or corrected.
        fill: whether missing labels are discovered.
        kept: the files of a tar file's sample that stay as they are; empty for an image of a folder.
        scratch: the files that were extracted for it.
    """

    number: int
    id: str
    key: str
    image: Path
    labels: Mapping[str, Path]
    origins: Mapping[str, ProvenanceRow]
    fill: bool = True
    kept: tuple[Member, ...] = ()
    scratch: tuple[Path, ...] = ()

    def missing(self, tasks: Mapping[str, Task]) -> list[str]:
        """The tasks whose labels are discovered."""
        return [name for name in tasks if name not in self.labels] if self.fill else []

    def release(self) -> None:
        """Its extracted files are not needed any more."""
        for path in self.scratch:
            path.unlink(missing_ok=True)


def items_of(plan: Plan, work: WorkFolder, shard: int, tasks: Mapping[str, Task]) -> Iterator[Item]:
    """The items of a shard, in their order; memory does not grow with their number."""
    if plan.tars:
        yield from _of_tar(Path(plan.tars[shard]), work.scratch(shard), tasks)
        return
    table = work.open_table()
    start, stop = bounds(len(table), plan.shards, shard)
    for row in table.rows(start, stop):
        yield _of_row(row, row.number - start, tasks)
    table.close()


def bounds(images: int, shards: int, shard: int) -> tuple[int, int]:
    """The rows of a shard: first, and the one after the last.

    Examples:
        >>> [bounds(7, 3, shard) for shard in range(3)]
        [(0, 2), (2, 4), (4, 7)]
    """
    return images * shard // shards, images * (shard + 1) // shards


def _of_row(row: FileRow, number: int, tasks: Mapping[str, Task]) -> Item:
    labels = {name: row.labels[name] for name in tasks if name in row.labels}
    origins = {name: ProvenanceRow(*values) for name, values in row.origins.items()}
    return Item(number, row.id, row.id, row.path, labels, origins, row.fill)


def _of_tar(path: Path, scratch: Path, tasks: Mapping[str, Task]) -> Iterator[Item]:
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    for number, sample in enumerate(read_samples(path, scratch)):
        yield _of_sample(sample, path, number, tasks)


def _of_sample(sample: TarSample, path: Path, number: int, tasks: Mapping[str, Task]) -> Item:
    """Labels that were discovered before are no labels: they are discovered anew."""
    image = image_of(sample, path, IMAGE_ENDINGS + ARRAY_ENDINGS)
    id = f"{path.stem}/{sample.key}"
    rows = _provenance(sample, path, id)
    labels: dict[str, Path] = {}
    dropped = {PROVENANCE_ENDING}
    for member in sample.members:
        task, dot, rest = member.ending.partition(".")
        name = {each.lower(): each for each in tasks}.get(task)
        if name is None:
            _check_not_meant(task, dot + rest, sample.key, path, tasks)
        elif name in rows and rows[name].source not in TRUSTED:
            dropped.add(member.ending)
        elif dot + rest in LABEL_ENDINGS:
            if name in labels:
                raise DataError(
                    f"the sample '{sample.key}' of {path} has two labels of task '{name}'; keep one of them"
                )
            labels[name] = member.path
    kept = tuple(member for member in sample.members if member.ending not in dropped)
    ordered = {name: labels[name] for name in tasks if name in labels}
    origins = {name: row for name, row in rows.items() if row.source in TRUSTED and row.source != "given"}
    scratch = tuple(member.path for member in sample.members)
    key = image.name[: -len(image.ending) - 1]  # as it is written there, such as ./0001
    return Item(number, id, key, image.path, ordered, origins, True, kept, scratch)


def _check_not_meant(task: str, ending: str, key: str, path: Path, tasks: Mapping[str, Task]) -> None:
    """A label whose task is written nearly right would be discovered, and a user would not learn why."""
    if ending in LABEL_ENDINGS and (near := did_you_mean(task, tasks)):
        raise DataError(
            f"the sample '{key}' of {path} has a file '{key}.{task}{ending}', and there is no task '{task}'{near}; "
            f"rename it, or call it something else"
        )


def _provenance(sample: TarSample, path: Path, id: str) -> dict[str, ProvenanceRow]:
    found = [member.path for member in sample.members if member.ending == PROVENANCE_ENDING]
    if not found:
        return {}
    try:
        rows = {task: ProvenanceRow(id, task, **values) for task, values in read_json(found[0]).items()}
        if any(row.source not in SOURCES for row in rows.values()):
            raise ValueError(f"a source must be one of {', '.join(SOURCES)}")
        return rows
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(f"'{sample.key}.{PROVENANCE_ENDING}' of {path} cannot be read ({error}); remove it") from error
