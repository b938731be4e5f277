"""A process that works through shards: it takes one that nobody works on, until none is left."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import torch

from tasktokens.datasets.index import read_image
from tasktokens.datasets.provenance import ProvenanceRow
from tasktokens.inference.discovery_summary import Row, Totals
from tasktokens.inference.filled_folder import write_prediction
from tasktokens.inference.filled_provenance import discovered_row
from tasktokens.inference.predictor import Asked, Predictor
from tasktokens.inference.shards.items import Item, items_of
from tasktokens.inference.shards.plan import Plan, WorkFolder
from tasktokens.inference.shards.sinks import Sink, opened_sink, sweep
from tasktokens.inference.stream import Read, Stream
from tasktokens.tasks import Task
from tasktokens.utils import strict_json
from tasktokens.utils.atomic import atomically
from tasktokens.utils.lock import try_lock
from tasktokens.utils.safe_io import load_json
from tasktokens.utils.signals import StopSignal

Found = TypeVar("Found")
WAIT = 0.5
"""Seconds between two looks at shards that others work on."""


class ShardWorker:
    """Discovers the labels of shards.

    Args:
        predictor: the network.
        work: the folder.
        plan: what was agreed on.
    """

    def __init__(self, predictor: Predictor, work: WorkFolder, plan: Plan) -> None:
        self.predictor, self.work, self.plan, self.tasks = predictor, work, plan, plan.tasks()

    def run(self, stop: StopSignal, shown: bool = False) -> int:
        """Work until all shards are done, by whomever, or until a signal; shards that are left.

        One that another process works on is waited for, and done here should that process die.
        """
        done = self.work.done()
        while self.work.begun and (left := [shard for shard in self._order() if shard not in done]):
            taken = False
            for shard in left:
                if stop.is_received():
                    return len(left)
                taken = self.do(shard, stop) or taken
                if shown and taken:
                    report(len(self.work.done()), self.plan.shards)
            done = self.work.done()
            if not taken and len(done) < self.plan.shards and not stop.is_received():
                time.sleep(WAIT)
        return 0

    def _order(self) -> list[int]:
        """Beginning elsewhere in each of several processes, which so seldom try the same one."""
        rank, ranks = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
        first = self.plan.shards * rank // max(ranks, 1)
        return [*range(first, self.plan.shards), *range(first)]

    def do(self, shard: int, stop: StopSignal | None = None) -> bool:
        """Work on a shard, unless it is done or another process works on it. Whether it was done here."""
        lock = self.work.lock(shard)
        if self.work.notes(shard).exists() or not self.work.begun:
            return False
        interrupted = lock.exists()
        with try_lock(lock) as mine:
            if not mine or self.work.notes(shard).exists() or not self.work.begun:
                return False
            if interrupted:
                sweep(self.plan, self.work, shard, self.tasks)
            return self._do(shard, stop or StopSignal())

    def _do(self, shard: int, stop: StopSignal) -> bool:
        """The notes come into being last: before, the shard is not done, whatever else is there."""
        totals = {name: Totals() for name in self.tasks}
        try:
            with atomically(self.work.notes(shard)) as notes, notes.open("w", encoding="utf-8", newline="\n") as file:
                with opened_sink(self.plan, self.work, shard, self.tasks) as sink:
                    for item, rows in self._gone_through(shard, sink, stop):
                        origins = self._origins(item, rows)
                        sink.add(item, origins)
                        for row in rows:
                            totals[row[1]].add(row)
                        file.write(f"{strict_json.dumps([item.id, [_values(row) for row in origins]])}\n")
                file.write(f"{strict_json.dumps({name: sums.to_list() for name, sums in totals.items()})}\n")
        except _Stopped:
            return False
        finally:
            shutil.rmtree(self.work.scratch(shard), ignore_errors=True)
        return True

    def _gone_through(self, shard: int, sink: Sink, stop: StopSignal) -> Iterator[tuple[Item, list[Row]]]:
        """Items, in their order, and the rows of their discovered labels. Raises `_Stopped` after a signal."""
        filler = _Filler(self, sink)
        stream = Stream(filler.read, self.predictor.ask, filler.write, self.predictor.batch_size, stop.is_received)
        with closing(stream(items_of(self.plan, self.work, shard, self.tasks))) as found:
            yield from in_order(found)
        if stop.is_received():  # there may be items that were not begun
            raise _Stopped

    def _origins(self, item: Item, rows: Sequence[Row]) -> list[ProvenanceRow]:
        given = [item.origins.get(name) or ProvenanceRow(item.id, name, "given") for name in item.labels]
        plan = self.plan
        return given + [discovered_row(row, plan.model, plan.views[row[1]], plan.date) for row in rows]


class _Stopped(Exception):
    """A shard was given up after a signal."""


class _Filler:
    """Reads images and writes what was found of them, in several threads."""

    def __init__(self, worker: ShardWorker, sink: Sink) -> None:
        self.predictor, self.tasks, self.thresholds = worker.predictor, worker.tasks, worker.plan.thresholds
        self.sink = sink

    def read(self, item: Item) -> Read:
        """What the network gets of an image; nothing where no label is missing."""
        if not item.missing(self.tasks):
            return Read(None)
        image = read_image(item.image)
        height, width = image.shape[:2]
        return Read(self.predictor.prepare(image), height * width, (height, width))

    def write(self, item: Item, size: tuple[int, int] | None, asked: Asked | None) -> list[Row]:
        """The files of an item; a row per discovered label."""
        self.sink.copy(item)
        if size is None or asked is None:
            return []
        return [self._discover(item, self.tasks[name], size, asked) for name in item.missing(self.tasks)]

    def _discover(self, item: Item, task: Task, size: tuple[int, int], asked: Asked) -> Row:
        bands = self.predictor.decode_bands(task.name, asked.logits[task.name], size)
        folder, id = self.sink.place(item)
        written = write_prediction(folder, task, id, bands, size, self.thresholds[task.name])
        return [item.id, task.name, *written.row(), "network", asked.disagreement.get(task.name)]


def in_order(found: Iterable[tuple[Item, Found]]) -> Iterator[tuple[Item, Found]]:
    """Items by their numbers, from 0: batches of several sizes come in another order, by a few places."""
    early: dict[int, tuple[Item, Found]] = {}
    number = 0
    for item, result in found:
        early[item.number] = (item, result)
        while number in early:
            yield early.pop(number)
            number += 1


def own_device() -> str | None:
    """The GPU of this process among those that a launcher started on this machine; None: the default."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    place = os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or "0"
    return f"cuda:{int(place) % gpus}" if gpus else None


def report(done: int, shards: int) -> None:
    """How far all processes are."""
    from tasktokens.utils import console

    console.say(f"discovering: {done} of {shards} shards are done")


def _values(row: ProvenanceRow) -> list[Any]:
    """A row without the id."""
    return [
        row.task,
        row.source,
        row.by,
        row.model,
        row.views,
        row.confidence,
        row.coverage,
        row.disagreement,
        row.date,
    ]


def read_notes(path: Path) -> Iterator[tuple[str, list[ProvenanceRow]] | Mapping[str, list[Any]]]:
    """What `ShardWorker` noted of a shard: each item's id with its labels; last, the sums by task."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            values = load_json(line)
            if isinstance(values, dict):
                yield values
            else:
                yield values[0], [ProvenanceRow(values[0], *row) for row in values[1]]
