"""A package outside the tree adds a task kind, a data set, a method, a network and a metric; all verbs take them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from accelerate import Accelerator

import processes
from conftest import discovered_rows
from properties import assert_batch_independent, assert_sums, random_batch, terms_of
from tasktokens.config import ModelSettings
from tasktokens.methods import Htt, HttMethod
from tasktokens.metrics import METRICS
from tasktokens.models import build_network
from tasktokens.tasks import KINDS, Task
from tasktokens.training.step import combine, means_of

FILES = {
    "metric.py": '''
from typing import ClassVar
import torch
from tasktokens.metrics import METRICS, Metric

@METRICS.register("heat_error")
class HeatError(Metric):
    """Mean absolute error in kelvin."""
    higher_is_better: ClassVar[dict] = {"heatErr": False}
    units: ClassVar[dict] = {"heatErr": "K"}
    primary = "heatErr"

    def __init__(self):
        super().__init__(2)

    def statistics(self, prediction_BCHW, target_BCHW, valid_B1HW):
        error = torch.where(valid_B1HW, prediction_BCHW.double() - target_BCHW.double(), 0.0).abs()
        return torch.stack([error.sum(), valid_B1HW.sum().double()])

    def compute(self):
        return {"heatErr": (self.state[0] / self.state[1]).item()}
''',
    "task.py": '''
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
from tasktokens.errors import LabelError
from tasktokens.metrics import METRICS
from tasktokens.tasks import KINDS, Task

@KINDS.register("heat")
@dataclass(frozen=True)
class Heat(Task):
    """A temperature per pixel in kelvin."""
    threshold: float = 0.3
    kind: ClassVar[str] = "heat"
    neutral: ClassVar[tuple] = (300.0,)
    num_tokens = 2

    def spec(self):
        return {"kind": self.kind}

    def read(self, path):
        try:
            plane = np.load(path)
        except (OSError, ValueError) as error:
            raise LabelError(f"{path}: {error}") from error
        valid = np.isfinite(plane)
        return np.where(valid, plane, 300).astype(np.float32)[None], valid

    def write(self, path, value_CHW, valid_HW=None):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            np.save(file, value_CHW[0] if valid_HW is None else np.where(valid_HW, value_CHW[0], np.nan))

    def colourise(self, value_CHW, valid_HW=None):
        return np.repeat((value_CHW[0] / 400 * 255).clip(0, 255).astype(np.uint8)[..., None], 3, -1)

    def pixel_loss(self, logits_BKHW, target_BCHW):
        return (self.decode(logits_BKHW) - target_BCHW).abs() / 50 + 0.1 * logits_BKHW[:, 1:2] ** 2

    def decode(self, logits_BKHW):
        return 300 + 50 * logits_BKHW[:, 0:1].float()

    def confidence(self, logits_BKHW):
        return (-logits_BKHW[:, 1:2].float()).sigmoid()

    def correct(self, prediction_BCHW, target_BCHW):
        return (prediction_BCHW - target_BCHW).abs() < 5

    def metric(self):
        return METRICS["heat_error"]()
''',
    "data.py": '''
from typing import Literal
from tasktokens.datasets.base import DATASETS, FolderOfFiles
from tasktokens.datasets.index import DatasetIndex, ImageFile, LabelFile
from tasktokens.errors import DataError
from tasktokens.tasks import build_task

@DATASETS.register("thermal")
class ThermalSource(FolderOfFiles):
    """Photographs with a temperature each."""
    kind: Literal["thermal"] = "thermal"
    camera: str = "left"

    def open_index(self, size, progress=False):
        root = self.folder()
        images = {path.stem: ImageFile(path) for path in sorted((root / self.camera).glob("*.png"))}
        if not images:
            raise DataError(f"{root} has no photographs of the camera '{self.camera}'")
        heat = build_task("heat", {"kind": "heat"})
        labels = {id: LabelFile(root / "heat" / f"{id}.npy", heat.read, plain=True) for id in images}
        ids = tuple(images)
        return DatasetIndex(root, images, {"heat": heat}, {"heat": labels}, {"train": ids[:-2], "test": ids[-2:]})
''',
    "network.py": '''
from torch import nn
from tasktokens.models import NETWORKS, Network, TaskOutput

@NETWORKS.register("pixelwise")
class Pixelwise(Network):
    """A linear classifier of the backbone's finest features."""

    def __init__(self, tasks, backbone, design):
        super().__init__(tasks)
        self.backbone = backbone
        self.heads = nn.ModuleDict(
            {name: nn.Conv2d(backbone.channels[0], task.num_tokens, 1) for name, task in tasks.items()}
        )

    def forward(self, image_B3HW, rows=None):
        fine, *coarser = self.backbone(image_B3HW)
        idle = sum(0.0 * each.sum() for each in coarser)
        outputs = {}
        for name, head in self.heads.items():
            feature = fine + idle if rows is None else (fine + idle).index_select(0, rows[name])
            outputs[name] = TaskOutput(head(feature).float(), feature)
        return outputs
