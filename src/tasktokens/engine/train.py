"""Training: one explicit loop for all methods, on one process or many (started by torchrun)."""

from __future__ import annotations

import copy
import json
import platform
import shutil
import time
from importlib.metadata import version
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tasktokens.config import Config, load_config, to_yaml
from tasktokens.data.dataset import EpochSampler, PartialDataset, train_loader
from tasktokens.data.doctor_start import check_before_run
from tasktokens.data.partial import save_split
from tasktokens.data.sample import Batch, Sample
from tasktokens.data.source import Data, open_data
from tasktokens.engine.checkpoint import Cursor, latest_checkpoint, load_optimizer, read_cursor, save_checkpoint
from tasktokens.engine.evaluate import eval_dataset, evaluate_network, write_results
from tasktokens.engine.guards import FiniteGuard, StopSignal
from tasktokens.engine.log import Clock, RunLog, memory_mb
from tasktokens.engine.model_file import ModelInfo, load_weights, read_info, save_model
from tasktokens.engine.optim import make_optimizer, set_lr
from tasktokens.errors import CheckpointError, ConfigError, RunExistsError
from tasktokens.methods import Method, Stage, StepOptions, Term, build_method
from tasktokens.models import Network


def train(
    config: Config, resume: bool = False, overwrite: bool = False, init_from: Path | None = None, quiet: bool = False
) -> Path:
    """Train as configured and return the run folder.

    Args:
        config: see `load_config`.
        resume: go on with the run in ``config.run.dir`` from its last checkpoint, with the same result as if it had
            never stopped. The configuration must be the run's own.
        overwrite: delete what lies in the run folder first.
        init_from: a run or model folder whose weights the first stage of this new run starts from.
        quiet: no progress line.

    Raises:
        RunExistsError: the run folder is not empty and neither ``resume`` nor ``overwrite`` is set.
        ConfigError, DataError, CheckpointError, WeightsError, TrainingError: see their messages.
        SystemExit: 130 or 143 after SIGINT or SIGTERM, with a checkpoint saved.
    """
    if config.run.threads is not None:
        torch.set_num_threads(config.run.threads)
    accelerator = Accelerator(cpu=config.run.device == "cpu", mixed_precision=_precision(config))
    data = open_data(config, progress=not quiet)
    if config.run.evaluate is not None:
        eval_dataset(data, config.run.evaluate, data.tasks, config.data.size)  # an error now, not after training
    if accelerator.is_main_process:
        check_before_run(data, config, quiet)
        _prepare_folder(config, data, resume, overwrite)
    accelerator.wait_for_everyone()
    trainer = Trainer(config, data, accelerator, quiet)
    trainer.run(resume, init_from)
    return config.run.dir


