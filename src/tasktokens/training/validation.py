"""Evaluation while training goes on, on images that are not trained on; the best network by it is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from tasktokens.config import Config, RunSettings
from tasktokens.data.dataset import PartialDataset
from tasktokens.datasets.open import Data
from tasktokens.errors import ConfigError, DataError
from tasktokens.inference.evaluate import eval_dataset, evaluate_network
from tasktokens.methods import Stage
from tasktokens.metrics import higher_is_better, mean_improvement
from tasktokens.models import Network
from tasktokens.models.files import ModelInfo, save_model
from tasktokens.tasks import Task
from tasktokens.training.checkpoint import Cursor
from tasktokens.training.log import Row, RunLog
from tasktokens.utils import strict_json
from tasktokens.utils.atomic import atomically
from tasktokens.utils.signals import StopSignal

BEST = "best.json"

Follow = Callable[[Path, list[Row]], None]
"""Called on the main process with the run folder and all rows of its log."""


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


class Validation:
    """Evaluates a run's network every so many steps and keeps the best one in ``best/``.

    The score is the mean improvement of the tasks' primary metrics since the first validation (`mean_improvement`).
    What is known of earlier ones is read from the log, so a resumed run chooses as an uninterrupted one does.

    Args:
        log: of the run; its rows are those of the steps that were taken.
        follow: called after each validation.
    """

    def __init__(
        self,
        config: Config,
        data: Data,
        info: ModelInfo,
        accelerator: Accelerator,
        stages: tuple[Stage, ...],
        log: RunLog,
        follow: Follow | None = None,
    ) -> None:
        self.config, self.info, self.accelerator, self.log, self.follow = config, info, accelerator, log, follow
        self.every, self.split = config.run.validate_every, config.run.validate_on
        self.stages = [stage.name for stage in stages]
        rows = [row for row in log.read() if "validation" in row]
        self.reference: dict[str, float] | None = self._primary(rows[0]["validation"]) if rows else None
        self.best = max((row["score"] for row in rows if row["score"] is not None), default=None)
        self.last = self._agree(rows)
        if self.every is not None:
            self.dataset = validation_dataset(data, config, info.tasks)

    def due(self, step: int, last: bool) -> bool:
        """Whether the network is evaluated after so many steps of a stage, of which this may be the last."""
        return self.every is not None and (last or step % self.every == 0)

    def after(self, cursor: Cursor, network: Network, stop: StopSignal) -> None:
        """Evaluate the network of that moment, unless a row of the log says that it was done."""
        if (cursor.stage, cursor.step) <= (self.last.stage, self.last.step):
            return
        network_in_training = network.training
        with torch.random.fork_rng(devices=[self.accelerator.device] if self.accelerator.device.type == "cuda" else []):
            results = evaluate_network(
                network, self.dataset, self.config.optim.images, self.accelerator, stop,
                note="a validation was not finished; the training until then is saved, --resume goes on",
            )  # fmt: skip
        network.train(network_in_training)
        self.last = cursor
        if self.accelerator.is_main_process:
            self._record(cursor, network, strict_json.finite(results))

    def _record(self, cursor: Cursor, network: Network, results: dict[str, dict[str, float | None]]) -> None:
        if self.reference is None:
            self.reference = self._primary(results)
        score = self._score(self._primary(results))
        best = score is not None and (self.best is None or score > self.best)
        row: Row = {"stage": self.stages[cursor.stage], "step": cursor.step, "split": self.split}
        row |= {"validation": results, "score": score, "best": best}
        if best:
            self.best = score
            self._keep(network, row)
        # After the network is on disk: a run that is killed in between validates this step again.
        self.log.row(row)
        told = "of nothing" if score is None else f"{score:+.2f} %{' (the best so far)' if best else ''}"
        self.log.say(f"validation after step {cursor.step} of stage {row['stage']}: {told}")
        if self.follow is not None:
            self.follow(self.config.run.dir, self.log.read())

    def _keep(self, network: Network, row: Row) -> None:
        """``best/``; its description is gone while its weights change, so that it is never that of others."""
        folder = self.config.run.dir / "best"
        (folder / BEST).unlink(missing_ok=True)
        save_model(folder, network, self.info)
        with atomically(folder / BEST) as new:
            new.write_text(strict_json.dumps({key: value for key, value in row.items() if key != "best"}, indent=1))

    def _score(self, values: dict[str, float]) -> float | None:
        """Over the tasks that the first validation could measure; None where one of them no longer can be."""
        reference = self.reference or {}
        if not reference or not values.keys() >= reference.keys():
            return None
        higher = {}
        for name in reference:
            metric = self.info.tasks[name].metric()
            higher[name] = higher_is_better(metric, metric.primary)
        return mean_improvement(values, reference, higher)

    def _primary(self, results: dict[str, dict[str, Any]]) -> dict[str, float]:
        """The primary metric of each task that has one."""
        found = {name: results.get(name, {}).get(task.metric().primary) for name, task in self.info.tasks.items()}
        return {name: float(value) for name, value in found.items() if value is not None}

    def _agree(self, rows: list[Row]) -> Cursor:
        """The last validation, on all ranks: only the main process reads the log."""
        last = (self.stages.index(rows[-1]["stage"]), int(rows[-1]["step"])) if rows else (0, 0)
        stage, step = self.accelerator.reduce(torch.tensor(last, device=self.accelerator.device), "sum").tolist()
        return Cursor(stage, step)
