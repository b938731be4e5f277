"""The interface of callbacks: methods that are called at certain points of the training loop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasktokens.training.log import Row
    from tasktokens.training.trainer import Trainer


class Callback:
    """Subclass it, override what you need, and give it to ``train(config, callbacks=[...])``.

    Every method gets the `Trainer`, whose documented attributes say where the run stands: ``stage``, ``step``,
    ``losses``, ``student``, ``teacher``, ``network``, ``folder``, ``config``. An error that a callback raises ends the
    run; ``--resume`` continues from the last checkpoint. With several ranks each has its own callbacks, and what reads
    a tensor, as ``float(trainer.losses["loss/depth"])``, waits for the device.

    Examples:
        >>> class PrintLoss(Callback):
        ...     def on_step(self, trainer):
        ...         if trainer.step % 100 == 0:
        ...             print(trainer.stage.name, trainer.step, float(trainer.losses["loss/depth"]))
    """

    def on_start(self, trainer: Trainer) -> None:
        """Before the first stage, on all ranks: the run folder is there, and ``trainer.log`` is open."""

    def on_stage_start(self, trainer: Trainer) -> None:
        """A stage has its networks and its optimiser; all ranks. A resumed stage starts at ``trainer.step``."""

    def on_step_start(self, trainer: Trainer) -> None:
        """Before a step; all ranks. ``trainer.step`` steps of the stage are done."""

    def on_step(self, trainer: Trainer) -> None:
        """After a step; all ranks.

        ``trainer.step`` counts it, and ``trainer.losses`` are the means of its terms by name, such as ``loss/depth``:
        tensors () on the device.
        """

    def on_log(self, trainer: Trainer, row: Row) -> None:
        """After a row was added to ``metrics.jsonl``; the main process alone.

        Args:
            row: of plain values. Rows of steps have ``stage``, ``step``, ``lr``, losses and times; rows of validations
                see `on_validation`; the last has ``finished``.
        """

    def on_checkpoint(self, trainer: Trainer, folder: Path) -> None:
        """After a checkpoint was written whole to ``folder``; the main process alone."""

    def on_validation(self, trainer: Trainer, row: Row) -> None:
        """After a validation; the main process alone. ``trainer.network`` is the network that was measured.

        Args:
            row: ``validation`` (task -> metric -> value), ``score`` (%, None where nothing can be compared), ``best``,
                ``split``, ``stage``, ``step``.
        """

    def on_end(self, trainer: Trainer) -> None:
        """The run is complete: its model is saved and evaluated, its log closed; all ranks."""

    def on_close(self, trainer: Trainer) -> None:
        """Training has ended, for whatever reason; close resources here. All ranks."""
