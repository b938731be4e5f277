"""Evaluation: the metrics of every task over a split, independent of batch size and number of ranks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator

from tasktokens.config import Config, load_config
from tasktokens.data.dataset import PartialDataset
from tasktokens.data.loading import eval_loader
from tasktokens.datasets.open import Data, all_visible, choose_tasks, open_index
from tasktokens.datasets.run_data import open_run_data
from tasktokens.errors import CheckpointError, ConfigError, DataError
from tasktokens.hub.address import is_address
from tasktokens.hub.download import local_model
from tasktokens.inference.file_network import load_network
from tasktokens.metrics import Protocol
from tasktokens.models import Network
from tasktokens.models.decoding import decode_at
from tasktokens.tasks import Task
from tasktokens.tasks.same import require_same_tasks
from tasktokens.utils import console, strict_json
from tasktokens.utils.atomic import atomically
from tasktokens.utils.distributed import main_process_first, raise_on_all_ranks, signals, start, stopping
from tasktokens.utils.file_kinds import is_exported
from tasktokens.utils.signals import StopSignal

Evaluation = Literal["network", "full"]
"""At what size: the network's (``data.size``), or each label's own. See ``data.evaluation``."""

Results = dict[str, dict[str, float]]
"""Metrics by task and name."""


@torch.no_grad()
def evaluate_network(
    network: Network,
    dataset: PartialDataset,
    batch_size: int,
    accelerator: Accelerator,
    stop: StopSignal | None = None,
    protocol: Protocol = "correct",
    note: str = "the evaluation is not complete, nothing was written; start it again",
    workers: int = 0,
) -> Results:
    """Metrics of a network over a data set, at the size that its labels come in.

    Images without a label for a task do not count for it. Logits are brought to the label's size image by image, so
    that only one image's are in memory at a time. Ranks share the images, none comes twice. A signal that ``stop`` has
    received ends it between two batches, with ``note``; the rank then waits for the others, which have had it too.
    ``workers`` processes read the images; with none this one does.
    """
    device = accelerator.device
    network.eval()
    stored = dataset.collection.tasks
    metrics = {name: task.coded_as(stored[name]).metric().to(device) for name, task in network.tasks.items()}
    for batch in eval_loader(dataset, batch_size, accelerator.process_index, accelerator.num_processes, workers):
        if stop is not None and stop.received:
            break
        batch = batch.to(device)
        with accelerator.autocast():
            outputs = network(batch.image, {name: labels.rows for name, labels in batch.labels.items()})
        for name, task in network.tasks.items():
            labels = batch.labels[name]
            # A head without labels still returns the output of one image, which has no label to pair with.
            height, width = labels.value.shape[-2:]
            for logits, value, valid in zip(outputs[name].logits, labels.value, labels.valid, strict=False):
                prediction = decode_at(task, logits[None], (height, width))
                metrics[name].update(prediction[None], value[None], valid[None])
    if stop is not None and stopping(stop, accelerator):
        stop.exit(note, say=accelerator.is_main_process)
    with warnings.catch_warnings():
        # A task without labels is NaN, as documented.
        warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
        # Both read the sums of all ranks.
        return {name: m.compute() if protocol == "correct" else m.compute_paper() for name, m in metrics.items()}


def run_folder(path: Path) -> Path:
    """The run that is meant by its own folder, or by a model folder (such as ``best``) or an exported file in it."""
    in_run = (is_exported(path) or (path / "model.json").is_file()) and (path.parent / "config.yaml").is_file()
    return path.parent if in_run else path


def run_config(run: Path, root: Path | None = None) -> Config:
    """The settings of a run (see `run_folder`), with ``root`` for ``data.root`` where the data was moved.

    Raises `CheckpointError` for a folder that is no run, `ConfigError` for data that has no single root.
    """
    run = run_folder(run)
    if is_exported(run):
        raise CheckpointError(
            f"{run} lies in no run, whose config.yaml names its data and how labels are prepared; put the file into "
            f"the folder of its run, or measure while it is exported (tasktokens export RUN --split test)"
        )
    if not (run / "config.yaml").is_file():
        raise CheckpointError(f"{run} is no run folder (no config.yaml); give the folder that 'tasktokens train' wrote")
    config = load_config(run / "config.yaml")
    if root is None:
        return config
    if "root" not in type(config.data).model_fields:
        raise ConfigError(f"data of kind '{config.data.kind}' has no root to be given; change {run}/config.yaml")
    return config.model_copy(update={"data": config.data.model_copy(update={"root": root})})


def evaluate(
    run: str | Path,
    split: str | None = None,
    write: bool = True,
    at: Evaluation | None = None,
    protocol: Protocol = "correct",
    show: Callable[[Results], None] | None = None,
    root: str | Path | None = None,
) -> Results:
    """Evaluate a finished run on a split of its data.

    Args:
        run: folder that `train` wrote, or a model folder in it, such as ``best``: results are then written there. Or an
            exported file (.onnx, .xml) in the folder of its run, on the CPU.
        split: a split of the data set, or ``holdout``: the training images that the run set aside. Default:
            ``run.evaluate`` of the run, else ``test``.
        write: also write ``evaluation-{split}.json`` into the run; ``evaluation-{split}-{at}.json`` where ``at`` is not
            the run's own. Under the ``paper`` protocol the name ends in ``-paper`` and the file says so too.
        at: ``network`` or ``full`` size; default: as configured.
        protocol: ``paper``: with the quirks of published code (see `Metric.compute_paper`).
        show: called once with the results before they are written, so that a full disk does not cost them.
        root: where the data lies now; default: where it lay (``data.root``).

    Raises:
        CheckpointError: the run has no trained model.
        DataError: the data has no such split.
        ConfigError: the data's tasks are no longer those of the model.
        SystemExit: 130 or 143 after SIGINT or SIGTERM; nothing was written.

    Examples:
        >>> import tasktokens
        >>> results = tasktokens.evaluate("runs/mine", "test")
        >>> sorted(results), 0 <= results["semseg"]["mIoU"] <= 100
        (['depth', 'semseg'], True)
    """
    write, run = write and not is_address(run), local_model(run)
    config = run_config(run, None if root is None else Path(root))
    split = split or config.run.measured_on or "test"
    accelerator = start(config.run)
    configured = config.data.evaluation
    data = main_process_first(accelerator, lambda: open_split(run, config, split))
    with raise_on_all_ranks(accelerator):
        network, info = load_network(run, accelerator.device)
        require_same_tasks(info.tasks, data.tasks, run, data.collection.root, config.data.augmentation.widest)
        dataset = eval_dataset(data, split, info.tasks, info.size, at or configured)
        if accelerator.is_main_process and (left_out := _discovered_of(data, dataset)):
            console.say(f"{left_out} discovered labels of '{split}' are not measured on")
    with signals(accelerator.num_processes) as stop:
        workers = config.data.workers
        results = evaluate_network(network, dataset, config.optim.images, accelerator, stop, protocol, workers=workers)
    if show is not None and accelerator.is_main_process:
        show(results)
    if write and accelerator.is_main_process:
        suffix = "" if at in (None, configured) else f"-{at}"
        suffix += "" if protocol == "correct" else f"-{protocol}"
        name = f"evaluation-{split}{suffix}.json"
        write_results(run.with_suffix(f".{name}") if is_exported(run) else run / name, results, protocol)
    accelerator.wait_for_everyone()
    return results


def open_split(run: Path, config: Config, split: str) -> Data:
    """The data of a run that a split needs; which images were held out is read from the run."""
    if split == "holdout":
        return open_run_data(run_folder(run), config)
    index = open_index(config)
    return Data(index, choose_tasks(index, config.tasks), {}, ())


def _discovered_of(data: Data, dataset: PartialDataset) -> int:
    """How many labels of its images are discovered ones, which are no truth."""
    return sum(id in data.collection.discovered.get(name, {}) for name in dataset.tasks for id in dataset.ids)


def eval_dataset(
    data: Data,
    split: str,
    tasks: Mapping[str, Task],
    size: tuple[int, int],
    at: Evaluation = "network",
    cache: bool = False,
) -> PartialDataset:
    """All labels of a split of the data, or of ``holdout``. Raises `DataError` where there is no such image."""
    ids = data.holdout if split == "holdout" else data.collection.split(split)
    if not ids:
        raise DataError("no training images were set aside; evaluate another split, or train with data.holdout=0.1")
    visible = all_visible(data.collection, ids, tasks)
    return PartialDataset(data.collection, visible, tasks, size, cache=cache, full=at == "full")


def write_results(path: Path, results: Mapping[str, Mapping[str, float]], protocol: Protocol = "correct") -> None:
    """Metrics as JSON, in one piece; a metric of nothing is null. ``protocol`` is a key where it is not ``correct``."""
    plain: dict[str, object] = {} if protocol == "correct" else {"protocol": protocol}
    with atomically(path) as new:
        new.write_text(strict_json.dumps(plain | dict(results), indent=1), encoding="utf-8", newline="\n")
