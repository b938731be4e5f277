"""Before training: check the settings, open the data and connect the ranks; and explain errors of torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator

from tasktokens.config import Config
from tasktokens.data.visibility import check_rule
from tasktokens.datasets.automatic import settled
from tasktokens.datasets.discovered_folders import DiscoveredFolders
from tasktokens.datasets.listed_folders import check_not_listed
from tasktokens.datasets.open import Data, choose_data, open_index
from tasktokens.datasets.run_data import learned_discovered, open_run_data
from tasktokens.errors import ConfigError, DataError, TrainingError
from tasktokens.inference.evaluate import eval_dataset
from tasktokens.inspection.before_training import check_before_run
from tasktokens.methods import METHODS, Method, Stage, build_method
from tasktokens.models.backbones import check_backbone
from tasktokens.models.files import ModelInfo, model_folder, read_info
from tasktokens.training.batch_size import explain_oom, with_batch_size
from tasktokens.training.budget import with_minutes
from tasktokens.training.callbacks.trackers import check_installed
from tasktokens.training.callbacks.validation import check_validation, validation_dataset
from tasktokens.training.make_balance import check_balance
from tasktokens.training.run_folder import check_run_folder
from tasktokens.training.same_run import require_same_run, settings_to_resume
from tasktokens.training.seen_files import require_unchanged_files
from tasktokens.training.stage_networks import start_from
from tasktokens.utils import console
from tasktokens.utils.distributed import main_process_first, raise_on_all_ranks, start, training_precision


def open_run(
    config: Config, resume: bool, overwrite: bool, quiet: bool, init_from: Path | None = None
) -> tuple[Config, Data, Accelerator]:
    """Open what a run needs, so that errors are found before training. Nothing is written yet.

    Settings are checked first, before any data is opened, rendered or checked.

    Returns:
        The configuration with values for all that was ``auto``, and steps for minutes; the data, and this rank.
    """
    if config.run.threads is not None:
        torch.set_num_threads(config.run.threads)
    accelerator = start(config.run, training_precision(config.run))
    with raise_on_all_ranks(accelerator):
        if accelerator.is_main_process:
            check_run_folder(config.run.dir, resume, overwrite)
            if not resume:
                check_not_listed(config.run.dir)
        if resume:
            config = settings_to_resume(config)
        check_settings(config, accelerator, None if resume else init_from, resume)
    config, data = main_process_first(accelerator, lambda: _open(config, resume, quiet))
    with raise_on_all_ranks(accelerator):
        data = _with_discovered(config, data, resume)
        if data.discovered is not None and not resume and accelerator.is_main_process:
            data.discovered.survey(shown=not quiet)  # a bad file ends the run before it begins
        if resume:
            for line in require_same_run(config, data, accelerator):
                if accelerator.is_main_process:
                    console.say(line)
            if accelerator.is_main_process:
                require_unchanged_files(config.run.dir, data)
        if config.run.evaluate is not None:
            eval_dataset(data, config.run.evaluate, data.tasks, config.data.size)
        if config.run.validate_every is not None:
            validation_dataset(data, config, data.tasks)
        if accelerator.is_main_process:
            check_before_run(data, config, quiet)
    config = with_batch_size(config, data, accelerator, resume, quiet)
    return with_minutes(config, data, accelerator, quiet), data, accelerator


def _open(config: Config, resume: bool, quiet: bool) -> tuple[Config, Data]:
    if resume:
        return config, open_run_data(config.run.dir, config)
    index = open_index(config, progress=not quiet)
    config = settled(config, index)
    return config, choose_data(config, index)


def _with_discovered(config: Config, data: Data, resume: bool) -> Data:
    """With the labels of ``data.discovered``, or the data's own.

    Raises `DataError` or `ConfigError` where a folder does not fit.
    """
    folders = config.data.discovered
    if not folders:
        return _with_own(config, data, resume)
    found = DiscoveredFolders(folders, data.collection, data.tasks, data.train)
    if not len(found):
        raise DataError(
            f"no label in {', '.join(map(str, folders))} is of a training image and a task whose label is not given: "
            f"there is nothing to learn from it"
        )
    return replace(data, discovered=found)


def _with_own(config: Config, data: Data, resume: bool) -> Data:
    """With the labels that the data set itself calls discovered. Raises `ConfigError` for a method without weights."""
    if not config.data.learn_discovered:
        return data
    found = DiscoveredFolders.of_data(data.collection, data.tasks, data.train)
    if resume:
        found = learned_discovered(config.run.dir, found)
    if not len(found):
        return data
    if not build_method(config.method, {}).weighs_discovered:
        able = ", ".join(name for name, method in METHODS.items() if method.weighs_discovered)
        raise ConfigError(
            f"{len(found)} labels of {data.collection.root} were discovered, and the method '{config.method.name}' "
            f"cannot weigh them by their confidence; choose another ({able}), or leave them out with "
            f"data.learn_discovered=false"
        )
    return replace(data, discovered=found)


def check_settings(config: Config, accelerator: Accelerator, init_from: Path | None, resume: bool) -> None:
    """Check settings that need no data. Raises `ConfigError`, `WeightsError`, `CheckpointError`."""
    check_validation(config.run)
    check_installed(config.run.track)
    check_rule(config.data.labels)
    check_balance(config.optim.balance, training_precision(config.run))
    method = build_method(config.method, {})
    check_method(method, config, accelerator)
    if method.calibrator() is not None and config.data.holdout == 0:
        raise ConfigError(
            "method.thresholds=calibrated needs labelled images that are not trained on, and data.holdout=0 sets none "
            "aside; give a share of the training images, such as data.holdout=0.1"
        )
    if config.data.discovered and not any(stage.discovered for stage in method.stages()):
        raise ConfigError(
            f"data.discovered names labels to learn from in place of a teacher, which needs method.name=htt with "
            f"method.teacher=once and method.stage2_steps above 0; '{config.method.name}' as it is set reads none"
        )
    if config.data.discovered and method.learns_tokens:
        raise ConfigError(
            "method.token_level compares the student's tokens with its teacher's, and labels of data.discovered have "
            "none; set method.token_level=0"
        )
    if resume:
        return
    if not config.data.discovered:
        check_first_stage(method.stages()[0], init_from)
    check_backbone(config.model)
    if init_from is not None:
        read_info(model_folder(init_from))


def check_start(info: ModelInfo, init_from: Path) -> None:
    """Raise `ConfigError` or `CheckpointError` where a network of this description cannot start from another run."""
    with torch.random.fork_rng(devices=[]):
        start_from(info.build(), init_from, info)


def check_method(method: Method, config: Config, accelerator: Accelerator) -> None:
    """Raise `ConfigError` where settings do not fit the method or the device."""
    accumulate = config.optim.accumulate
    if accumulate > 1 and type(method).counts is Method.counts:
        raise ConfigError(
            f"method '{config.method.name}' cannot accumulate gradients, but optim.accumulate is {accumulate}; "
            f"set it to 1"
        )
    if config.run.sync_batch_norm and accelerator.device.type != "cuda":
        raise ConfigError("run.sync_batch_norm needs GPUs: torch has no SyncBatchNorm for CPUs; leave it out")


def check_first_stage(stage: Stage, init_from: Path | None) -> None:
    """Raise `ConfigError` for a first stage without steps unless another run's network is given."""
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
