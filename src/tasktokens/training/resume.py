"""Where a run resumes: its newest complete checkpoint, the same for all ranks, and the log rows up to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from accelerate import Accelerator

from tasktokens.errors import CheckpointError
from tasktokens.methods import Stage
from tasktokens.training.checkpoint import Cursor, latest_checkpoint, read_cursor
from tasktokens.training.log import Row
from tasktokens.utils.distributed import all_gather, raise_on_all_ranks


def resume_point(folder: Path, accelerator: Accelerator, resume: bool) -> tuple[Path | None, Cursor]:
    """The checkpoint to resume from, or None for a new run, and its cursor.

    Raises:
        CheckpointError: there is none, or ranks see different ones: machines must share the run folder.
    """
    with raise_on_all_ranks(accelerator):
        quiet = not accelerator.is_main_process
        checkpoint = latest_checkpoint(folder / "checkpoints", quiet) if resume else None
        cursor = read_cursor(checkpoint) if checkpoint else Cursor()
    seen = set(all_gather(accelerator, (cursor.stage, cursor.step)))
    with raise_on_all_ranks(accelerator):
        if len(seen) > 1:
            raise CheckpointError(
                f"ranks see different checkpoints in {folder} (stage and step {sorted(seen)}); "
                f"run.dir must lie on a file system that all machines share"
            )
    return checkpoint, cursor


def rows_until(stages: Sequence[Stage], cursor: Cursor) -> Callable[[Row], bool]:
    """Which rows of the log belong to a run that stands there: those of later steps will be written again."""
    names = [stage.name for stage in stages]
    at_end = cursor == Cursor(len(stages) - 1, stages[-1].steps)

    def keep(row: Row) -> bool:
        if "stage" not in row:
            return at_end
        return row["stage"] in names and (names.index(row["stage"]), row["step"]) <= (cursor.stage, cursor.step)

    return keep
