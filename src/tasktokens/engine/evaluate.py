"""Evaluation: every task's metrics over a split, exact under any batch size and number of ranks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import Accelerator

from tasktokens.config import Config, load_config
from tasktokens.data.dataset import PartialDataset, eval_loader
from tasktokens.data.source import Data, full_split, open_data
from tasktokens.engine.model_file import load_model
from tasktokens.errors import CheckpointError, DataError
from tasktokens.models import Network
from tasktokens.tasks import Task

Results = dict[str, dict[str, float]]
"""Metrics by task and name."""


@torch.no_grad()
def evaluate_network(network: Network, dataset: PartialDataset, batch_size: int, accelerator: Accelerator) -> Results:
    """Metrics of a network over a data set; images without a label for a task do not count for it."""
    device = accelerator.device
    network.eval()
    metrics = {name: task.metric() for name, task in network.tasks.items()}
    for batch in eval_loader(dataset, batch_size, accelerator.process_index, accelerator.num_processes):
        batch = batch.to(device)
        with accelerator.autocast():
            outputs = network(batch.image, {name: labels.rows for name, labels in batch.labels.items()})
        for name, task in network.tasks.items():
            labels = batch.labels[name]
            if len(labels.rows):
                logits = outputs[name].logits_at(labels.value.shape[-2:])
                metrics[name].update(task.decode(logits), labels.value, labels.valid)
    for metric in metrics.values():
        metric.state = accelerator.reduce(metric.state.to(device), "sum").cpu()
    return {name: metric.compute() for name, metric in metrics.items()}


def run_config(run: Path) -> Config:
    """The settings that a run was started with. Raises `CheckpointError` for a folder that is no run."""
    if not (run / "config.yaml").is_file():
        raise CheckpointError(f"{run} is no run folder (no config.yaml); give the folder that 'tasktokens train' wrote")
    return load_config(run / "config.yaml")


def evaluate(run: Path, split: str = "test", write: bool = True) -> Results:
    """Evaluate a finished run on a split of its data.

    Args:
        run: folder that `train` wrote.
        split: a split of the data set, or ``holdout``: the training images that the run set aside.
        write: also write ``evaluation-{split}.json`` into the run.

    Raises:
        CheckpointError: the run has no trained model.
        DataError: the data has no such split.
    """
    config = run_config(run)
    accelerator = Accelerator(cpu=config.run.device == "cpu")
    network, info = load_model(run, accelerator.device)
    data = open_data(config)
    dataset = eval_dataset(data, split, info.tasks, info.size)
    results = evaluate_network(network, dataset, config.optim.batch_size, accelerator)
    if write and accelerator.is_main_process:
        write_results(run / f"evaluation-{split}.json", results)
    return results


def eval_dataset(data: Data, split: str, tasks: Mapping[str, Task], size: tuple[int, int]) -> PartialDataset:
    """All labels of a split of the data, or of ``holdout``. Raises `DataError` where there is no such image."""
    ids = data.holdout if split == "holdout" else data.collection.split(split)
    if not ids:
        raise DataError("no training images were set aside; evaluate another split, or train with data.holdout=0.1")
    return PartialDataset(data.collection, full_split(data.collection, ids, tasks), tasks, size)


def write_results(path: Path, results: Mapping[str, Mapping[str, float]]) -> None:
    """Metrics as JSON; a metric of nothing is null."""
    plain = {t: {k: None if v != v else v for k, v in values.items()} for t, values in results.items()}
    path.write_text(json.dumps(plain, indent=1), encoding="utf-8")
