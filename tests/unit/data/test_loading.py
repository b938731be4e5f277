"""Loading: evaluation at full size, the memory that the cache may use, and what a sample depends on."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import psutil
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

import processes
from properties import assert_metrics_equal
from tasktokens.cli import app
from tasktokens.config import Augmentation, ModelSettings, load_config, to_yaml
from tasktokens.data import dataset as dataset_module
from tasktokens.data.dataset import PartialDataset, cache_room
from tasktokens.data.loading import eval_loader, train_loader
from tasktokens.data.sample import Batch
from tasktokens.data.sampler import EpochSampler
from tasktokens.data.visibility import draw_visible
from tasktokens.datasets.folder import open_folder
from tasktokens.datasets.index import DatasetIndex
from tasktokens.datasets.open import all_visible
from tasktokens.errors import DataError
from tasktokens.inference.evaluate import evaluate, evaluate_network
from tasktokens.inference.predictor import Predictor
from tasktokens.metrics import Metric
from tasktokens.models import Network, build_network
from tasktokens.tasks import Depth, Segmentation, Task
from tasktokens.training.trainer import train

SIZE = (40, 56)
MODEL = ModelSettings(backbone="test_resnet", pretrained=False, width=16)
EVERYTHING = Augmentation(scale=(0.5, 2.0), crop_max_share=0.75, photometric=0.3)
CPU = Accelerator(cpu=True)


@pytest.fixture(scope="module")
def mixed(make_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> DatasetIndex:
    """Eight images of four sizes; two of them lack labels."""
    root = make_folder(tmp_path_factory.mktemp("mixed") / "a", height=SIZE[0], width=SIZE[1])
    for number, (height, width) in {1: (60, 40), 3: (44, 100), 4: (44, 100), 6: (80, 112)}.items():
        other = make_folder(root.parent / f"b{number}", height=height, width=width, seed=number)
        for file in other.glob(f"*/im{number:02d}.png"):
            file.replace(root / file.relative_to(other))
    (root / "depth" / "im03.png").unlink()
    (root / "semseg" / "im06.png").unlink()
    return open_folder(root)


@pytest.fixture(scope="module")
def network(mixed: DatasetIndex) -> Network:
    """Untrained, and spread out, so that its predictions differ from pixel to pixel."""
    torch.manual_seed(0)
    return build_network("htt", mixed.tasks, MODEL).eval()


def at_size(collection: DatasetIndex, tasks: Any, full: bool, ids: tuple[str, ...] | None = None) -> PartialDataset:
    visible = all_visible(collection, ids or tuple(collection.images), tasks)
    return PartialDataset(collection, visible, tasks, SIZE, full=full)


# -- evaluation at full size -------------------------------------------------------------------------------------------
def test_at_full_size_images_keep_their_shape_and_labels_their_size(mixed: DatasetIndex) -> None:
    data = at_size(mixed, mixed.tasks, full=True)
    for index, id in enumerate(data.ids):
        with Image.open(mixed.images[id].path) as image:
            width, height = image.size
        sample = data[0, index]
        assert {tuple(x.valid.shape[-2:]) for x in sample.labels.values()} == {(height, width)}
        seen = sample.image.shape[-2:]
        assert sample.pixels.shape == (1, *seen)
        assert tuple(seen) == SIZE if height / width == SIZE[0] / SIZE[1] else seen[0] % 32 == seen[1] % 32 == 0
        value, valid = mixed.labels["normals"][id].read()
        assert np.array_equal(sample.labels["normals"].value.numpy(), value)
        assert np.array_equal(sample.labels["normals"].valid[0].numpy(), valid)


def test_both_ways_agree_where_images_have_the_training_size(folder_root: Path, network: Network) -> None:
    folder = open_folder(folder_root)
    stretched, full = (evaluate_network(network, at_size(folder, folder.tasks, full), 3, CPU) for full in (False, True))
    for name in folder.tasks:
        np.testing.assert_array_equal(list(stretched[name].values()), list(full[name].values()))


class Pixels(Metric):
    """Counts what it is shown."""

    higher_is_better: ClassVar[dict[str, bool]] = {"pixels": True}

    def __init__(self) -> None:
        super().__init__(1)

    @property
    def primary(self) -> str:
        return "pixels"

    def statistics(self, prediction_BCHW: Tensor, target_BCHW: Tensor, valid_B1HW: Tensor) -> Tensor:
        assert prediction_BCHW.shape == target_BCHW.shape
        return valid_B1HW.sum().double()[None]

    def compute(self) -> dict[str, float]:
        return {"pixels": self.state.item()}


class CountedClasses(Segmentation):
    def metric(self) -> Any:
        return Pixels()


class CountedDepth(Depth):
    def metric(self) -> Any:
        return Pixels()


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_every_labelled_pixel_counts_once(mixed: DatasetIndex, network: Network, batch_size: int) -> None:
    semseg, depth = mixed.tasks["semseg"], mixed.tasks["depth"]
    assert isinstance(semseg, Segmentation)
    tasks: dict[str, Task] = {
        "semseg": CountedClasses("semseg", classes=semseg.classes),
        "depth": CountedDepth("depth", bins=depth.num_tokens),
    }
    counting = build_network("htt", tasks, MODEL)
    counted = evaluate_network(counting, at_size(mixed, tasks, full=True), batch_size, CPU)
    expected = {"semseg": 0, "depth": 0}
    for name, void in (("semseg", 255), ("depth", 0)):
        for path in sorted((mixed.root / name).glob("*.png")):
            expected[name] += int((np.asarray(Image.open(path)) != void).sum())
    assert {name: values["pixels"] for name, values in counted.items()} == expected


def test_an_image_is_predicted_alike_in_any_company(mixed: DatasetIndex, network: Network) -> None:
    data = at_size(mixed, mixed.tasks, full=True)
    alone, raise_on_all_ranks = (evaluate_network(network, data, size, CPU) for size in (1, 8))
    for name in mixed.tasks:
        assert_metrics_equal(alone[name], raise_on_all_ranks[name], tolerance=1e-3)


def test_loader_processes_change_no_metric_of_an_evaluation(mixed: DatasetIndex, network: Network) -> None:
    data = at_size(mixed, mixed.tasks, full=True)
    here, there = (evaluate_network(network, data, 2, CPU, workers=workers) for workers in (0, 2))
    assert here == there


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_share_images_of_many_sizes(mixed: DatasetIndex, ranks: int) -> None:
    data = at_size(mixed, mixed.tasks, full=True)
    batches = [batch for rank in range(ranks) for batch in eval_loader(data, 4, rank, ranks)]
    assert sorted(id for batch in batches for id in batch.ids) == sorted(mixed.images)
    for batch in batches:
        assert {label.valid.shape[-2:] for label in batch.labels.values() if len(label.rows)} in (
            {size} for size in [(40, 56), (60, 40), (44, 100), (80, 112)]
        )


@pytest.fixture(scope="module")
def run(folder_root: Path, make_config: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps on images of 40x56 at 32x48."""
    config = make_config(
        folder_root, tmp_path_factory.mktemp("runs") / "run",
        **{"method": {"name": "mtl", "steps": 2}, "data.evaluation": "full", "run.evaluate": "test"},
    )  # fmt: skip
    return train(config, quiet=True)


