"""What a discovery in shards will do, decided once, by whichever process comes first, and read by all.

In the output folder, ``discovering/`` holds it until the folder is whole:

    plan.json      settings, tasks, thresholds; written last: a plan without it is made again
    images         the table of images and given labels (`datasets.file_table`); tar files are named in the plan
    00012.jsonl    what shard 12 holds; it is done when this file is there
    00012.lock     the process that works on it is alive as long as it holds this lock
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tasktokens.datasets.file_table import FileTable
from tasktokens.errors import RunExistsError
from tasktokens.tasks import Task, build_task
from tasktokens.utils import strict_json
from tasktokens.utils.atomic import write_atomically
from tasktokens.utils.safe_io import read_json

Layout = Literal["folder", "tars"]
FORMAT = 1
"""Version of the plan and of the shards' notes."""
WORK = "discovering"
WHOLE = ".discovered.json"
"""The plan of a folder that is whole, so that a late process of the same command sees that nothing is left."""


@dataclass(frozen=True)
class Plan:
    """What all processes must agree on.

    Attributes:
        settings: what decides the content of the folder, by a name that a user understands.
        to: the layout of what is written.
        shards: how many.
        images: how many; None for tar files, which say so when they are read.
        tars: the tar files, one per shard; empty for a folder.
        specs: the tasks of the label files, as `build_task` takes them.
        thresholds: of each task.
        views: how the network sees the images, by task, as JSON.
        model: SHA-256 of the network's weights.
        date: of the discovery.
        name: of the data set that is written.
        splits: names of the splits whose lists lie in ``discovering/``; none: all images are ``train``.
        notes: what a user should know.
    """

    settings: dict[str, Any]
    to: Layout
    shards: int
    images: int | None
    tars: list[str]
    specs: dict[str, dict[str, Any]]
    thresholds: dict[str, float]
    views: dict[str, str]
    model: str
    date: str
    name: str
    splits: list[str]
    notes: list[str]

    def tasks(self) -> dict[str, Task]:
        """The tasks by name."""
        return {name: build_task(name, spec) for name, spec in self.specs.items()}


class WorkFolder:
    """The output folder and the work that goes on in it."""

    def __init__(self, out: Path) -> None:
        self.out, self.path = out, out / WORK

    @property
    def table(self) -> Path:
        """Of the images."""
        return self.path / "images"

    def notes(self, shard: int) -> Path:
        """What a shard holds."""
        return self.path / f"{shard:05}.jsonl"

    def lock(self, shard: int) -> Path:
        """Held by the process that works on a shard."""
        return self.path / f"{shard:05}.lock"

    def scratch(self, shard: int) -> Path:
        """Files of a shard that go into a tar file, or come from one."""
        return self.path / f"{shard:05}.files"

    def split(self, name: str) -> Path:
        """The list of a split."""
        return self.path / f"split-{name}.txt"

    def done(self) -> set[int]:
        """The shards that are."""
        return {int(path.stem) for path in self.path.glob("[0-9]*.jsonl")}

    @property
    def begun(self) -> bool:
        """Whether there is work that has not ended."""
        return (self.path / "plan.json").is_file()

    @property
    def whole(self) -> bool:
        """Whether all is done."""
        return (self.out / WHOLE).is_file()

    def read(self) -> Plan | None:
        """The plan of unfinished work; None where none was begun."""
        return _read(self.path / "plan.json")

    def read_whole(self) -> Plan | None:
        """The plan of a folder that is whole."""
        return _read(self.out / WHOLE)

    def write(self, plan: Plan) -> None:
        """From now on processes can join."""
        write_atomically(self.path / "plan.json", _bytes(plan))

    def finish(self, plan: Plan) -> None:
        """The folder is whole."""
        write_atomically(self.out / WHOLE, _bytes(plan))
        self.clear()

    def clear(self) -> None:
        """Delete what is of no use any more."""
        (self.path / "plan.json").unlink(
            missing_ok=True
        )  # first: without it nobody begins a shard whose notes are gone
        shutil.rmtree(self.path, ignore_errors=True)

    def open_table(self) -> FileTable:
        """The images."""
        return FileTable(self.table)


def require_same(out: Path, plan: Plan, settings: dict[str, Any], shards: int | None) -> None:
    """Raise `RunExistsError` where the folder was begun, or written, with other settings."""
    wanted = settings if shards is None or plan.tars else settings | {"number of shards": shards}
    found = plan.settings | {"number of shards": plan.shards}
    different = [name for name, value in wanted.items() if found.get(name) != value]
    if different:
        raise RunExistsError(
            f"another discovery was begun in {out}: it had another {', '.join(different)}; choose another folder, or "
            f"give --overwrite to one process alone"
        )


def _bytes(plan: Plan) -> bytes:
    return f"{strict_json.dumps(asdict(plan), indent=1)}\n".encode()


def _read(path: Path) -> Plan | None:
    return Plan(**read_json(path)) if path.is_file() else None
