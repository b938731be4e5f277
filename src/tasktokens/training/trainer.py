"""Training: one explicit loop for all methods, on one process or many (started by torchrun)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain, islice
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from tasktokens.config import Config
from tasktokens.data.sample import Batch
from tasktokens.datasets.open import Data, open_data
from tasktokens.errors import CheckpointError, ConfigError, TrainingError
from tasktokens.inference.evaluate import eval_dataset, evaluate_network, write_results
from tasktokens.inspection.before_training import check_before_run
from tasktokens.methods import Method, Stage, build_method
from tasktokens.models import Network
from tasktokens.models.files import ModelInfo, load_weights, save_model
from tasktokens.training.batch_size import explain_oom, with_batch_size
from tasktokens.training.calibration import Calibration
from tasktokens.training.checkpoint import (
    Cursor,
    latest_checkpoint,
    load_optimizer,
    read_cursor,
    save_checkpoint,
)
from tasktokens.training.log import Clock, Row, RunLog, memory_mb
from tasktokens.training.nan_guard import FiniteGuard, check_all_used, finite_guard
from tasktokens.training.optim import make_optimizer, set_lr
from tasktokens.training.run_folder import check_run_folder, prepare_folder
from tasktokens.training.stage_networks import move_average, networks_of, stage_output, start_from
from tasktokens.training.step import Step
from tasktokens.training.tracking import Tracking, check_trackers
from tasktokens.training.train_data import TrainData
from tasktokens.training.validation import Follow, Validation, check_validation, validation_dataset
from tasktokens.utils.distributed import (
    STOP_EVERY,
    all_gather,
    main_process_first,
    raise_on_all_ranks,
    signals,
    start,
    stopping,
    sync_batch_norm,
    training_precision,
)
from tasktokens.utils.signals import StopSignal


def train(
    config: Config,
    resume: bool = False,
    overwrite: bool = False,
    init_from: Path | None = None,
    quiet: bool = False,
    follow: Follow | None = None,
) -> Path:
    """Train as configured and return the run folder; on several ranks where ``torchrun`` started them.

    Args:
        config: see `load_config`.
        resume: go on with the run in ``config.run.dir`` from its last checkpoint, with the same result as if it had
            never stopped; what is left may be the evaluation, or nothing. The configuration must be the run's own.
        overwrite: delete what lies in the run folder first.
        init_from: a run or model folder whose weights the first stage of this new run starts from; if that stage has
            no steps, they are the teacher's of the second.
        quiet: no progress line.
        follow: called on the main process after each validation.

    Raises:
        RunExistsError: the run folder is not empty and neither ``resume`` nor ``overwrite`` is set, or another process
            is training in it.
        ConfigError, DataError, CheckpointError, WeightsError, TrainingError, OutOfMemoryError: see their messages.
        OtherRankError: another rank has raised one of these.
        SystemExit: 130 or 143 after SIGINT or SIGTERM, with a checkpoint saved; during the evaluation, too.
    """
    check_validation(config.run)
    check_trackers(config.run)
    if config.run.threads is not None:
        torch.set_num_threads(config.run.threads)
    accelerator = start(config.run, training_precision(config.run))
    data = main_process_first(accelerator, lambda: open_data(config, progress=not quiet))
    with raise_on_all_ranks(accelerator):
        # Errors now, not after training.
        if config.run.evaluate is not None:
            eval_dataset(data, config.run.evaluate, data.tasks, config.data.size)
        if config.run.validate_every is not None:
            validation_dataset(data, config, data.tasks)
        if accelerator.is_main_process:
            check_run_folder(config.run.dir, resume, overwrite)
            check_before_run(data, config, quiet)
    config = with_batch_size(config, data, accelerator, resume, quiet)
    with raise_on_all_ranks(accelerator):
        trainer = Trainer(config, data, accelerator, quiet, follow)
        if not resume:
            trainer.require_teacher(init_from)
        if accelerator.is_main_process:
            prepare_folder(config, data, resume, overwrite)
    try:
        with explain_oom(config, data, accelerator):
            trainer.run(resume, init_from)
    except RuntimeError as error:
        if config.run.deterministic and "deterministic implementation" in str(error):
            raise TrainingError(f"run.deterministic cannot be kept here: {str(error).split('. ')[0]}") from error
        raise
    accelerator.wait_for_everyone()  # the files are there when any rank returns
    return config.run.dir


class Trainer:
    """State of a run that its stages share.

    Raises `ConfigError` where the settings do not go together with the method, the device or the number of ranks.
    """

    def __init__(
        self, config: Config, data: Data, accelerator: Accelerator, quiet: bool, follow: Follow | None = None
    ) -> None:
        zooms = config.data.augmentation.widest
        tasks = {name: task.widened(zooms) for name, task in data.tasks.items()}
        self.config, self.data, self.accelerator, self.tasks, self.quiet = config, data, accelerator, tasks, quiet
        self.method: Method = build_method(config.method, tasks)
        self.calibration = Calibration(self.method, data, tasks, config, accelerator)
        self.info = ModelInfo(self.method.network, config.model, tasks, config.data.size)
        self.folder = config.run.dir
        self.started = time.monotonic()
        self.follow = follow
        self.feed = TrainData(config, data, tasks, accelerator, self.method.stages())
        if config.optim.accumulate > 1 and type(self.method).counts is Method.counts:
            raise ConfigError(
                f"method '{config.method.name}' cannot take a batch in parts, as optim.accumulate="
                f"{config.optim.accumulate} asks; leave it at 1"
            )
        if config.run.sync_batch_norm and accelerator.device.type != "cuda":
            raise ConfigError("run.sync_batch_norm needs GPUs: torch has no SyncBatchNorm for CPUs; leave it out")

    def run(self, resume: bool, init_from: Path | None) -> None:
        """All stages, from the start or from the last checkpoint, then evaluation."""
        main, stages = self.accelerator.is_main_process, self.method.stages()
        with raise_on_all_ranks(self.accelerator):
            checkpoint = latest_checkpoint(self.folder / "checkpoints", quiet=not main) if resume else None
            cursor = read_cursor(checkpoint) if checkpoint else Cursor()
            tracking = Tracking(self.config, stages, cursor, main)
            path = self.folder / "metrics.jsonl" if main else None
            log = RunLog(path, self.quiet, f"{self.folder.name} ", self._rows_until(cursor), tracking.row)
        self._check_same_checkpoint(cursor)
        if not log.finished:
            device, images = self.accelerator.device, self.config.optim.images
            name = stages[cursor.stage].name
            log.note(f"from step {cursor.step} of stage {name}: {images} images a step on {device}")
        network: Network | None = None
        self.started -= 60 * log.minutes
        try:
            self.validation = Validation(self.config, self.data, self.info, self.accelerator, stages, log, self.follow)
            with signals(self.accelerator.num_processes) as stop:
                for index, stage in enumerate(stages):
                    if index < cursor.stage:
                        continue
                    with raise_on_all_ranks(self.accelerator):
                        student, teacher = self._networks(index, stage, network, checkpoint)
                        if index == 0 and init_from is not None and checkpoint is None:
                            start_from(student, init_from, self.info)
                    first = cursor.step if index == cursor.stage else 0
                    self._stage(index, stage, first, student, teacher, checkpoint, log, stop)
                    if stage.teacher and teacher is not None and self.accelerator.is_main_process:
                        save_model(self.folder / "teacher", teacher, self.info)
                    network = stage_output(stage, student, teacher)
                    checkpoint = None
                assert network is not None
                self._finish(network, log, stop)
        except BaseException as error:
            log.note(f"ended by {type(error).__name__}: {error}")
            raise
        finally:
            log.close()
            tracking.finish()

    def require_teacher(self, init_from: Path | None) -> None:
        """A first stage without steps hands on the network of another run; there must be one."""
        first = self.method.stages()[0]
        if first.steps == 0 and init_from is None:
            raise ConfigError(
                f"stage '{first.name}' has no steps, so its network has to come from another run: give --init-from "
                f"RUN, or the stage some steps"
            )

    def _check_same_checkpoint(self, cursor: Cursor) -> None:
        """All ranks go on from one checkpoint, or none does: machines must share the run folder."""
        seen = all_gather(self.accelerator, (cursor.stage, cursor.step))
        with raise_on_all_ranks(self.accelerator):
            if len(set(seen)) > 1:
                raise CheckpointError(
                    f"ranks see different checkpoints in {self.folder} (stage and step {sorted(set(seen))}); "
                    f"run.dir must lie on a file system that all machines share"
                )

    def _rows_until(self, cursor: Cursor) -> Callable[[Row], bool]:
        """Which rows of the log belong to a run that stands there: those of later steps will be written again."""
        stages = self.method.stages()
        names = [stage.name for stage in stages]
        at_end = cursor == Cursor(len(stages) - 1, stages[-1].steps)

        def keep(row: Row) -> bool:
            if "stage" not in row:
                return at_end
            return row["stage"] in names and (names.index(row["stage"]), row["step"]) <= (cursor.stage, cursor.step)

        return keep

    def _networks(
        self, index: int, stage: Stage, before: Network | None, checkpoint: Path | None
    ) -> tuple[Network, Network | None]:
        """Student and teacher of a stage, and the method's own state, where they are trained."""
        student, teacher = networks_of(stage, self.feed.seed(index), self.info, before, checkpoint)
        device, state = self.accelerator.device, self.method.state()
        if state is not None:
            if checkpoint is not None:
                load_weights(state, checkpoint / "method.safetensors")
            state.to(device)
        if self.config.run.sync_batch_norm:
            sync_batch_norm(student)
        return student.to(device), None if teacher is None else teacher.to(device)

    def _stage(
        self,
        index: int,
        stage: Stage,
        first: int,
        student: Network,
        teacher: Network | None,
        checkpoint: Path | None,
        log: RunLog,
        stop: StopSignal,
    ) -> None:
        """The loop over steps ``first`` to the stage's last."""
        settings, accelerator, validation = self.config.run, self.accelerator, self.validation
        optimizer = make_optimizer(student, self.config.optim)
        if checkpoint is not None:
            load_optimizer(checkpoint, optimizer, accelerator.scaler)
        if first and validation.due(first, first == stage.steps):  # the run was ended before it
            validation.after(Cursor(index, first), stage_output(stage, student, teacher), stop)
        batches: Iterator[Batch] = self.feed.loader(index, first) if first < stage.steps else iter(())
        if accelerator.num_processes > 1:
            batches = self._check_first_batch(index, first, student, teacher, batches)
        model, prepared = accelerator.prepare(student, optimizer)
        guard = finite_guard(optimizer, student, accelerator)
        take_step = Step(self.method, accelerator, model, prepared, guard, self.config.optim.clip)
        clock, left_out = Clock(), 0
        for step in range(first, stage.steps):
            if self.calibration.before(stage, step, teacher, log):
                clock.skip()
            parts = [batch.to(accelerator.device) for batch in islice(batches, self.config.optim.accumulate)]
            clock.loaded()
            left_out += sum(self.feed.left_out(batch, log) for batch in parts)
            set_lr(optimizer, self.config.optim, step, stage.steps)
            model.train()
            means = take_step(parts, teacher, partial(self.feed.options, index, step))
            if teacher is not None and stage.ema is not None:
                # A short memory at first, or the random start would linger in the average.
                move_average(teacher, student, min(stage.ema, step / (step + 10)))
            clock.stepped(sum(len(batch.ids) for batch in parts) * accelerator.num_processes)
            done = step + 1
            last = done == stage.steps
            asks = accelerator.num_processes == 1 or last or done % STOP_EVERY == 0
            stopped = asks and stopping(stop, accelerator)
            if last or done % settings.log_every == 0:
                row = {"stage": stage.name, "step": done, "lr": optimizer.param_groups[-1]["lr"]}
                row |= self._measured(means, guard, clock, left_out)
                left_out = 0
                log.row(row)
                log.progress(row, stage.steps, eta=(stage.steps - done) * clock.seconds_per_step)
            # Saved before it is validated, which may take long: then the best network is never of a step that is not.
            due, validate = last or done % settings.checkpoint_every == 0, validation.due(done, last)
            if accelerator.is_main_process and (stopped or due or validate):
                self._save(Cursor(index, done), student, teacher, optimizer)
            if stopped:
                accelerator.wait_for_everyone()  # a launcher kills the others when one has left
                note = f"{done} of {stage.steps} steps of stage {stage.name} are saved; --resume goes on"
                stop.leave(note, say=accelerator.is_main_process)
            if validate:
                validation.after(Cursor(index, done), stage_output(stage, student, teacher), stop)
            clock.skip()
        accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # takes its autocast off, which a copy would keep
        accelerator.free_memory()

    def _measured(self, means: Mapping[str, Tensor], guard: FiniteGuard, clock: Clock, left_out: int) -> Row:
        """What the log says of the last step and of the time since the last row; all ranks take part."""
        with raise_on_all_ranks(self.accelerator):
            row: Row = {"skipped": guard.check()}
        row |= {name: mean.item() for name, mean in means.items()} | clock.read()
        row |= {"memory_mb": memory_mb(self.accelerator.device), "minutes": self._minutes()}
        if self.config.data.skip_corrupt:
            row["left_out"] = sum(all_gather(self.accelerator, left_out))
        return row

    def _save(
        self, cursor: Cursor, student: Network, teacher: Network | None, optimizer: torch.optim.Optimizer
    ) -> None:
        scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else None
        folder, keep = self.folder / "checkpoints", self.config.run.keep
        save_checkpoint(folder, cursor, student, teacher, optimizer, keep, self.method.state(), scaler)

    def _check_first_batch(
        self, index: int, first: int, student: Network, teacher: Network | None, batches: Iterator[Batch]
    ) -> Iterator[Batch]:
        """See `check_all_used`; the first batch is looked at for that, in evaluation mode, and handed on."""
        peeked = list(islice(batches, 1))
        with raise_on_all_ranks(self.accelerator):
            for batch in peeked:
                with self.accelerator.autocast():
                    options = self.feed.options(index, first, 0)
                    terms = self.method.terms(batch.to(self.accelerator.device), student.eval(), teacher, options)
                check_all_used(student, torch.stack([term.total for term in terms]).sum())
        return chain(peeked, batches)

    def _minutes(self) -> float:
        """Minutes of training, those before the run was resumed included."""
        return (time.monotonic() - self.started) / 60

    def _finish(self, network: Network, log: RunLog, stop: StopSignal) -> None:
        """Save the model, evaluate it unless that was done before, and note how long the training took."""
        config, accelerator = self.config, self.accelerator
        if accelerator.is_main_process:
            save_model(self.folder / "model", network, self.info)
        minutes = self._minutes()
        # Only the main process has read the log, and all must agree or wait for each other for ever.
        finished = accelerator.reduce(torch.tensor(float(log.finished), device=accelerator.device), "sum").item() > 0
        split = config.run.evaluate
        if split is not None and not finished:
            dataset = eval_dataset(self.data, split, self.tasks, config.data.size, config.data.evaluation)
            workers = config.data.workers
            results = evaluate_network(network, dataset, config.optim.images, accelerator, stop, workers=workers)
            if accelerator.is_main_process:
                write_results(self.folder / f"evaluation-{split}.json", results)
        if accelerator.is_main_process and not finished:
            log.row({"finished": True, "minutes": minutes})
        if stopping(stop, accelerator):
            stop.leave("the run is complete", say=accelerator.is_main_process)
