"""A row of ``metrics.jsonl`` and the progress line every ``run.log_every`` steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasktokens.training.callbacks.base import Callback
from tasktokens.training.clock import memory_mb
from tasktokens.utils.distributed import all_gather, raise_on_all_ranks

if TYPE_CHECKING:
    from tasktokens.training.log import Row
    from tasktokens.training.trainer import Trainer


class MetricsLog(Callback):
    """Logs losses, speed and memory, and names each file that could not be read once."""

    def __init__(self) -> None:
        self._left_out = 0
        self._named: set[str] = set()

    def on_step(self, trainer: Trainer) -> None:
        """Name unreadable files, and write a row where one is due."""
        self._name_left_out(trainer)
        if not (trainer.is_last_step or trainer.step % trainer.config.run.log_every == 0):
            return
        row = {"stage": trainer.stage.name, "step": trainer.step, "lr": trainer.optimizer.param_groups[-1]["lr"]}
        row |= self._measured(trainer)
        trainer.write_row(row)
        left = trainer.stage.steps - trainer.step
        trainer.log.progress(row, trainer.stage.steps, eta=left * trainer.clock.seconds_per_step)

    def _measured(self, trainer: Trainer) -> Row:
        """What is known of the last step and of the time since the last row; all ranks take part."""
        with raise_on_all_ranks(trainer.accelerator):
            row: Row = {"skipped": trainer.guard.check()}
        row |= trainer.loss_means.read() | trainer.clock.read()
        row |= {"memory_mb": memory_mb(trainer.accelerator.device), "minutes": trainer.minutes}
        if trainer.config.data.skip_corrupt:
            row["left_out"] = sum(all_gather(trainer.accelerator, self._left_out))
        self._left_out = 0
        return row

    def _name_left_out(self, trainer: Trainer) -> None:
        """Images and labels of the batch that could not be read."""
        messages = [message for batch in trainer.batches for message in batch.left_out]
        for message in dict.fromkeys(messages):
            if message not in self._named:
                trainer.log.warn(f"left out: {message}")
        self._named.update(messages)
        self._left_out += len(messages)
