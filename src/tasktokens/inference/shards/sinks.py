"""Where the files of a shard go: into folders, or into one tar file."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from tasktokens.datasets.index import ImageFile
from tasktokens.datasets.provenance import ProvenanceRow
from tasktokens.datasets.tars import TAR, TarWriter
from tasktokens.inference.filled_folder import copy_image, copy_plain
from tasktokens.inference.shards.items import PROVENANCE_ENDING, Item, bounds
from tasktokens.inference.shards.plan import Plan, WorkFolder
from tasktokens.tasks import Task
from tasktokens.utils import strict_json
from tasktokens.utils.atomic import atomically, short_name
from tasktokens.utils.file_kinds import CONFIDENCE, LABEL_ENDINGS


class Sink(Protocol):
    """Takes what was found of items."""

    def place(self, item: Item) -> tuple[Path, str]:
        """A folder and an id: predictions are written as ``TASK/ID.png`` and ``confidence/TASK/ID.png``."""

    def copy(self, item: Item) -> None:
        """Write the image and its given labels; in any thread."""

    def add(self, item: Item, rows: Sequence[ProvenanceRow]) -> None:
        """All files of an item are written; called in the order of the items."""


class FolderSink:
    """Files in the layout of data folders."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def place(self, item: Item) -> tuple[Path, str]:
        """Where they stay."""
        return self.out, item.id

    def copy(self, item: Item) -> None:
        """Byte for byte."""
        copy_image(ImageFile(item.image), self.out / "images", item.id)
        for name, path in item.labels.items():
            copy_plain(path, self.out / name, item.id)

    def add(self, item: Item, rows: Sequence[ProvenanceRow]) -> None:
        """They are where they belong."""
        item.release()


class TarSink:
    """One tar file, in which each item's files follow each other."""

    def __init__(self, writer: TarWriter, scratch: Path, tasks: Mapping[str, Task]) -> None:
        self.writer, self.scratch, self.tasks = writer, scratch, tasks

    def place(self, item: Item) -> tuple[Path, str]:
        """Without the folders of the id: making and removing those takes longer than all else."""
        return self.scratch / "found", str(item.number)

    def copy(self, item: Item) -> None:
        """Given files are packed where they lie."""

    def add(self, item: Item, rows: Sequence[ProvenanceRow]) -> None:
        """Pack: what was given, what was found, and where each label comes from."""
        if item.kept:
            for member in item.kept:
                self.writer.add(member.name, member.path)
        else:
            self.writer.add(f"{item.key}{item.image.suffix.lower()}", item.image)
            for name, path in item.labels.items():
                self.writer.add(f"{item.key}.{name}{path.suffix.lower()}", path)
        folder, id = self.place(item)
        for name in item.missing(self.tasks):
            for kind in ("", f".{CONFIDENCE}"):
                path = _written(folder / kind[1:] / name, id)
                self.writer.add(f"{item.key}.{name}{kind}{path.suffix}", path)
                path.unlink()
        self.writer.add(f"{item.key}.{PROVENANCE_ENDING}", f"{strict_json.dumps(_described(rows))}\n".encode())
        item.release()


def _written(folder: Path, id: str) -> Path:
    """A label file, with the ending that its task gave it."""
    return next(path for ending in LABEL_ENDINGS if (path := folder / f"{id}{ending}").is_file())


def _described(rows: Sequence[ProvenanceRow]) -> dict[str, dict[str, object]]:
    known = {row.task: asdict(row) for row in rows}
    return {
        task: {key: value for key, value in row.items() if key not in ("id", "task") and value not in ("", None)}
        for task, row in known.items()
    }


@contextmanager
def opened_sink(plan: Plan, work: WorkFolder, shard: int, tasks: Mapping[str, Task]) -> Iterator[Sink]:
    """Where a shard goes; a tar file is there when the block has ended well, and else not."""
    if plan.to == "folder":
        yield FolderSink(work.out)
        return
    scratch = work.scratch(shard)
    scratch.mkdir(parents=True, exist_ok=True)
    with atomically(tar_path(plan, work.out, shard)) as new, new.open("wb") as file, TarWriter(file) as writer:
        yield TarSink(writer, scratch, tasks)


def tar_path(plan: Plan, out: Path, shard: int) -> Path:
    """The tar file of a shard: with the name of the one that was read, or with its number."""
    return out / (f"{Path(plan.tars[shard]).stem}{TAR}" if plan.tars else f"{shard:05}{TAR}")


_HALF = re.compile(r"\.(.*)\.\d+\.partial(?:\.[^.]*)?")


def sweep(plan: Plan, work: WorkFolder, shard: int, tasks: Mapping[str, Task]) -> None:
    """Delete the unfinished files that a killed process left of a shard, and no other's."""
    shutil.rmtree(work.scratch(shard), ignore_errors=True)
    _delete(work.path, {work.notes(shard).stem})
    if plan.to == "tars":
        _delete(work.out, {tar_path(plan, work.out, shard).stem})
        return
    places = ["images", *tasks, *(f"{CONFIDENCE}/{name}" for name in tasks)]
    if plan.tars:  # all below the tar file's name is of this shard
        for place in places:
            for half in (work.out / place / Path(plan.tars[shard]).stem).rglob(".*.partial*"):
                half.unlink(missing_ok=True)
        return
    names: dict[str, set[str]] = {}
    table = work.open_table()
    for row in table.rows(*bounds(len(table), plan.shards, shard)):
        above, _, name = row.id.rpartition("/")
        names.setdefault(above, set()).add(short_name(name))
    for above, stems in names.items():
        for place in places:
            _delete(work.out / place / above, stems)


def _delete(folder: Path, stems: set[str]) -> None:
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        halves = [each.path for each in entries if (found := _HALF.fullmatch(each.name)) and found[1] in stems]
    for half in halves:
        Path(half).unlink(missing_ok=True)
