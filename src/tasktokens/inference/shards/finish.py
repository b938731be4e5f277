"""All shards are done: what describes the folder, from their notes, with constant memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from tasktokens.datasets.provenance import ProvenanceRow, write_unique
from tasktokens.inference.description import write_description
from tasktokens.inference.discovery_summary import SUMMARY, Discovery, Totals
from tasktokens.inference.filled_folder import described_tasks, write_split
from tasktokens.inference.shards.plan import Plan, WorkFolder
from tasktokens.inference.shards.worker import read_notes
from tasktokens.utils.atomic import atomically, write_atomically


def finish(work: WorkFolder, plan: Plan) -> None:
    """Write the tables and, last, ``dataset.yaml``; a process that is killed meanwhile leaves it to the next."""
    for half in work.out.glob(".*.partial*"):  # of one that was
        half.unlink(missing_ok=True)
    tasks, totals = plan.tasks(), {name: Totals() for name in plan.specs}
    write_unique(work.out, _labels(work, plan, totals))
    summaries = tuple(totals[name].summary(name, threshold) for name, threshold in plan.thresholds.items())
    discovery = Discovery(work.out, summaries, tuple(plan.notes))
    write_atomically(work.out / SUMMARY, f"{discovery.to_json()}\n".encode())
    splits = [] if plan.to == "tars" else plan.splits or ["train"]
    for name in splits:
        if plan.splits:
            with atomically(work.out / f"{name}.txt") as new:
                shutil.copyfile(work.split(name), new)
        else:
            write_split(work.out, name, _ids(work, plan))
    values = {
        "name": plan.name,
        **({"splits": {name: f"{name}.txt" for name in splits}} if splits else {}),
        "tasks": described_tasks(tasks, plan.thresholds),
    }
    write_description(work.out, values, tasks)
    work.finish(plan)


def _ids(work: WorkFolder, plan: Plan) -> Iterator[str]:
    for path in _notes(work, plan):
        for noted in read_notes(path):
            if not isinstance(noted, Mapping):
                yield noted[0]


def _labels(work: WorkFolder, plan: Plan, totals: Mapping[str, Totals]) -> Iterator[ProvenanceRow]:
    """The rows of all labels; the sums of the shards are added to ``totals`` on the way."""
    for path in _notes(work, plan):
        for noted in read_notes(path):
            if isinstance(noted, Mapping):
                for name, sums in noted.items():
                    totals[name].merge(sums)
            else:
                yield from noted[1]


def _notes(work: WorkFolder, plan: Plan) -> Iterator[Path]:
    return (work.notes(shard) for shard in range(plan.shards))
