"""The trackers that a run asks for, such as TensorBoard; ``metrics.jsonl`` is written in any case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasktokens.training.callbacks.base import Callback
from tasktokens.training.callbacks.trackers import start_tracker
from tasktokens.utils.distributed import raise_on_all_ranks

if TYPE_CHECKING:
    from tasktokens.training.log import Row
    from tasktokens.training.trainer import Trainer


class Tracking(Callback):
    """Passes the rows of a run's log on to its trackers, at steps counted over all stages.

    A tracker's files lie in a folder of its name in the run, and stay there unless its own environment variable says
    otherwise, such as ``WANDB_MODE=online`` (`tasktokens.training.callbacks.trackers`). A resumed run continues them
    where they can; of TensorBoard, what was logged of steps after its checkpoint is hidden.
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
                self.trackers = [start_tracker(name, trainer.config, done) for name in trainer.config.run.track]

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
