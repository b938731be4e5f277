"""A row of the table: what a cell's networks reach, and what they cost."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from tasktokens.config import Config
from tasktokens.data.loading import eval_loader
from tasktokens.datasets.open import Data, choose_tasks, open_index
from tasktokens.datasets.run_data import open_run_data
from tasktokens.inference.evaluate import eval_dataset
from tasktokens.models import Network
from tasktokens.models.decoding import decode_at
from tasktokens.models.files import load_model
from tasktokens.models.flops import count_flops
from tasktokens.reporting.comparison.runs import Cell, Run, Work
from tasktokens.reporting.comparison.suite import task_columns
from tasktokens.tasks import Task
from tasktokens.utils import strict_json
from tasktokens.utils.atomic import atomically, write_atomically

Row = dict[str, Any]
Sums = dict[str, np.ndarray[Any, np.dtype[np.float64]]]
"""Per task the metric's sums (N, size) of each test image; adding those of images gives the sums of all of them."""


def tasks_of(work: Work, data: str) -> dict[str, Task]:
    """The tasks of a data set by name, as the suite's settings choose them."""
    if data not in work.tasks:
        config = work.suite.config(None, data, None, {})
        work.tasks[data] = dict(choose_tasks(open_index(config), config.tasks))
    return work.tasks[data]


def columns_of(work: Work) -> dict[str, str]:
    """What the columns of the tasks' primary metrics are called, over all data sets."""
    found = {name: task.metric().primary for data in work.suite.data for name, task in tasks_of(work, data).items()}
    return task_columns(list(found.items()))


def measure(work: Work, cell: Cell, runs: Sequence[Run], columns: Mapping[str, str]) -> Row:
    """Evaluate the networks of a cell, which are trained; write its row, and the sums of each test image."""
    row: Row = {"method": cell.method, "data": cell.data, "labels": cell.labels, "seed": cell.seed}
    sums: Sums = {}
    costs = {"params_m": 0.0, "gflops": 0.0, "infer_s": 0.0, "cpu_minutes": 0.0}
    steps = 0
    memory = 0.0
    for run in runs:
        config = run.config()
        network, info = load_model(run.folder)
        dataset = eval_dataset(data_of(run, config, work.suite.split), work.suite.split, info.tasks, info.size)
        of_images = sums_of_images(network, dataset, config.optim.images)
        sums |= of_images
        for name, per_image in of_images.items():
            row[columns[name]] = _round(metric_of(info.tasks[name], per_image.sum(0)))
        costs["params_m"] += sum(p.numel() for p in network.parameters()) / 1e6
        costs["gflops"] += gflops(network, info.size)
        costs["infer_s"] += seconds_per_image(network, info.size)
        chain = run.chain()
        costs["cpu_minutes"] += sum(one.seconds for one in chain) / 60
        logged = [entry for one in chain for entry in one.rows()]
        steps += sum(_steps(one) for one in chain)
        memory = max([memory, *(entry["memory_mb"] for entry in logged if entry.get("memory_mb"))])
    row |= {key: round(value, 4) for key, value in costs.items()}
    row |= {"steps": steps, "step_s": _round(sum(seconds_per_step(run) for run in runs)), "memory_mb": round(memory)}
    path = work.out / "images" / f"{cell.name}.npz"
    with atomically(path) as new, new.open("wb") as file:
        np.savez_compressed(file, **sums)  # type: ignore[arg-type]
    write_atomically(row_path(work, cell), strict_json.dumps(row, indent=1).encode())
    return row


def row_path(work: Work, cell: Cell) -> Path:
    """The file of a cell's row."""
    return work.out / "rows" / f"{cell.name}.json"


@torch.no_grad()
def sums_of_images(network: Network, dataset: Any, batch_size: int) -> Sums:
    """The metrics' sums of each image: of an image without a label for a task, zeros."""
    network.eval()
    device = next(network.parameters()).device
    found: dict[str, list[np.ndarray[Any, Any]]] = {name: [] for name in network.tasks}
    for batch in eval_loader(dataset, batch_size):
        batch = batch.to(device)
        outputs = network(batch.image, {name: labels.rows for name, labels in batch.labels.items()})
        for name, task in network.tasks.items():
            labels, metric = batch.labels[name], task.metric()
            states = np.zeros((len(batch.ids), len(metric.state)))
            size = (labels.value.shape[-2], labels.value.shape[-1])
            for i, row in enumerate(labels.rows.tolist()):
                metric.reset()
                prediction = decode_at(task, outputs[name].logits[i : i + 1], size)
                metric.update(prediction[None].cpu(), labels.value[i : i + 1].cpu(), labels.valid[i : i + 1].cpu())
                states[row] = metric.state.numpy()
            found[name].append(states)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def metric_of(task: Task, sums: np.ndarray[Any, Any]) -> float:
    """The primary metric of sums (size,); NaN where nothing was seen."""
    metric = task.metric()
    metric._update_count = 1  # or torchmetrics warns that nothing was added
    metric.state = torch.from_numpy(np.ascontiguousarray(sums))
    return float(metric.compute()[metric.primary])


def gflops(network: Network, size: tuple[int, int]) -> float:
    """Floating-point operations of one image in 10^9, a multiplication and an addition being two.

    The parameters require no gradient afterwards: torch's counter stumbles over modules whose input is one of them.
    """
    network.requires_grad_(False)
    with torch.no_grad():
        return count_flops(lambda: network(_blank(network, size))) / 1e9


@torch.no_grad()
def seconds_per_image(network: Network, size: tuple[int, int], repeats: int = 5) -> float:
    """The median of a few predictions of one image."""
    image, times = _blank(network, size), []
    network(image)
    for _ in range(repeats):
        began = time.perf_counter()
        network(image)
        if image.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return median(times)


def seconds_per_step(run: Run) -> float:
    """The median over the steps of a run that were logged, by the clock; NaN without any."""
    rates = [row["images_per_second"] for row in run.rows() if row.get("images_per_second")]
    return run.config().optim.images / median(rates) if rates else math.nan


def _blank(network: Network, size: tuple[int, int]) -> torch.Tensor:
    return torch.zeros(1, 3, *size, dtype=torch.uint8, device=next(network.parameters()).device)


def data_of(run: Run, config: Config, split: str) -> Data:
    """The data that a run is measured on."""
    if split == "holdout":
        return open_run_data(run.folder, config)
    index = open_index(config)
    return Data(index, choose_tasks(index, config.tasks), {}, ())


def _steps(run: Run) -> int:
    """Steps of all stages that the run has logged."""
    last: dict[str, int] = {}
    for row in run.rows():
        if "stage" in row and "step" in row:
            last[row["stage"]] = max(last.get(row["stage"], 0), int(row["step"]))
    return sum(last.values())


def _round(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None
