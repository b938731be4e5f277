"""Saves the run every ``run.checkpoint_every`` steps, before each validation and when the run is told to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasktokens.training.callbacks.base import Callback
from tasktokens.training.callbacks.validation import validation_due
from tasktokens.training.checkpoint import complete_checkpoints, save_checkpoint

if TYPE_CHECKING:
    from tasktokens.training.trainer import Trainer


class Checkpoints(Callback):
    """Writes ``checkpoints/``; a run that was told to stop ends here, with everything saved."""

    def on_stage_start(self, trainer: Trainer) -> None:
        """Save before labels are discovered, which takes long, where there is no checkpoint to go on from."""
        begins = trainer.discoverer is not None and trainer.accelerator.is_main_process
        if begins and not complete_checkpoints(trainer.folder / "checkpoints"):
            self._save(trainer)

    def on_step(self, trainer: Trainer) -> None:
        """Save where a checkpoint is due; exit afterwards if the run was told to stop."""
        run, accelerator = trainer.config.run, trainer.accelerator
        # Saved before it is validated, which may take long: then the best network is never of a step that is not.
        due = trainer.is_last_step or trainer.step % run.checkpoint_every == 0
        due = due or validation_due(run, trainer.step, trainer.is_last_step) or trainer.stopping
        if due and accelerator.is_main_process:
            self._save(trainer)
        if trainer.stopping:
            accelerator.wait_for_everyone()  # a launcher kills the others when one has left
            done = f"{trainer.step} of {trainer.stage.steps} steps of stage {trainer.stage.name} are saved"
            trainer.stop.exit(f"{done}; --resume continues", say=accelerator.is_main_process)

    def _save(self, trainer: Trainer) -> None:
        scaler = trainer.accelerator.scaler
        folder = save_checkpoint(
            trainer.folder / "checkpoints",
            trainer.cursor,
            trainer.student,
            trainer.teacher,
            trainer.optimizer,
            trainer.config.run.keep,
            trainer.method.state(),
            None if scaler is None else scaler.state_dict(),
            trainer.loss_means.state() | trainer.balance.state(),
            trainer.balance.module,
        )
        trainer.notify("on_checkpoint", folder)