def test_full_size_measures_what_predict_writes(run: Path, folder_root: Path) -> None:
    measured = evaluate(run, "test", write=False)
    predictor, folder = Predictor(run), open_folder(folder_root)
    for name, task in predictor.tasks.items():
        metric = task.metric()
        for id in folder.split("test"):
            value, valid = folder.labels[name][id].read()
            predicted = predictor(folder.images[id].read())[name].value_CHW
            metric.update(*(torch.from_numpy(x)[None] for x in (predicted, value, valid[None])))
        assert_metrics_equal(metric.compute(), measured[name], tolerance=1e-4)


def test_a_run_is_evaluated_as_configured_and_at_full_size_when_asked(run: Path, tmp_path: Path) -> None:
    first = json.loads((run / "evaluation-test.json").read_text())
    again = evaluate(run, "test", write=False)
    assert first["depth"]["RMSE"] == pytest.approx(again["depth"]["RMSE"], rel=1e-6)
    evaluate(run, "test", at="network")
    other = json.loads((run / "evaluation-test-network.json").read_text())
    assert other["depth"]["RMSE"] != first["depth"]["RMSE"]
    assert json.loads((run / "evaluation-test.json").read_text()) == first
    result = CliRunner().invoke(app, ["evaluate", str(run), "--full-size"])
    assert result.exit_code == 0, result.output
    assert not (run / "evaluation-test-full.json").exists()  # full size is this run's own way
    assert load_config(run / "config.yaml").data.evaluation == "full"


# -- what a sample depends on ------------------------------------------------------------------------------------------
def training(root: Path, labels: str = "one", cache: bool = False, seed: int = 0) -> PartialDataset:
    folder = open_folder(root)
    split = draw_visible(folder.split("train"), folder.labels, labels, 0)
    return PartialDataset(folder, split, folder.tasks, (32, 48), EVERYTHING, seed, cache)


def same(left: Batch, right: Batch) -> bool:
    return left.ids == right.ids and all(
        torch.equal(a, b) for a, b in zip(tensors(left), tensors(right), strict=True)
    )  # fmt: skip


