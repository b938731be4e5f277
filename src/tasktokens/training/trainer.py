"""Training, top to bottom: load, step, log, save, validate; one loop for all methods, on one process or many."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from tasktokens.config import Config
from tasktokens.data.sample import Batch
from tasktokens.datasets.open import Data
from tasktokens.datasets.run_data import described
from tasktokens.discovery.store import Store
from tasktokens.hub.download import local_model
from tasktokens.inference.evaluate import eval_dataset, evaluate_network, write_results
from tasktokens.methods import Method, PreparedBatch, Stage, build_method
from tasktokens.models import Network
from tasktokens.models.files import ModelInfo, load_weights, save_model
from tasktokens.training.batch_norm import check_batch_norm
from tasktokens.training.beside import Beside, trained
from tasktokens.training.callbacks import (
    Calibration,
    Callback,
    Checkpoints,
    MetricsLog,
    TaskWeights,
    Tracking,
    Validation,
)
from tasktokens.training.checkpoint import Cursor, load_optimizer, load_sums
from tasktokens.training.clock import Clock
from tasktokens.training.delivery import better_network
from tasktokens.training.discovering import TEACHER, kept_teacher, labels_to_learn
from tasktokens.training.log import Row, RunLog
from tasktokens.training.loss_balance import is_balance
from tasktokens.training.loss_means import LossMeans, mean
from tasktokens.training.make_balance import make_balance
from tasktokens.training.nan_guard import FiniteGuard, finite_guard
from tasktokens.training.optim import make_optimizer, set_lr
from tasktokens.training.resume import resume_point, rows_until
from tasktokens.training.run_folder import prepare_folder
from tasktokens.training.setup import check_method, check_start, explain_errors, open_run
from tasktokens.training.stage_networks import move_average, networks_of, stage_output, start_from
from tasktokens.training.step import Step, check_first_batch
from tasktokens.training.train_data import TrainData
from tasktokens.utils.distributed import STOP_EVERY, raise_on_all_ranks, signals, stopping, sync_batch_norm
from tasktokens.utils.signals import StopSignal


def train(
    config: Config,
    resume: bool = False,
    overwrite: bool = False,
    init_from: Path | None = None,
    quiet: bool = False,
    callbacks: Sequence[Callback] = (),
) -> Path:
    """Train as configured and return the run folder; on several ranks where ``torchrun`` started them.

    Args:
        config: see `load_config`.
        resume: continue the run in ``config.run.dir`` from its last checkpoint, with the same result as if it had
            never stopped; what is left may be the evaluation, or nothing. The configuration must be the run's own.
        overwrite: delete what lies in the run folder first.
        init_from: a run or model folder whose weights the first stage of this new run starts from; if that stage has
            no steps, they are the teacher's of the second.
        quiet: do not show progress.
        callbacks: called at each step, validation, checkpoint and so on, after what the trainer itself does then.

    Raises:
        RunExistsError: the run folder is not empty and neither ``resume`` nor ``overwrite`` is set, or another process
            is training in it.
        ConfigError, DataError, CheckpointError, WeightsError, TrainingError, OutOfMemoryError: see their messages.
        OtherRankError: another rank has raised one of these.
        SystemExit: 130 or 143 after SIGINT or SIGTERM, with a checkpoint saved; during the evaluation, too.
    """
    init_from = None if init_from is None else local_model(init_from)
    config, data, accelerator = open_run(config, resume, overwrite, quiet, init_from)
    with raise_on_all_ranks(accelerator):
        trainer = Trainer(config, data, accelerator, quiet, callbacks)
        if not resume:
            check_batch_norm(trainer.info, config, accelerator.num_processes, len(data.train))
            if init_from is not None:
                check_start(trainer.info, init_from)
        if accelerator.is_main_process:
            prepare_folder(config, data, accelerator, resume, overwrite)
    with explain_errors(config, data, accelerator), trainer.started(resume):
        for index in range(trainer.cursor.stage, len(trainer.stages)):
            trainer.run_stage(index, init_from)
        trainer.finish()
    accelerator.wait_for_everyone()  # the files are there when any rank returns
    trainer.notify("on_end")
    return config.run.dir


class Trainer:
    """A run: `run_stage` holds the loop; callbacks log, save and validate.

    Attributes:
        config: of the run. data: that it was opened from. accelerator: of this rank.
        tasks: by name. method: how partial labels are used. stages: the method's.
        folder: of the run. log: ``metrics.jsonl`` and ``log.txt``. stop: whether a signal says to end.
        stage: that is trained. step: how many of its steps are done.
        student: the network that is trained. teacher: the network that it learns from at each step, or None.
        discoverer: the network that discovers the labels of a stage before its first step, or None. discovered: these
            labels, if any. teacher_hash: SHA-256 of the weights of the network that discovered them.
        beside: what is trained beside it. optimizer: of both. guard: keeps numbers that are not finite away from it.
        batches: this rank's parts of the last step's batch. losses: mean of each term of the last step, by name; NaN
            without a label. loss_means: of the steps since the last row. balance: factors of the tasks' losses.
        clock: where the time goes. stopping: whether the run ends after this step.

    Raises:
        ConfigError: the settings do not go together with the method, the device or the number of ranks.
    """

    stage: Stage
    student: Network
    teacher: Network | None
    discoverer: Network | None = None
    discovered: Store | None = None
    teacher_hash: str | None = None
    beside: Beside
    optimizer: torch.optim.Optimizer
    guard: FiniteGuard
    batches: list[Batch]
    sums: dict[str, Tensor]
    """Sum and count (2,) of each term of the last step, by name."""
    losses: dict[str, Tensor]
    log: RunLog
    stop: StopSignal
    _before: Network | None = None
    _checkpoint: Path | None = None

    def __init__(
        self, config: Config, data: Data, accelerator: Accelerator, quiet: bool = False,
        callbacks: Sequence[Callback] = (),
    ) -> None:  # fmt: skip
        zooms = config.data.augmentation.widest
        self.config, self.data, self.accelerator, self.quiet = config, data, accelerator, quiet
        self.folder, self.tasks = config.run.dir, {name: task.widened(zooms) for name, task in data.tasks.items()}
        self.method: Method = build_method(config.method, self.tasks, config.data.augmentation.flip)
        check_method(self.method, config, accelerator)
        self.stages = self.method.stages()
        self.info = ModelInfo(
            self.method.network, config.model, self.tasks, config.data.size, config.data.augmentation.flip, zooms[1]
        )
        self.train_data = TrainData(config, data, self.tasks, accelerator, self.stages)
        calibration = Calibration(self.method, data, self.tasks, config, accelerator)
        # In this order: a step is logged before it is saved, and saved before it is validated, which may take long.
        self.callbacks = [calibration, MetricsLog(), TaskWeights(), Tracking(), Checkpoints(), Validation(), *callbacks]
        self.clock, self.loss_means, self.stopping = Clock(), LossMeans(), False
        self.balance = make_balance(config.optim.balance, self.tasks, -(-len(data.train) // config.optim.images))
        self.stage_index = self.step = 0
        self.stage = self.stages[0]

    # -- the loop ------------------------------------------------------------------------------------------------------
    def run_stage(self, index: int, init_from: Path | None = None) -> None:
        """Train the steps of a stage that are left."""
        self._make_networks(index, init_from)
        self._make_discoverer()
        self.notify("on_stage_start")
        self.discovered = labels_to_learn(self)
        batches = self._open_batches()
        take_step = self._make_step()
        self.clock = Clock()
        while self.step < self.stage.steps:
            self.notify("on_step_start")
            self.clock.skip()  # what callbacks took is neither waiting nor training
            self.batches = list(islice(batches, self.config.optim.accumulate))
            self.clock.loaded()
            prepared = self._prepare(self.batches)
            set_lr(self.optimizer, self.config.optim, self.step, self.stage.steps)
            self.sums = take_step(prepared, self.teacher)
            self.losses = {name: mean(summed_2) for name, summed_2 in self.sums.items()}
            self.loss_means.add(self.sums)
            self.balance.add(self.sums)
            if self.teacher is not None and self.stage.ema is not None:
                # A short memory at first, or the random start would linger in the average.
                move_average(self.teacher, self.student, min(self.stage.ema, self.step / (self.step + 10)))
            self.clock.stepped(sum(len(batch.ids) for batch in self.batches) * self.accelerator.num_processes)
            self.step += 1
            self.stopping = self._stop_requested()
            self.notify("on_step")  # log, save, validate
        self._close_stage(take_step)

    def finish(self) -> None:
        """Save the better of student and teacher, evaluate it unless that was done, and note how long it took."""
        config, accelerator, minutes = self.config, self.accelerator, self.minutes
        network = better_network(self)
        if accelerator.is_main_process:
            save_model(self.folder / "model", network, self.info)
        # Only the main process has read the log, and all must agree or wait for each other for ever.
        done = torch.tensor(float(self.log.finished), device=accelerator.device)
        finished = accelerator.reduce(done, "sum").item() > 0
        split, workers = config.run.evaluate, config.data.workers
        if split is not None and not finished:
            dataset = eval_dataset(self.data, split, self.tasks, config.data.size, config.data.evaluation)
            results = evaluate_network(network, dataset, config.optim.images, accelerator, self.stop, workers=workers)
            if accelerator.is_main_process:
                write_results(self.folder / f"evaluation-{split}.json", results)
        if accelerator.is_main_process and not finished:
            self.write_row({"finished": True, "minutes": minutes})
        if stopping(self.stop, accelerator):
            self.stop.exit("the run is complete", say=accelerator.is_main_process)

    # -- for callbacks -------------------------------------------------------------------------------------------------
    @property
    def network(self) -> Network:
        """What the stage hands on: the student, or the moving average of it."""
        return stage_output(self.stage, self.student, self.teacher)

    @property
    def cursor(self) -> Cursor:
        """Where the run stands: number of the stage, and of its steps that are done."""
        return Cursor(self.stage_index, self.step, self.teacher_hash)

    @property
    def is_last_step(self) -> bool:
        """Whether all steps of the stage are done."""
        return self.step == self.stage.steps

    @property
    def minutes(self) -> float:
        """Minutes of training, those before the run was resumed included."""
        return (time.monotonic() - self._started) / 60

    def notify(self, event: str, *values: Any) -> None:
        """Call a method of every callback (`Callback`) with the trainer and ``values``."""
        for callback in self.callbacks:
            getattr(callback, event)(self, *values)

    def write_row(self, row: Row) -> None:
        """Add a row to ``metrics.jsonl``; on the main process alone callbacks hear of it."""
        plain = self.log.row(row)
        if self.accelerator.is_main_process:
            self.notify("on_log", plain)

    # -- before and after ----------------------------------------------------------------------------------------------
    @contextmanager
    def started(self, resume: bool) -> Iterator[None]:
        """The run's log is open and signals are caught; with ``resume`` it stands where its checkpoint says."""
        main = self.accelerator.is_main_process
        self._checkpoint, cursor = resume_point(self.folder, self.accelerator, resume)
        self.stage_index, self.step, self.stage = cursor.stage, cursor.step, self.stages[cursor.stage]
        self.teacher_hash = cursor.teacher
        with raise_on_all_ranks(self.accelerator):
            path, keep = self.folder / "metrics.jsonl" if main else None, rows_until(self.stages, cursor)
            self.log = RunLog(path, self.quiet, f"{self.folder.name} ", keep)
        if not self.log.finished:
            images = f"{self.config.optim.images} images per step on {self.accelerator.device}"
            self.log.note(f"from step {cursor.step} of stage {self.stage.name}: {images}")
            for line in described(self.config, self.data):
                self.log.say(line)
        self._started = time.monotonic() - 60 * self.log.minutes
        try:
            self.notify("on_start")
            with signals(self.accelerator.num_processes) as self.stop:
                yield
        except BaseException as error:
            self.log.note(f"ended by {type(error).__name__}: {error}")
            self._release()
            raise
        finally:
            self.log.close()
            self.notify("on_close")

    def _make_networks(self, index: int, init_from: Path | None) -> None:
        """Student, teacher, optimiser and the method's own state at the start of a stage, or from its checkpoint."""
        checkpoint, self._checkpoint = self._checkpoint, None
        self.step = self.step if index == self.stage_index else 0
        self.stage_index, self.stage = index, self.stages[index]
        device = self.accelerator.device
        with raise_on_all_ranks(self.accelerator):
            seed = self.train_data.seed(index)
            student, teacher = networks_of(self.stage, seed, self.info, self._before, checkpoint)
            self.method.begin(student)
            if (state := self.method.state()) is not None:
                if checkpoint is not None:
                    load_weights(state, checkpoint / "method.safetensors")
                state.to(device)
            if (learned := self.balance.module) is not None:
                if checkpoint is not None:
                    load_weights(learned, checkpoint / "balance.safetensors")
                learned.to(device)
            self.beside = Beside(trained(state, learned))
            if self.config.run.sync_batch_norm:
                for module in (student, *self.beside.modules):
                    sync_batch_norm(module)
            self.student, self.teacher = student.to(device), None if teacher is None else teacher.to(device)
            if index == 0 and init_from is not None and checkpoint is None:
                start_from(self.student, init_from, self.info)
        factors = [(module, self.method.state_lr if module is state else 1.0) for module in self.beside.modules]
        self.optimizer = make_optimizer(self.student, self.config.optim, factors)
        if checkpoint is not None:
            load_optimizer(checkpoint, self.optimizer, self.accelerator.scaler)
            sums = load_sums(checkpoint)
            self.loss_means.load({name: pair for name, pair in sums.items() if not is_balance(name)}, device)
            self.balance.load(sums, device)

    def _make_discoverer(self) -> None:
        """The network that discovers a stage's labels; a stage that has begun, or discovers none, has none."""
        self.discoverer = None
        elsewhere = self.data.discovered is not None and self.data.discovered.in_place_of_teacher
        own = self.stage.discovered and not elsewhere
        if own and self.step == 0:
            self.discoverer, self.teacher_hash = kept_teacher(self, self._before)
        elif not own:
            self.teacher_hash = None

    def _open_batches(self) -> Iterator[Batch]:
        """The batches of the steps that are left, ``optim.accumulate`` per step."""
        if self.is_last_step:
            return iter(())
        batches = self.train_data.loader(self.stage_index, self.step, self.discovered)
        if self.accelerator.num_processes == 1:
            return batches
        first = next(batches)
        with raise_on_all_ranks(self.accelerator):
            (prepared,) = self._prepare([first])
            check_first_batch(self.method, prepared, self.student, self.teacher, self.accelerator)
        return chain([first], batches)

    def _prepare(self, batches: Sequence[Batch]) -> list[PreparedBatch]:
        """This rank's parts of a step's batch on its device, with all that they draw at random."""
        return [
            self.method.prepare(
                batch.to(self.accelerator.device),
                self.train_data.generator(self.stage_index, self.step),
                self.train_data.options(self.stage_index, self.step, part),
            )
            for part, batch in enumerate(batches)
        ]

    def _make_step(self) -> Step:
        model, optimizer = self.accelerator.prepare(self.student, self.optimizer)
        networks = nn.ModuleList([self.student, *self.beside.modules])
        self.guard = finite_guard(self.optimizer, networks, self.accelerator)
        return Step(
            self.method, self.accelerator, model, optimizer, self.guard, self.config.optim.clip, self.balance,
            self.beside,
        )  # fmt: skip

    def _stop_requested(self) -> bool:
        """Whether a signal has come; several ranks ask each other, which waits for the device, every few steps."""
        asks = self.accelerator.num_processes == 1 or self.is_last_step or self.step % STOP_EVERY == 0
        return asks and stopping(self.stop, self.accelerator)

    def _close_stage(self, step: Step) -> None:
        """Hand the stage's network on to the next."""
        # Takes its autocast off, which a copy would keep.
        self.accelerator.unwrap_model(step.model, keep_fp32_wrapper=False)
        self.accelerator.free_memory()
        if self.stage.teacher and self.teacher is not None and self.accelerator.is_main_process:
            save_model(self.folder / TEACHER, self.teacher, self.info)
        self._before, self.discoverer = self.network, None

    def _release(self) -> None:
        """Free the memory of networks and batches, so that steps can be measured afterwards."""
        for name in (
            "student", "teacher", "beside", "optimizer", "guard", "batches", "losses", "discoverer", "_before",
        ):  # fmt: skip
            self.__dict__.pop(name, None)
