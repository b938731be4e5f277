"""Evaluation during training, on images that are not trained on; the best network is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from tasktokens.config import Config, RunSettings
from tasktokens.data.dataset import PartialDataset
from tasktokens.datasets.open import Data
from tasktokens.errors import ConfigError, DataError
from tasktokens.inference.evaluate import eval_dataset, evaluate_network
from tasktokens.metrics import mean_improvement
from tasktokens.models.files import save_model
from tasktokens.tasks import Task
from tasktokens.training.callbacks.base import Callback
from tasktokens.training.checkpoint import Cursor
from tasktokens.utils import strict_json
from tasktokens.utils.atomic import atomically

if TYPE_CHECKING:
    from tasktokens.training.log import Row
    from tasktokens.training.trainer import Trainer

BEST = "best.json"
"""Stage, step and score of the network in ``best/``."""


def check_validation(run: RunSettings) -> None:
    """Raise `ConfigError` where the best network would be chosen by images that it is reported or trained on."""
    if run.validate_every is None or run.validate_on == "holdout":
        return
    reasons = {"train": "these images are trained on, and their hidden labels stay hidden"}
    reasons |= dict.fromkeys(filter(None, ("test", run.evaluate)), "the run is measured on these images at its end")
    if run.validate_on in reasons:
        raise ConfigError(
            f"run.validate_on is '{run.validate_on}', but {reasons[run.validate_on]}; set training images aside "
            f"(data.holdout=0.1, run.validate_on=holdout), or give another split"
        )


def validation_dataset(data: Data, config: Config, tasks: Mapping[str, Task]) -> PartialDataset:
    """The images to validate on, with all their labels. Raises `DataError` where there are none, or none labelled."""
    split, settings = config.run.validate_on, config.data
    dataset = eval_dataset(data, split, tasks, settings.size, settings.evaluation, settings.cache)
    if not any(dataset.split.values()):
        raise DataError(f"no image of '{split}' has a label of the run's tasks; give another split as run.validate_on")
    return dataset


def validation_due(run: RunSettings, step: int, last: bool) -> bool:
    """Whether the network is evaluated after ``step`` steps of a stage; ``last``: they are all of the stage's."""
    return run.validate_every is not None and (last or step % run.validate_every == 0)


class Validation(Callback):
    """Evaluates a run's network every ``run.validate_every`` steps and keeps the best one in ``best/``.

    The score is the mean improvement of the tasks' primary metrics since the first validation (`mean_improvement`).
    What is known of earlier ones is read from the log, so a resumed run chooses as an uninterrupted one does.
    """

    def on_start(self, trainer: Trainer) -> None:
        """Read earlier validations from the log and open the images to validate on."""
        self.tasks = trainer.tasks
        rows = [row for row in trainer.log.read() if "validation" in row]
        self.reference: dict[str, float] | None = self._primary(rows[0]["validation"]) if rows else None
        self.best = max((row["score"] for row in rows if row["score"] is not None), default=None)
        self.last = self._agree(trainer, rows)
        if trainer.config.run.validate_every is not None:
            self.dataset = validation_dataset(trainer.data, trainer.config, trainer.tasks)

    def on_stage_start(self, trainer: Trainer) -> None:
        """Make up for a validation that was due at the checkpoint a run resumes from."""
        if trainer.step:  # the run may have ended between a checkpoint and its validation
            self.on_step(trainer)

    def on_step(self, trainer: Trainer) -> None:
        """Evaluate the network of that moment, unless a row of the log says that it was done."""
        due = validation_due(trainer.config.run, trainer.step, trainer.is_last_step)
        if not due or (trainer.cursor.stage, trainer.cursor.step) <= (self.last.stage, self.last.step):
            return
        network, accelerator = trainer.network, trainer.accelerator
        network_in_training = network.training
        with torch.random.fork_rng(devices=[accelerator.device] if accelerator.device.type == "cuda" else []):
            results = evaluate_network(
                network, self.dataset, trainer.config.optim.images, accelerator, trainer.stop,
                note="a validation was not finished; the training until then is saved, --resume continues",
            )  # fmt: skip
        network.train(network_in_training)
        self.last = trainer.cursor
        if accelerator.is_main_process:
            self._record(trainer, strict_json.finite(results))

    def _record(self, trainer: Trainer, results: dict[str, dict[str, float | None]]) -> None:
        if self.reference is None:
            self.reference = self._primary(results)
        score = self._score(self._primary(results))
        best = score is not None and (self.best is None or score > self.best)
        row: Row = {"stage": trainer.stage.name, "step": trainer.step, "split": trainer.config.run.validate_on}
        row |= {"validation": results, "score": score, "best": best}
        if best:
            self.best = score
            self._keep(trainer, row)
        # After the network is on disk: a run that is killed in between validates this step again.
        trainer.write_row(row)
        unmeasured = sorted(self.tasks.keys() - self._primary(results).keys())
        outcome = "nothing to compare" if score is None else f"{score:+.2f} %{' (the best so far)' if best else ''}"
        outcome += f"; not measured: {', '.join(unmeasured)}" if unmeasured else ""
        trainer.log.say(f"validation after step {trainer.step} of stage {trainer.stage.name}: {outcome}")
        trainer.notify("on_validation", row)

    def _keep(self, trainer: Trainer, row: Row) -> None:
        """``best/``; its description is gone while its weights change, so that it is never that of others."""
        folder = trainer.folder / "best"
        (folder / BEST).unlink(missing_ok=True)
        save_model(folder, trainer.network, trainer.info)
        with atomically(folder / BEST) as new:
            new.write_text(
                strict_json.dumps({key: value for key, value in row.items() if key != "best"}, indent=1),
                encoding="utf-8",
                newline="\n",
            )

    def _score(self, values: dict[str, float]) -> float | None:
        """Over the tasks that the first validation could measure; None where one of them no longer can be."""
        reference = self.reference or {}
        if not reference or not values.keys() >= reference.keys():
            return None
        higher = {}
        for name in reference:
            higher[name] = self.tasks[name].metric().primary_is_higher
        return mean_improvement(values, reference, higher)

    def _primary(self, results: dict[str, dict[str, Any]]) -> dict[str, float]:
        """The primary metric of each task that has one."""
        found = {name: results.get(name, {}).get(task.metric().primary) for name, task in self.tasks.items()}
        return {name: float(value) for name, value in found.items() if value is not None}

    def _agree(self, trainer: Trainer, rows: list[Row]) -> Cursor:
        """The last validation, on all ranks: only the main process reads the log."""
        names = [stage.name for stage in trainer.stages]
        last = (names.index(rows[-1]["stage"]), int(rows[-1]["step"])) if rows else (0, 0)
        accelerator = trainer.accelerator
        stage, step = accelerator.reduce(torch.tensor(last, device=accelerator.device), "sum").tolist()
        return Cursor(stage, step)