''',
    "method.py": '''
from dataclasses import replace
from typing import ClassVar, Literal
from tasktokens.config import MethodSettings
from tasktokens.methods import METHODS, Supervised

class GentleMethod(MethodSettings):
    """Supervised learning with losses made smaller."""
    name: Literal["gentle"] = "gentle"
    steps: int = 3
    factor: float = 0.5

@METHODS.register("gentle")
class Gentle(Supervised):
    settings_class: ClassVar = GentleMethod
    network: ClassVar[str] = "pixelwise"

    def terms(self, *args, **options):
        terms = super().terms(*args, **options)
        return [replace(term, weight=term.weight * self.settings.factor) for term in terms]
''',
}
ENTRY_POINTS = """\
[tasktokens.tasks]
heat = toy.task:Heat
[tasktokens.datasets]
thermal = toy.data:ThermalSource
[tasktokens.methods]
gentle = toy.method
[tasktokens.models]
pixelwise = toy.network:Pixelwise
[tasktokens.metrics]
heat_error = toy.metric:HeatError
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as pip would install it."""
    site = tmp_path_factory.mktemp("site")
    (site / "toy").mkdir()
    for name, text in {"__init__.py": "", **FILES}.items():
        (site / "toy" / name).write_text(text)
    info = site / "toy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    return site


@pytest.fixture
def thermal(own_folder: Path, tmp_path: Path) -> Path:
    """A data set in a layout that only the toy package reads."""
    from PIL import Image

    root, rng = tmp_path / "thermal", np.random.default_rng(0)
    for name in ("left", "heat"):
        (root / name).mkdir(parents=True)
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)).save(root / "left" / f"{i}.png")
        plane = rng.normal(300, 20, (32, 48))
        plane[:3] = np.nan
        np.save(root / "heat" / f"{i}.npy", plane)
    return root


def tasktokens(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return processes.run(*words, env={"PYTHONPATH": str(site), "COLUMNS": "200"})


def test_every_verb_takes_components_of_another_package(site: Path, thermal: Path, tmp_path: Path) -> None:
    run, config = tmp_path / "run", tmp_path / "toy.yaml"
    values = {
        "data": {"kind": "thermal", "root": str(thermal), "size": [32, 48], "labels": "0.5"},
        "model": {"backbone": "test_resnet", "pretrained": False, "width": 16},
        "method": {"name": "gentle", "factor": 0.25},
        "optim": {"batch_size": 2},
        "run": {"dir": str(run), "device": "cpu", "threads": 1, "evaluate": None},
    }
    config.write_text(yaml.safe_dump(values))
    for words in (
        ["check", "--config", str(config)],
        ["train", "--config", str(config), "method.steps=2", "-q"],
        ["evaluate", str(run)],
        ["discover", str(run), "--out", str(tmp_path / "found"), "-q"],
    ):
        done = tasktokens(site, *words)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
    written = yaml.safe_load((run / "config.yaml").read_text())
    assert written["data"]["camera"] == "left"
    assert (written["method"]["steps"], written["method"]["factor"]) == (2, 0.25)
    assert json.loads((run / "model" / "model.json").read_text())["network"] == "pixelwise"
    assert np.isfinite(json.loads((run / "evaluation-test.json").read_text())["heat"]["heatErr"])
    found = sorted(path.stem for path in (tmp_path / "found" / "heat").iterdir())
    assert found == list("012345"), "a label per training image, given or discovered, and those given of the test"
    discovered = discovered_rows(tmp_path / "found")
    assert len(discovered) == 2
    assert {row["id"] for row in discovered} <= set("0123")


def test_the_list_and_the_errors_know_them(site: Path, thermal: Path) -> None:
    listed = tasktokens(site, "list").stdout
    for name in ("heat", "thermal", "gentle", "pixelwise", "heat_error"):
        assert name in listed, name
    done = tasktokens(site, "train", "data.kind=termal", "method.name=gentel")
    assert done.returncode == 2
    assert "'thermal'" in done.stderr
    assert "'gentle'" in done.stderr
    done = tasktokens(site, "train", "data.kind=thermal", "data.camra=right", "method.name=gentle", "method.step=2")
    assert done.returncode == 2
    assert "'data.camra' (did you mean 'camera'?)" in done.stderr
    assert "'method.step' (did you mean 'steps'?)" in done.stderr


@pytest.mark.slow
def test_a_genuine_start_of_python_knows_them(site: Path) -> None:
    command = [sys.executable, "-m", "tasktokens.cli", "list"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert "pixelwise" in done.stdout


def test_a_package_that_cannot_be_imported_is_named_only_where_it_is_used(site: Path, tmp_path: Path) -> None:
    info = tmp_path / "bad-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tasktokens.methods]\nbroken = nowhere.to_be_found:Method\n")
    done = tasktokens(tmp_path, "train", "method.name=broken")
    assert done.returncode == 2
    assert "nowhere.to_be_found" in done.stderr
    assert "Traceback" not in done.stderr
    assert "data.root" in tasktokens(tmp_path, "train", "data.kind=folder", "model.pretrained=false").stderr


@pytest.fixture
def heat(site: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    """The package's task in this process; the registries forget it afterwards."""
    for registry in (KINDS, METRICS):
        monkeypatch.setattr(registry, "_known", dict(registry._known))
    monkeypatch.syspath_prepend(str(site))
    for name in ("toy", "toy.metric", "toy.task"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import_module("toy.metric")
    task: Task = import_module("toy.task").Heat("heat")
    return task


@pytest.mark.parametrize("variant", ["htt", "paper"])
def test_its_task_goes_through_htt_with_another(variant: Any, heat: Task, tiny_tasks: dict[str, Task]) -> None:
    torch.manual_seed(0)
    tasks = {"heat": heat, "semseg": tiny_tasks["semseg"]}
    settings = ModelSettings(variant=variant, backbone="test_resnet", pretrained=False, width=16)
    student, teacher = (build_network("htt", tasks, settings) for _ in range(2))
    batch = random_batch(tasks, [["heat"], ["semseg"], []])
    method = Htt(tasks, HttMethod())
    for taught_by in (None, teacher.eval()):
        terms = terms_of(method, batch, student.train(), taught_by)
        loss, summed = combine(terms, Accelerator(cpu=True))
        means = means_of(terms, summed)
        student.zero_grad()
        loss.backward()
        assert torch.isfinite(loss)
        assert means["loss/heat"] > 0
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in student.parameters())
    assert "discovered_loss/heat" in means
    assert_batch_independent(student, batch.image)


@pytest.mark.parametrize("seed", range(5))
def test_its_metric_has_the_properties_of_all(seed: int, heat: Task) -> None:
    rng = np.random.default_rng(seed)
    guess, truth = (torch.from_numpy(rng.normal(300, 20, (4, 1, 5, 6)).astype(np.float32)) for _ in range(2))
    assert_sums(type(heat.metric()), guess, truth, torch.from_numpy(rng.random((4, 1, 5, 6)) > 0.4))
