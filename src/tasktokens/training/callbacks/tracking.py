"""TensorBoard and Weights & Biases, where a run asks for them; ``metrics.jsonl`` is written in any case."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.tracking import TensorBoardTracker, WandBTracker, get_available_trackers

from tasktokens.config import Config, RunSettings
from tasktokens.errors import ConfigError
from tasktokens.training.callbacks.base import Callback
from tasktokens.utils.atomic import write_atomically
from tasktokens.utils.distributed import raise_on_all_ranks

if TYPE_CHECKING:
    from tasktokens.training.log import Row
    from tasktokens.training.trainer import Trainer


def check_trackers(run: RunSettings) -> None:
    """Raise `ConfigError` for a tracker whose package is not installed."""
    installed = {str(getattr(name, "value", name)) for name in get_available_trackers()}
    for name in run.track:
        if name not in installed:
            extra = " or pip install 'tasktokens[track]'" if name == "tensorboard" else ""
            raise ConfigError(f"run.track names {name}, which is not installed: pip install {name}{extra}")


class Tracking(Callback):
    """Passes the rows of a run's log on to its trackers, at steps counted over all stages.

    TensorBoard's files lie in ``tensorboard/`` of the run, those of Weights & Biases in ``wandb/``. The latter stay
    there (``wandb sync`` uploads them) unless the environment says ``WANDB_MODE=online``. A resumed run continues
    both; what was logged of steps after its checkpoint is hidden.
    """

    def __init__(self) -> None:
        self.trackers: list[Any] = []
        self.starts: dict[str, int] = {}

    def on_start(self, trainer: Trainer) -> None:
        """Start the trackers, on the main process only."""
        total = 0
        for stage in trainer.stages:
            self.starts[stage.name], total = total, total + stage.steps
        done = self.starts[trainer.stage.name] + trainer.step
        with raise_on_all_ranks(trainer.accelerator):
            if trainer.accelerator.is_main_process:
                self.trackers = [_start(name, trainer.config, done) for name in trainer.config.run.track]

    def on_log(self, trainer: Trainer, row: Row) -> None:
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

    def on_close(self, trainer: Trainer) -> None:
        """Finish the trackers, so that all is flushed."""
        for tracker in self.trackers:
            tracker.finish()


def _start(name: str, config: Config, done: int) -> Any:
    """A tracker of a run of which ``done`` steps are done."""
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
        "dir": str(folder), "name": Path(folder).name, "id": note.read_text(encoding="utf-8"), "resume": "allow",
        "config": config.model_dump(mode="json"), "mode": os.environ.get("WANDB_MODE", "offline"),
    }  # fmt: skip
