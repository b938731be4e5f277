"""The data of the steps of a run: batches in their order, and what a step draws at random.

Both depend on (seed, stage, step) alone, so a run resumes at any step, and the number of ranks does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from accelerate import Accelerator

from tasktokens.config import Config
from tasktokens.data.dataset import PartialDataset
from tasktokens.data.loading import batch_bytes, fitting_workers, train_loader
from tasktokens.data.sample import Batch
from tasktokens.data.sampler import EpochSampler
from tasktokens.data.sharding import BatchShard
from tasktokens.data.soft_labels import SoftSource
from tasktokens.datasets.discovered_folders import DiscoveredFolders
from tasktokens.datasets.open import Data
from tasktokens.methods import Stage, StepOptions
from tasktokens.tasks import Task


class TrainData:
    """This rank's share of a run's batches.

    Args:
        tasks: those of the run, able to express every zoomed label.
        stages: those of the run.

    Raises:
        ConfigError: a batch cannot be shared out among the ranks and parts.
    """

    def __init__(
        self,
        config: Config,
        data: Data,
        tasks: Mapping[str, Task],
        accelerator: Accelerator,
        stages: Sequence[Stage],
    ) -> None:
        self.config, self.data, self.tasks, self.accelerator = config, data, tasks, accelerator
        self.stages, self.steps = stages, [stage.steps for stage in stages]
        self._sampler(0, 0)

    def seed(self, stage: int) -> int:
        """The seed of a stage, by its number."""
        return self.config.seed * 1000 + stage

    def loader(self, stage: int, first: int, discovered: SoftSource | None = None) -> Iterator[Batch]:
        """Batches of a stage from step ``first`` on, ``optim.accumulate`` of them per step; with discovered labels."""
        settings = self.config.data
        dataset = PartialDataset(
            self.data.collection,
            self.data.train,
            self.tasks,
            settings.size,
            settings.augmentation,
            self.seed(stage),
            settings.cache,
            skip_corrupt=settings.skip_corrupt,
            discovered=discovered,
            weighted=self._weighted(stage),
        )
        optim, size = self.config.optim, settings.size
        images = -(-min(optim.images, len(self.data.train)) // (self.accelerator.num_processes * optim.accumulate))
        workers = fitting_workers(settings.workers, batch_bytes(images, size, self.tasks)) if settings.workers else 0
        return train_loader(dataset, self._sampler(stage, first), workers)

    def _weighted(self, stage: int) -> DiscoveredFolders | None:
        """Labels of the data itself in every stage; those from elsewhere in place of a teacher."""
        found = self.data.discovered
        return None if found is None or (found.in_place_of_teacher and not self.stages[stage].discovered) else found

    def generator(self, stage: int, step: int) -> torch.Generator:
        """A fresh generator for what a step draws, the same for all its parts on all ranks."""
        return torch.Generator().manual_seed((self.seed(stage) * 10_000_000 + step) % 2**63)

    def options(self, stage: int, step: int, part: int) -> StepOptions:
        """Options of this rank's part of that number; see `EpochSampler` for which images it has."""
        optim, accelerator = self.config.optim, self.accelerator
        ranks, images = accelerator.num_processes, min(optim.images, len(self.data.train))
        shard = BatchShard(accelerator.process_index + ranks * part, ranks * optim.accumulate, images)
        photometric = self.config.data.augmentation.photometric
        now = self.stages[stage]
        return StepOptions(step, now.has_teacher, photometric, optim.loss_stride, shard, now.discovered)

    def _sampler(self, stage: int, first: int) -> EpochSampler:
        optim, accelerator = self.config.optim, self.accelerator
        rank, ranks = accelerator.process_index, accelerator.num_processes
        late = math.ceil(self.config.data.augmentation.late_from * sum(self.steps)) - sum(self.steps[:stage])
        return EpochSampler(
            len(self.data.train), optim.images, self.seed(stage), first, rank, ranks, optim.accumulate, late
        )
