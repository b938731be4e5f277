"""Before some steps a method measures its teacher on the visible labels of held-out images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from accelerate import Accelerator
from torch import nn

from tasktokens.config import Config
from tasktokens.data.dataset import PartialDataset
from tasktokens.data.loading import eval_loader
from tasktokens.datasets.open import Data
from tasktokens.errors import ConfigError, DataError
from tasktokens.methods import Method, Stage
from tasktokens.tasks import Task
from tasktokens.training.callbacks.base import Callback
from tasktokens.training.log import RunLog
from tasktokens.utils.distributed import raise_on_all_ranks

if TYPE_CHECKING:
    from tasktokens.training.trainer import Trainer


class Calibration(Callback):
    """Measures where the method's calibrator says so; nothing for a method without one (`Method.calibrator`).

    Raises:
        ConfigError: the method has something to measure, and no images are held out.
        DataError: no held-out image shows a label of one of the tasks.
    """

    def __init__(
        self, method: Method, data: Data, tasks: Mapping[str, Task], config: Config, accelerator: Accelerator
    ) -> None:
        self.calibrator, self.accelerator, self.config = method.calibrator(), accelerator, config
        if self.calibrator is None:
            return
        if not data.holdout:
            raise ConfigError(
                "method.thresholds=calibrated needs labelled images that are not trained on, and data.holdout="
                f"{config.data.holdout} sets none aside; give a share of the training images, such as data.holdout=0.1"
            )
        for name in tasks:
            if not any(name in seen for seen in data.held.values()):
                raise DataError(
                    f"none of the {len(data.holdout)} held-out images shows a label of task '{name}', and "
                    f"method.thresholds=calibrated needs one; raise data.holdout, or take other thresholds"
                )
        held = {id: seen for id, seen in data.held.items() if seen}
        self.dataset = PartialDataset(data.collection, held, tasks, config.data.size, cache=config.data.cache)

    def on_step_start(self, trainer: Trainer) -> None:
        """Measure the trainer's teacher, or the network that discovered its labels, where it is due."""
        teacher = trainer.discoverer if trainer.teacher is None else trainer.teacher
        self.measure(trainer.stage, trainer.step, teacher, trainer.log)

    def measure(self, stage: Stage, step: int, teacher: nn.Module | None, log: RunLog) -> bool:
        """Measure, where it is due before this step; returns whether it was."""
        if self.calibrator is None or teacher is None or not self.calibrator.due(stage, step):
            return False
        accelerator, sums = self.accelerator, self.calibrator.start()
        rank, ranks = accelerator.process_index, accelerator.num_processes
        with raise_on_all_ranks(accelerator):
            for batch in eval_loader(self.dataset, self.config.optim.images, rank, ranks):
                with accelerator.autocast():
                    self.calibrator.add(sums, batch.to(accelerator.device), teacher)
        for each in sums.values():
            each.state = accelerator.reduce(each.state.to(accelerator.device), "sum")
        self.calibrator.finish(sums)
        log.note(f"calibrated on {len(self.dataset)} held-out images before step {step} of stage {stage.name}")
        return True