class Trainer:
    """State of a run that its stages share."""

    def __init__(self, config: Config, data: Data, accelerator: Accelerator, quiet: bool) -> None:
        scale = config.data.augmentation.scale
        tasks = {name: task.widened(scale) for name, task in data.tasks.items()}
        self.config, self.data, self.accelerator, self.tasks, self.quiet = config, data, accelerator, tasks, quiet
        self.method: Method = build_method(config.method, tasks)
        self.info = ModelInfo(self.method.network, config.model, tasks, config.data.size)
        self.folder = config.run.dir
        self.started = time.monotonic()

    def run(self, resume: bool, init_from: Path | None) -> None:
        """All stages, from the start or from the last checkpoint, then evaluation."""
        checkpoint = latest_checkpoint(self.folder / "checkpoints") if resume else None
        cursor = read_cursor(checkpoint) if checkpoint else Cursor()
        network: Network | None = None
        main = self.accelerator.is_main_process
        log = RunLog(self.folder / "metrics.jsonl" if main else None, self.quiet, f"{self.folder.name} ")
        try:
            for index, stage in enumerate(self.method.stages()):
                if index < cursor.stage:
                    continue
                student, teacher = self._networks(index, stage, network, checkpoint)
                if index == 0 and init_from is not None and checkpoint is None:
                    _start_from(student, init_from, self.info)
                first = cursor.step if index == cursor.stage else 0
                self._stage(index, stage, first, student, teacher, checkpoint, log)
                if stage.teacher and teacher is not None and self.accelerator.is_main_process:
                    save_model(self.folder / "teacher", teacher, self.info)
                # A moving average predicts better than the last of the networks that it averages (Mean Teacher, 2017).
                network = teacher if teacher is not None and stage.ema is not None else student
                checkpoint = None
            assert network is not None
            self._finish(network, log)
        finally:
            log.close()

    def _networks(
        self, index: int, stage: Stage, before: Network | None, checkpoint: Path | None
    ) -> tuple[Network, Network | None]:
        """Student and teacher of a stage: from a checkpoint within it, or from the network of the stage before."""
        # A stage's fresh network depends on the seed and the stage alone, so a resumed run draws the same.
        torch.manual_seed(self._stage_seed(index))
        device = self.accelerator.device
        if checkpoint is not None:
            student = self.info.build()
            load_weights(student, checkpoint / "student.safetensors")
            teacher = self.info.build() if stage.teacher or stage.ema is not None else None
            if teacher is not None:
                load_weights(teacher, checkpoint / "teacher.safetensors")
        else:
            student = self.info.build(load_weights=True)
            teacher = before if stage.teacher else copy.deepcopy(student) if stage.ema is not None else None
            if before is not None and stage.student == "teacher":
                student.load_state_dict(before.state_dict())
        if teacher is not None:
            teacher = teacher.to(device).eval().requires_grad_(False)
        return student.to(device), teacher

    def _stage(
        self,
        index: int,
        stage: Stage,
        first: int,
        student: Network,
        teacher: Network | None,
        checkpoint: Path | None,
        log: RunLog,
    ) -> None:
        """The loop over steps ``first`` to the stage's last."""
        settings = self.config.run
        optimizer = make_optimizer(student, self.config.optim)
        if checkpoint is not None:
            load_optimizer(checkpoint, optimizer)
        model, prepared = self.accelerator.prepare(student, optimizer)
        guard = FiniteGuard(optimizer, self.accelerator.device)
        batches = iter(self._loader(index, first))
        clock = Clock()
        with StopSignal() as stop:
            for step in range(first, stage.steps):
                batch = next(batches).to(self.accelerator.device)
                clock.loaded()
                set_lr(optimizer, self.config.optim, step, stage.steps)
                means = self._step(batch, model.train(), teacher, prepared, guard, self._options(index, step))
                if teacher is not None and stage.ema is not None:
                    # A short memory at first, or the random start would linger in the average.
                    move_average(teacher, student, min(stage.ema, step / (step + 10)))
                clock.stepped(len(batch.ids) * self.accelerator.num_processes)
                done = step + 1
                last = done == stage.steps
                if last or done % settings.log_every == 0:
                    row = {"stage": stage.name, "step": done, "lr": optimizer.param_groups[-1]["lr"]}
                    row |= {"skipped": guard.check()} | {name: mean.item() for name, mean in means.items()}
                    row |= clock.read() | {"memory_mb": memory_mb(self.accelerator.device)}
                    log.row(row)
                    log.progress(row, stage.steps, eta=(stage.steps - done) * clock.seconds_per_step)
                if self.accelerator.is_main_process and (
                    stop.received or last or done % settings.checkpoint_every == 0
                ):
                    cursor = Cursor(index, done)
                    save_checkpoint(self.folder / "checkpoints", cursor, student, teacher, optimizer, settings.keep)
                if stop.received:
                    raise SystemExit(stop.exit_code)
        self.accelerator.free_memory()

    def _step(
        self,
        batch: Batch,
        model: nn.Module,
        teacher: Network | None,
        optimizer: AcceleratedOptimizer,
        guard: FiniteGuard,
        options: StepOptions,
    ) -> dict[str, Tensor]:
        """One update; returns each term's mean. Nothing here waits for the device."""
        with self.accelerator.autocast():
            terms = self.method.terms(batch, model, teacher, options)
        loss, means = combine(terms, self.accelerator)
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(model.parameters(), self.config.optim.clip)
        guard.before_update(norm, batch.ids)
        optimizer.step()
        optimizer.zero_grad()
        return means

    def _loader(self, index: int, first: int) -> DataLoader[Sample]:
        """Batches of a stage from step ``first`` on."""
        settings, seed = self.config.data, self._stage_seed(index)
        dataset = PartialDataset(
            self.data.collection,
            self.data.train,
            self.tasks,
            settings.size,
            settings.augmentation,
            seed,
            settings.cache,
        )
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        sampler = EpochSampler(len(dataset), self.config.optim.batch_size, seed, first, rank, ranks)
        return train_loader(dataset, sampler, settings.workers)

    def _options(self, index: int, step: int) -> StepOptions:
        generator = torch.Generator().manual_seed(self._stage_seed(index) * 10_000_000 + step)
        photometric = self.config.data.augmentation.photometric
        return StepOptions(generator, step, photometric, self.config.optim.loss_stride)

    def _stage_seed(self, index: int) -> int:
        return self.config.seed * 1000 + index

    def _finish(self, network: Network, log: RunLog) -> None:
        """Save the model, evaluate it, and note how long this took."""
        config, accelerator = self.config, self.accelerator
        if accelerator.is_main_process:
            save_model(self.folder / "model", network, self.info)
        minutes = (time.monotonic() - self.started) / 60
        split = config.run.evaluate
        if split is not None:
            dataset = eval_dataset(self.data, split, self.tasks, config.data.size, config.data.evaluation)
            results = evaluate_network(network, dataset, config.optim.batch_size, accelerator)
            if accelerator.is_main_process:
                write_results(self.folder / f"evaluation-{split}.json", results)
        if accelerator.is_main_process:
            log.row({"finished": True, "minutes": minutes})


