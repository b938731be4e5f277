"""TensorBoard and Weights & Biases, where a run asks for them; ``metrics.jsonl`` is written in any case."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

from accelerate.tracking import TensorBoardTracker, WandBTracker, get_available_trackers

from tasktokens.config import Config, RunSettings
from tasktokens.errors import ConfigError
from tasktokens.methods import Stage
from tasktokens.training.checkpoint import Cursor
from tasktokens.training.log import Row
from tasktokens.utils.atomic import write_atomically


def check_trackers(run: RunSettings) -> None:
    """Raise `ConfigError` for a tracker whose package is not installed."""
    there = {str(getattr(name, "value", name)) for name in get_available_trackers()}
    for name in run.track:
        if name not in there:
            extra = " or pip install 'tasktokens[track]'" if name == "tensorboard" else ""
            raise ConfigError(f"run.track names {name}, which is not installed: pip install {name}{extra}")


class Tracking:
    """Passes the rows of a run's log on to its trackers, at steps counted over all stages.

    TensorBoard's files lie in ``tensorboard/`` of the run, those of Weights & Biases in ``wandb/``. The latter stay
    there (``wandb sync`` uploads them) unless the environment says ``WANDB_MODE=online``. A resumed run goes on in
    both.

    Args:
        cursor: where the run stands; what was logged of later steps is hidden.
        main: whether this is the main process; the others track nothing.
    """

    def __init__(self, config: Config, stages: tuple[Stage, ...], cursor: Cursor, main: bool) -> None:
        starts = [sum(stage.steps for stage in stages[:index]) for index in range(len(stages))]
        self.starts = {stage.name: start for stage, start in zip(stages, starts, strict=True)}
        done = starts[cursor.stage] + cursor.step
        self.trackers = [_start(name, config, done) for name in config.run.track] if main else []

    def row(self, row: Row) -> None:
        """Log the numbers of a row; those of a validation as ``validation/{task}/{metric}``."""
        if "stage" not in row:
            return
        values = {key: value for key, value in row.items() if key != "step"}
        if "validation" in row:
            values = {f"validation/{task}/{k}": v for task, of in row["validation"].items() for k, v in of.items()}
            values["validation/score"] = row["score"]
        numbers = {k: v for k, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)}
        for tracker in self.trackers:
            tracker.log(numbers, step=self.starts[row["stage"]] + row["step"])

    def finish(self) -> None:
        """Close the trackers."""
        for tracker in self.trackers:
            tracker.finish()


def _start(name: str, config: Config, done: int) -> Any:
    """A tracker of a run of which so many steps are done."""
    if name == "tensorboard":
        purge = done + 1 if done else None
        tracker = TensorBoardTracker("tasktokens", config.run.dir / "tensorboard", purge_step=purge)
    else:
        tracker = WandBTracker("tasktokens", **_wandb_options(config))
    if hasattr(tracker, "start"):  # earlier versions of accelerate start it at once
        tracker.start()
    return tracker


def _wandb_options(config: Config) -> dict[str, Any]:
    folder = config.run.dir
    note = folder / "wandb" / "id"
    if not note.is_file():
        write_atomically(note, uuid.uuid4().hex[:8].encode())
    return {
        "dir": str(folder), "name": Path(folder).name, "id": note.read_text(), "resume": "allow",
        "config": config.model_dump(mode="json"), "mode": os.environ.get("WANDB_MODE", "offline"),
    }  # fmt: skip
