"""A task of a new kind, defined here and nowhere else, goes the whole way: files, network, losses, metric, run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import yaml
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from properties import assert_batch_independent, assert_sums, random_batch, terms_of
from tasktokens.config import Config, ModelSettings
from tasktokens.datasets.open import open_data
from tasktokens.errors import LabelError
from tasktokens.inference.evaluate import evaluate
from tasktokens.losses import masked_loss
from tasktokens.methods import Htt, HttMethod
from tasktokens.metrics import Metric
from tasktokens.models import build_network
from tasktokens.models.files import load_model
from tasktokens.tasks import KINDS, Task
from tasktokens.tasks.base import Array
from tasktokens.training.step import combine, means_of
from tasktokens.training.trainer import train


class HeatError(Metric):
    """Mean absolute error in kelvin."""

    higher_is_better: ClassVar[dict[str, bool]] = {"heatErr": False}
    units: ClassVar[dict[str, str]] = {"heatErr": "K"}

    def __init__(self) -> None:
        super().__init__(2)

    @property
    def primary(self) -> str:
        return "heatErr"

    def statistics(self, prediction_BCHW: Tensor, target_BCHW: Tensor, valid_B1HW: Tensor) -> Tensor:
        error = torch.where(valid_B1HW, prediction_BCHW.double() - target_BCHW.double(), 0.0).abs()
        return torch.stack([error.sum(), valid_B1HW.sum().double()])

    def compute(self) -> dict[str, float]:
        return {"heatErr": (self.state[0] / self.state[1]).item()}


@dataclass(frozen=True)
class Heat(Task):
    """A temperature a pixel in kelvin, plain regression: the first logit is the value, the second its log deviation."""

    threshold: float = 0.3
    kind: ClassVar[str] = "heat"
    neutral: ClassVar[tuple[float, ...]] = (300.0,)
    confidence_weighted: ClassVar[bool] = True

    @property
    def num_tokens(self) -> int:
        return 2

    def spec(self) -> dict[str, Any]:
        return {"kind": self.kind}

    def read(self, path: Path) -> tuple[Array, Array]:
        try:
            plane = np.load(path)
        except (OSError, ValueError) as error:
            raise LabelError(f"{path}: {error}") from error
        valid = np.isfinite(plane)
        return np.where(valid, plane, 300).astype(np.float32)[None], valid

    def write(self, path: Path, value_CHW: Array, valid_HW: Array | None = None) -> None:
        np.save(path, value_CHW[0] if valid_HW is None else np.where(valid_HW, value_CHW[0], np.nan))

    def colourise(self, value_CHW: Array, valid_HW: Array | None = None) -> Array:
        return np.repeat((value_CHW[0] / 400 * 255).clip(0, 255).astype(np.uint8)[..., None], 3, -1)

    def pixel_loss(self, logits_BKHW: Tensor, target_BCHW: Tensor) -> Tensor:
        return (self.decode(logits_BKHW) - target_BCHW).abs() / 50 + 0.1 * logits_BKHW[:, 1:2] ** 2

    def decode(self, logits_BKHW: Tensor) -> Tensor:
        return 300 + 50 * logits_BKHW[:, 0:1].float()

    def confidence(self, logits_BKHW: Tensor) -> Tensor:
        return (-logits_BKHW[:, 1:2].float()).sigmoid()

    def correct(self, prediction_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
        return (prediction_BCHW - target_BCHW).abs() < 5

    def metric(self) -> HeatError:
        return HeatError()


@pytest.fixture
def tasks(tiny_tasks: dict[str, Task]) -> dict[str, Task]:
    return {"heat": Heat("heat"), "semseg": tiny_tasks["semseg"]}


@pytest.mark.parametrize("variant", ["htt", "paper"])
def test_the_new_task_goes_through_network_and_method(variant: Any, tasks: dict[str, Task]) -> None:
    torch.manual_seed(0)
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


def test_the_new_task_can_be_learned(tasks: dict[str, Task]) -> None:
    """A few steps on one image bring the prediction nearer to the label."""
    torch.manual_seed(0)
    heat = {"heat": tasks["heat"]}
    network = build_network("htt", heat, ModelSettings(backbone="test_resnet", pretrained=False, width=16)).train()
    batch = random_batch(heat, [["heat"], ["heat"]], size=(32, 48))
    labels = batch.labels["heat"]
    target = torch.full_like(labels.value, 350.0)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    errors = []
    for _ in range(25):
        logits = network(batch.image)["heat"].logits_at((32, 48))
        errors.append((tasks["heat"].decode(logits) - target).abs().mean().item())
        optimizer.zero_grad()
        total, count = masked_loss(tasks["heat"], logits, target, labels.valid)
        (total / count).backward()
        optimizer.step()
    assert errors[-1] < errors[0] / 2


@given(seed=st.integers(0, 1000))
def test_the_new_metric_has_the_properties_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    guess, truth = (torch.from_numpy(rng.normal(300, 20, (4, 1, 5, 6)).astype(np.float32)) for _ in range(2))
    assert_sums(HeatError, guess, truth, torch.from_numpy(rng.random((4, 1, 5, 6)) > 0.4))


def test_a_run_learns_saves_and_evaluates_the_new_task(
    own_folder: Path, make_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that outsiders add is the kind's name."""
    monkeypatch.setitem(KINDS._known, "heat", Heat)
    rng = np.random.default_rng(0)
    (own_folder / "heat").mkdir()
    for path in (own_folder / "images").iterdir():
        plane = rng.normal(300, 20, (40, 56))
        plane[:3] = np.nan
        np.save(own_folder / "heat" / f"{path.stem}.npy", plane)
    description = yaml.safe_load((own_folder / "dataset.yaml").read_text())
    description["tasks"]["heat"] = {"kind": "heat"}
    (own_folder / "dataset.yaml").write_text(yaml.safe_dump(description, sort_keys=False))

    changes = {
        "tasks": {"heat": {"weight": 2.0}, "depth": {}}, "run.evaluate": "test",
        "method": {"name": "htt", "stage1_steps": 2, "stage2_steps": 2},
    }  # fmt: skip
    config = make_config(own_folder, tmp_path / "run", **changes)
    run = train(config, quiet=True)
    network, info = load_model(run)
    assert info.tasks["heat"] == Heat("heat", weight=2.0)
    assert network(torch.zeros(1, 3, 32, 48, dtype=torch.uint8))["heat"].logits.shape[1] == 2
    stored = json.loads((run / "evaluation-test.json").read_text())["heat"]["heatErr"]
    assert np.isfinite(stored)
    assert evaluate(run, "test", write=False)["heat"]["heatErr"] == pytest.approx(stored)
    assert {len(names) for names in open_data(config).train.values()} == {1}
    train(config, resume=True, quiet=True)
