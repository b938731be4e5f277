"""What an exported file costs in accuracy: the metrics of the file and of the network, on the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from tasktokens.config import Config
from tasktokens.data.dataset import PartialDataset
from tasktokens.datasets.open import all_visible
from tasktokens.datasets.run_data import read_visible
from tasktokens.errors import DataError
from tasktokens.exported.predictor import ExportedPredictor, prepared
from tasktokens.inference.evaluate import Results, eval_dataset, evaluate_network, open_split, run_config, run_folder
from tasktokens.inference.file_network import FileNetwork
from tasktokens.models import Network
from tasktokens.models.files import ModelInfo
from tasktokens.tasks.same import require_same_tasks

Array = np.ndarray[Any, Any]


def measured(
    run: Path, path: Path, network: Network, info: ModelInfo, split: str | None, limit: int | None, root: Path | None
) -> tuple[str, int, Results, Results]:
    """The split, the number of images, and the metrics of the network and of the file.

    Raises:
        CheckpointError: the model is in no run. DataError: the data has no such split.
    """
    config = run_config(run, root)
    split = split or config.run.measured_on or "test"
    dataset = _dataset(run, config, split, info, limit)
    accelerator = Accelerator(cpu=True)
    of_network = evaluate_network(network, dataset, 1, accelerator)
    of_file = evaluate_network(FileNetwork(network.tasks, ExportedPredictor(path)), dataset, 1, accelerator)
    return split, len(dataset.ids), of_network, of_file


def _dataset(run: Path, config: Config, split: str, info: ModelInfo, limit: int | None) -> PartialDataset:
    data = open_split(run, config, split)
    require_same_tasks(info.tasks, data.tasks, run, data.collection.root, config.data.augmentation.widest)
    whole = eval_dataset(data, split, info.tasks, info.size, config.data.evaluation)
    if limit is None or limit >= len(whole.ids):
        return whole
    chosen = _spread(whole.ids, limit)
    visible = all_visible(data.collection, tuple(chosen), info.tasks)
    full = config.data.evaluation == "full"
    return PartialDataset(data.collection, visible, info.tasks, info.size, full=full)


def calibration_images(run: Path, info: ModelInfo, root: Path | None, count: int = 64) -> list[Array]:
    """Images of the run's training, each (1, h, w, 3) uint8 as the network gets it; no label is opened.

    Raises `CheckpointError` for a model that is in no run, `DataError` where its images are gone.
    """
    config = run_config(run, root)
    data = open_split(run, config, "train")
    seen, _ = read_visible(run_folder(run) / "labels.csv")
    ids = [id for id in seen if id in data.collection.images]
    if not ids:
        raise DataError(f"none of the training images of {run} is in {data.collection.root}; give --root")
    return [prepared(data.collection.images[id].read(), info.size) for id in _spread(ids, count)]


def _spread(ids: Sequence[str], count: int) -> list[str]:
    """At most ``count`` of them, evenly spread."""
    if count >= len(ids):
        return list(ids)
    return [ids[number * len(ids) // count] for number in range(count)]


def lost(of_network: Results, of_file: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """By task and metric what the file has more than the network."""
    return {
        task: {name: of_file[task][name] - value for name, value in metrics.items()}
        for task, metrics in of_network.items()
    }