def combine(terms: list[Term], accelerator: Accelerator) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss to minimise, and each term's mean for the log.

    Counts are summed over all ranks before dividing, and the sum is scaled by the number of ranks since gradients are
    averaged over them: a task labelled on one rank only gets its whole gradient.
    """
    totals, counts = torch.stack([t.total for t in terms]), torch.stack([t.count for t in terms])
    ranks = accelerator.num_processes
    everywhere = accelerator.reduce(torch.stack([totals.detach(), counts]), "sum")
    denominator = everywhere[1].clamp(min=1)
    weights = torch.tensor([t.weight for t in terms], device=totals.device)
    loss = (weights * totals / denominator).sum() * ranks
    means = everywhere[0] / denominator
    return loss, {term.name: mean for term, mean in zip(terms, means, strict=True)}


@torch.no_grad()
def move_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """``average = decay * average + (1 - decay) * network``, for parameters and batch-norm statistics alike."""
    old, new = average.state_dict(), network.state_dict()
    floats = [key for key, tensor in old.items() if tensor.is_floating_point()]
    torch._foreach_lerp_([old[k] for k in floats], [new[k] for k in floats], 1 - decay)


def _precision(config: Config) -> str:
    # Emulated on most CPUs, bf16 is many times slower there.
    if config.run.precision != "auto":
        return config.run.precision
    return (
        "bf16" if config.run.device != "cpu" and torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"
    )


def _prepare_folder(config: Config, data: Data, resume: bool, overwrite: bool) -> None:
    """Refuse to mix runs; write what the run is made of: settings, visible labels, environment."""
    folder = config.run.dir
    if resume:
        if not (folder / "config.yaml").is_file():
            raise CheckpointError(f"{folder} holds no run to resume (no config.yaml)")
        if (old := load_config(folder / "config.yaml")) != config:
            raise ConfigError(
                f"{folder} was started with other settings; resume with its own ({_difference(old, config)})"
            )
        return
    if folder.exists() and not folder.is_dir():
        raise RunExistsError(f"{folder} is a file; choose another run.dir")
    if folder.exists() and any(folder.iterdir()):
        if not overwrite:
            raise RunExistsError(f"{folder} is not empty; choose another run.dir, or give --resume or --overwrite")
        if not (folder / "config.yaml").is_file():
            raise RunExistsError(
                f"{folder} is not empty and no run (no config.yaml); it is not deleted, do so yourself"
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    save_split(folder / "labels.csv", data.train, list(data.tasks))
    packages = ("tasktokens", "torch", "timm", "accelerate", "numpy")
    environment = {"python": platform.python_version(), "machine": platform.platform(), "processor": platform.machine()}
    environment |= {name: version(name) for name in packages}
    (folder / "environment.json").write_text(json.dumps(environment, indent=1), encoding="utf-8")


def _difference(old: Config, new: Config) -> str:
    """The first setting that differs."""
    pairs = zip(to_yaml(old).splitlines(), to_yaml(new).splitlines(), strict=False)
    return next((f"'{a.strip()}' there, '{b.strip()}' here" for a, b in pairs if a != b), "see config.yaml")


def _start_from(network: Network, source: Path, info: ModelInfo) -> None:
    """Load the weights of another run; tasks and network must agree."""
    folder = source / "model" if (source / "model").is_dir() else source
    other = read_info(folder)
    if list(other.tasks) != list(info.tasks) or other.network != info.network:
        raise CheckpointError(
            f"{source} is a '{other.network}' network for the tasks {', '.join(other.tasks)}; "
            f"this run trains '{info.network}' for {', '.join(info.tasks)}"
        )
    load_weights(network, folder / "model.safetensors")