def tensors(batch: Batch) -> list[Tensor]:
    kept: list[Tensor] = []
    batch.map(lambda tensor: kept.append(tensor) or tensor)  # type: ignore[func-returns-value]
    return kept


def first_batches(data: PartialDataset, workers: int, first: int = 0, count: int = 6) -> list[Batch]:
    loader = train_loader(data, EpochSampler(len(data), 2, 7, first_step=first), workers)
    return list(islice(loader, count))


def test_full_augmentation_depends_on_seed_epoch_and_index_alone(folder_root: Path) -> None:
    plain = first_batches(training(folder_root), workers=0)
    assert all(map(same, plain, first_batches(training(folder_root, cache=True), workers=0)))
    assert all(map(same, plain[2:], first_batches(training(folder_root, cache=True), workers=0, first=2)))
    assert all(map(same, plain, first_batches(training(folder_root, cache=True), workers=2)))
    assert not any(map(same, plain, first_batches(training(folder_root, seed=1), workers=0)))


def test_hidden_labels_have_no_part_in_the_crops(own_folder: Path) -> None:
    before = first_batches(training(own_folder), workers=0)
    data = training(own_folder)
    for name in data.tasks:
        for id in data.ids:
            if name not in data.split[id]:
                (own_folder / name / f"{id}.png").write_bytes(b"garbage")
    assert all(map(same, before, first_batches(training(own_folder), workers=0)))


def all_batches(data: PartialDataset, workers: int) -> list[Batch]:
    return list(eval_loader(data, 2, workers=workers))


@pytest.mark.parametrize("read", [first_batches, all_batches])
def test_a_loader_process_says_what_cannot_be_read_as_this_one_would(
    own_folder: Path, read: Callable[[PartialDataset, int], list[Batch]]
) -> None:
    file = own_folder / "images" / f"{training(own_folder).ids[0]}.png"
    file.write_bytes(file.read_bytes()[:100])
    said = []
    for workers in (0, 2):
        with pytest.raises(DataError) as caught:
            read(training(own_folder), workers)
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert str(file) in said[0]


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_a_program_with_loader_processes_ends_when_an_image_cannot_be_read(
    own_folder: Path, make_config: Callable[..., Any], tmp_path: Path, verb: str
) -> None:
    changes = {"method": {"name": "mtl", "steps": 4}, "data.workers": 2, "data.check": False}
    config = make_config(own_folder, tmp_path / "run", **changes)
    saved = tmp_path / "config.yaml"
    saved.write_text(to_yaml(config))
    if verb == "evaluate":
        train(config, quiet=True)
    split = (own_folder / ("test.txt" if verb == "evaluate" else "train.txt")).read_text().split()
    for id in split:
        (own_folder / "images" / f"{id}.png").write_bytes(b"no image")
    words = ["train", "--config", str(saved)] if verb == "train" else ["evaluate", str(tmp_path / "run")]
    result = processes.run(*words)
    assert result.returncode == 2, result.stderr
    assert "cannot be read" in result.stderr
    assert "Traceback" not in result.stderr


def test_batches_are_bytes_with_channels_first(folder_root: Path) -> None:
    for batch in (*first_batches(training(folder_root), workers=0, count=2), *eval_loader(training(folder_root), 3)):
        assert batch.image.dtype == torch.uint8
        assert batch.image.is_contiguous()
        assert batch.labels["semseg"].value.dtype in (torch.uint8, torch.float32)
        assert batch.pixels.dtype == torch.bool


# -- the cache ---------------------------------------------------------------------------------------------------------
def test_the_cache_keeps_to_its_room(folder_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = training(folder_root, "full", cache=True)
    expected = first_batches(whole, workers=0, count=9)
    assert whole._cache is not None
    assert len(whole._cache) == len(whole) == 6
    image, semseg, valid = 3 * 40 * 56, 40 * 56, 40 * 56
    depth, normals, edge, saliency = 4 * semseg, 12 * semseg, 4 * semseg, 4 * semseg
    stored = image + 5 * valid + semseg + depth + normals + edge + saliency
    for sample in whole._cache.values():
        assert stored <= dataset_module._bytes(sample) <= stored + 64
    monkeypatch.setattr(dataset_module, "cache_room", lambda: 3.5 * stored)
    bounded = training(folder_root, "full", cache=True)
    assert all(map(same, expected, first_batches(bounded, workers=0, count=9)))
    assert bounded._cache is not None
    assert len(bounded._cache) == 3


def test_processes_share_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2400))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert cache_room() == 600
    monkeypatch.setattr(dataset_module, "get_worker_info", lambda: SimpleNamespace(num_workers=3))
    assert cache_room() == 200
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert cache_room() == 50
