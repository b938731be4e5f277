"""Before training: what can be checked is checked, data and ranks are opened; and what an error of training means."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator

from tasktokens.config import Config
from tasktokens.datasets.open import Data, open_data
from tasktokens.errors import ConfigError, TrainingError
from tasktokens.inference.evaluate import eval_dataset
from tasktokens.inspection.before_training import check_before_run
from tasktokens.methods import Method, Stage
from tasktokens.training.batch_size import explain_oom, with_batch_size
from tasktokens.training.callbacks.tracking import check_trackers
from tasktokens.training.callbacks.validation import check_validation, validation_dataset
from tasktokens.training.run_folder import check_run_folder
from tasktokens.utils.distributed import main_process_first, raise_on_all_ranks, start, training_precision


def open_run(config: Config, resume: bool, overwrite: bool, quiet: bool) -> tuple[Config, Data, Accelerator]:
    """Open what a run needs; what is wrong with it is said now and not after training. Nothing is written yet.

    Returns:
        The configuration with a number for ``optim.batch_size=auto``, the data, and this rank.
    """
    check_validation(config.run)
    check_trackers(config.run)
    if config.run.threads is not None:
        torch.set_num_threads(config.run.threads)
    accelerator = start(config.run, training_precision(config.run))
    data = main_process_first(accelerator, lambda: open_data(config, progress=not quiet))
    with raise_on_all_ranks(accelerator):
        if config.run.evaluate is not None:
            eval_dataset(data, config.run.evaluate, data.tasks, config.data.size)
        if config.run.validate_every is not None:
            validation_dataset(data, config, data.tasks)
        if accelerator.is_main_process:
            check_run_folder(config.run.dir, resume, overwrite)
            check_before_run(data, config, quiet)
    return with_batch_size(config, data, accelerator, resume, quiet), data, accelerator


def check_method(method: Method, config: Config, accelerator: Accelerator) -> None:
    """Raise `ConfigError` where settings do not go together with the method or the device."""
    accumulate = config.optim.accumulate
    if accumulate > 1 and type(method).counts is Method.counts:
        raise ConfigError(
            f"method '{config.method.name}' cannot take a batch in parts, as optim.accumulate={accumulate} asks; "
            f"leave it at 1"
        )
    if config.run.sync_batch_norm and accelerator.device.type != "cuda":
        raise ConfigError("run.sync_batch_norm needs GPUs: torch has no SyncBatchNorm for CPUs; leave it out")


def check_first_stage(stage: Stage, init_from: Path | None) -> None:
    """A first stage without steps hands on the network of another run; `ConfigError` where there is none."""
    if stage.steps == 0 and init_from is None:
        raise ConfigError(
            f"stage '{stage.name}' has no steps, so its network has to come from another run: give --init-from "
            f"RUN, or the stage some steps"
        )


@contextmanager
def explain_errors(config: Config, data: Data, accelerator: Accelerator) -> Iterator[None]:
    """Say what an error of torch means for the settings.

    Raises:
        OutOfMemoryError: memory did not suffice; with what would help.
        TrainingError: ``run.deterministic`` cannot be kept.
    """
    try:
        with explain_oom(config, data, accelerator):
            yield
    except RuntimeError as error:
        if config.run.deterministic and "deterministic implementation" in str(error):
            raise TrainingError(f"run.deterministic cannot be kept here: {str(error).split('. ')[0]}") from error
        raise
