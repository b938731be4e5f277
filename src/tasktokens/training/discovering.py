"""Between two stages: the network of the stage before discovers the labels that the next one learns from."""

from __future__ import annotations

import csv
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tasktokens.datasets.discovered_folders import Row
from tasktokens.datasets.prepared import sha256
from tasktokens.discovery.store import TABLE, Provenance, Store, StoreWriter, labels_digest, missing_labels, open_store
from tasktokens.discovery.whole_images import WholeImages, fill_store
from tasktokens.errors import CheckpointError
from tasktokens.models import Network
from tasktokens.models.files import load_model, save_model
from tasktokens.utils.atomic import atomically
from tasktokens.utils.distributed import all_gather, raise_on_all_ranks, stopping
from tasktokens.utils.progress import track

if TYPE_CHECKING:
    from tasktokens.training.trainer import Trainer

TEACHER = "teacher"
"""Folder of a run that holds the network which discovered its labels."""


def store_folder(run: Path, stage: str) -> Path:
    """Where a stage's discovered labels lie: ``discovered``, and ``discovered2`` for a second round."""
    return run / stage.replace("discovery", "discovered")


def kept_teacher(trainer: Trainer, before: Network | None) -> tuple[Network, str]:
    """The network that discovers a stage's labels, kept in the run folder, and the SHA-256 of its weights file.

    Args:
        before: what the stage before handed on; None in a run that is resumed at the start of the stage.
    """
    accelerator, folder = trainer.accelerator, trainer.folder / TEACHER
    with raise_on_all_ranks(accelerator):
        if before is None:
            before, _ = load_model(folder)
        elif accelerator.is_main_process:
            save_model(folder, before, trainer.info)
    with raise_on_all_ranks(accelerator):
        return before.to(accelerator.device).eval().requires_grad_(False), sha256(folder / "model.safetensors")


def labels_to_learn(trainer: Trainer) -> Store | None:
    """What a stage's batches have besides given labels: a store, or nothing where they come from folders or a teacher.

    Which label is learned from which folder is written down before the first step.
    """
    if not trainer.stage.discovered:
        return None
    if trainer.data.discovered is None or not trainer.data.discovered.in_place_of_teacher:
        return discovered_labels(trainer, trainer.discoverer)
    accelerator = trainer.accelerator
    with raise_on_all_ranks(accelerator):
        if trainer.step == 0 and accelerator.is_main_process:
            rows = trainer.data.discovered.survey(shown=not trainer.quiet)
            write_table(store_folder(trainer.folder, trainer.stage.name), rows)
            trainer.log.note(f"{len(trainer.data.discovered)} labels that were discovered elsewhere")
    return None


def write_table(folder: Path, rows: list[Row]) -> None:
    """Which label is learned from which folder."""
    with atomically(folder / TABLE) as new, new.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "task", "source", "pixels", "confidence"])
        writer.writerows(rows)


def discovered_labels(trainer: Trainer, teacher: Network | None) -> Store:
    """The store of a stage, written first where the stage is at its start.

    Args:
        teacher: of `kept_teacher`; None for a stage that has begun.

    Raises:
        CheckpointError: the stage has begun, and its store is not complete or of another teacher.
        SystemExit: 130 or 143 after SIGINT or SIGTERM; ``--resume`` goes on.
    """
    accelerator, folder = trainer.accelerator, store_folder(trainer.folder, trainer.stage.name)
    with raise_on_all_ranks(accelerator):
        look = _whole_images(trainer, trainer.student if teacher is None else teacher)
        provenance = _provenance(trainer, look)
    if teacher is not None:
        _write(trainer, look, StoreWriter(folder, provenance, trainer.tasks))
    with raise_on_all_ranks(accelerator):
        return open_store(folder, provenance, trainer.tasks)


def _whole_images(trainer: Trainer, teacher: Network) -> WholeImages:
    data = trainer.config.data
    return WholeImages(
        trainer.tasks, teacher.eval(), trainer.method.views(), trainer.method.mirrored, data.size,
        trainer.data.collection, trainer.accelerator.device, data.skip_corrupt,
    )  # fmt: skip


def _provenance(trainer: Trainer, look: WholeImages) -> Provenance:
    if trainer.teacher_hash is None:
        raise CheckpointError("the checkpoint does not say which network discovered its labels; start the run anew")
    specs = {name: task.spec() for name, task in trainer.tasks.items()}
    head, token_width = look.shapes()
    return Provenance(
        trainer.teacher_hash, specs, trainer.method.views(), trainer.method.mirrored, trainer.config.data.size,
        head, labels_digest(trainer.data.learned), token_width if trainer.method.learns_tokens else None,
    )  # fmt: skip


def _write(trainer: Trainer, look: WholeImages, writer: StoreWriter) -> None:
    """Each rank its share; then the first makes the store complete."""
    accelerator, main, started = trainer.accelerator, trainer.accelerator.is_main_process, time.monotonic()
    with raise_on_all_ranks(accelerator):
        complete = main and writer.begin()
    if any(all_gather(accelerator, complete)):
        return
    wanted = missing_labels(trainer.data.learned, trainer.tasks)
    count, room = sum(map(len, wanted.values())), writer.expected_bytes(wanted) / 2**20
    trainer.log.say(f"discovering {count} labels of {len(wanted)} images: about {room:.1f} MB in {writer.folder}")
    share = (accelerator.process_index, accelerator.num_processes)
    shown = partial(track, doing="discovering", shown=main and not trainer.quiet)
    with raise_on_all_ranks(accelerator):
        filled = fill_store(writer, look, wanted, share, shown, lambda: trainer.stop.received is not None)
    parts = all_gather(accelerator, filled)
    if stopping(trainer.stop, accelerator):
        done = sum(writer.has(id, names) for id, names in wanted.items())
        trainer.stop.exit(f"{done} of {len(wanted)} images have discovered labels; --resume continues", say=main)
    with raise_on_all_ranks(accelerator):
        if main:
            order = {id: number for number, id in enumerate(wanted)}
            rows = sorted((row for part in parts if part for row in part[0]), key=lambda row: order[row[0]])
            left_out = sorted((id for part in parts if part for id in part[1]), key=order.__getitem__)
            writer.end(rows, left_out)
            size, seconds = sum(row[4] for row in rows) / 2**20, time.monotonic() - started
            trainer.log.note(
                f"discovered {len(rows)} labels of {len(wanted)} images ({size:.1f} MB) in {seconds:.0f} s"
            )
