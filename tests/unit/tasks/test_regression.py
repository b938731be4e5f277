"""The user's own kinds: scalars, yes or no, unit vectors of any direction. What all tasks share is in test_tasks."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from properties import assert_sums, random_label
from tasktokens.config import Config
from tasktokens.errors import ConfigError
from tasktokens.inference.evaluate import evaluate
from tasktokens.losses import masked_loss
from tasktokens.metrics import BinaryOverlap, RegressionErrors
from tasktokens.models.files import load_model
from tasktokens.tasks import Binary, Regression, Vectors, build_task
from tasktokens.training.trainer import train

HEAT = Regression("heat", minimum=-20.0, maximum=60.0, unit="°C", bins=17)


# -- scalars -----------------------------------------------------------------------------------------------------------
def test_scalar_loss_is_l1_in_tenths_of_the_range_plus_a_tenth_of_cross_entropy() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 17, 3, 4)) * 2
    target = rng.uniform(-30, 70, (2, 1, 3, 4))
    centres = np.arange(-20, 61, 5.0)
    p = np.exp(logits)
    p /= p.sum(1, keepdims=True)
    inside = target.clip(-20, 60)
    nearest = np.abs(inside - centres[:, None, None]).argmin(1)
    error = np.abs((p * centres[:, None, None]).sum(1, keepdims=True) - inside) / 8
    expected = error - 0.1 * np.log(np.take_along_axis(p, nearest[:, None], 1))
    found = HEAT.pixel_loss(torch.from_numpy(logits).float(), torch.from_numpy(target).float())
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@given(low=st.floats(-1e4, 1e4), span=st.floats(0.01, 1e5), seed=st.integers(0, 99))
def test_the_choice_of_unit_changes_no_loss_and_no_confidence(low: float, span: float, seed: int) -> None:
    one, other = Regression("a"), Regression("a", minimum=low, maximum=low + span)
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(size=(1, 30, 2, 3))).float()
    target = torch.from_numpy(rng.uniform(0.001, 0.999, (1, 1, 2, 3))).double()
    # Not in the middle between two bins, where rounding decides.
    place = target * 29
    target = torch.where((place % 1 - 0.5).abs() < 0.1, (place + 0.2) / 29, target)
    precise = 1e-3 + 1e-5 * abs(low) / span
    torch.testing.assert_close(
        one.pixel_loss(logits, target.float()),
        other.pixel_loss(logits, (low + span * target).float()),
        atol=precise, rtol=precise,
    )  # fmt: skip
    torch.testing.assert_close(one.confidence(logits), other.confidence(logits))


def test_a_scalar_torn_between_the_ends_of_its_range_is_not_confident() -> None:
    torn = torch.full((1, 17, 1, 1), -30.0)
    torn[:, 0] = torn[:, -1] = 5
    assert HEAT.confidence(torn).item() == pytest.approx(0, abs=1e-3)
    assert HEAT.decode(torn).item() == pytest.approx(20, abs=1e-3)


def test_correct_is_within_a_twentieth_of_the_range() -> None:
    truth = torch.zeros(1, 1, 1, 4)
    guess = torch.tensor([3.9, -3.9, 4.1, -4.1]).reshape(1, 1, 1, 4)
    assert HEAT.correct(guess, truth).flatten().tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "needs the setting 'range'"),
        ({"range": [3, 3]}, "low < high"),
        ({"range": [0, float("inf")]}, "low < high"),
        ({"range": ["a", "b"]}, "two numbers"),
        ({"range": [0, 1], "bins": 1}, "bins"),
        ({"range": [0, 1], "scale": 0}, "scale"),
        ({"range": [0, 1], "unit": 5}, "unit must be text"),
        ({"range": [0, 1], "units": "K"}, "did you mean 'unit'"),
    ],
    ids=str,
)
def test_a_wrong_scalar_is_named(spec: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_task("mine", {"kind": "regression"} | spec)


def test_scalar_metrics_against_numpy() -> None:
    rng = np.random.default_rng(3)
    guess, truth = rng.normal(20, 9, (2, 3, 1, 5, 6))
    valid = rng.random((3, 1, 5, 6)) > 0.4
    metric = HEAT.metric()
    metric.update(*(torch.from_numpy(x) for x in (guess, np.where(valid, truth, np.nan), valid)))
    error = np.abs(guess - truth)[valid]
    found = metric.compute()
    assert found == pytest.approx(
        {"MAE": error.mean(), "RMSE": math.sqrt((error**2).mean()), "within5": 100 * (error < 4).mean()}
    )
    assert next(iter(found)) == metric.primary
    assert metric.units == {"MAE": "°C", "RMSE": "°C", "within5": "%"}
    assert RegressionErrors(1.0, "m").units["MAE"] == "m"


@given(seed=st.integers(0, 1000))
def test_the_metrics_add_up(seed: int) -> None:
    rng = np.random.default_rng(seed)
    guess, truth = (torch.from_numpy(rng.random((4, 1, 5, 6)).astype(np.float32)) for _ in range(2))
    valid = torch.from_numpy(rng.random((4, 1, 5, 6)) > 0.4)
    assert_sums(lambda: RegressionErrors(1.0), guess, truth, valid)
    assert_sums(BinaryOverlap, guess, truth, valid)


# -- yes or no ---------------------------------------------------------------------------------------------------------
def test_overlap_against_numpy() -> None:
    rng = np.random.default_rng(4)
    guess, truth = rng.random((3, 1, 8, 9)), (rng.random((3, 1, 8, 9)) > 0.7).astype(float)
    guess[0, 0, 0, 0] = 0.5  # not above the threshold
    valid = rng.random((3, 1, 8, 9)) > 0.3
    metric = Binary("mask").metric()
    metric.update(*(torch.from_numpy(x) for x in (guess, truth, valid)))
    g, t = guess[valid], truth[valid] > 0.5

    def f1(level: float) -> float:
        yes = g > level
        return 200 * (yes & t).sum() / (yes.sum() + t.sum())

    yes = g > 0.5
    assert metric.compute() == pytest.approx(
        {
            "IoU": 100 * (yes & t).sum() / (yes | t).sum(), "maxF1": max(f1(i / 20) for i in range(1, 20)),
            "precision": 100 * (yes & t).sum() / yes.sum(), "recall": 100 * (yes & t).sum() / t.sum(),
        }
    )  # fmt: skip
    assert all(math.isnan(value) for value in Binary("mask").metric().compute().values())


def test_the_positive_weight_shares_the_loss_between_yes_and_no() -> None:
    logits, target = torch.randn(2, 1, 5, 6), (torch.rand(2, 1, 5, 6) > 0.7).float()
    p, t = logits.sigmoid().double().numpy(), target.numpy()
    for weight in (0.5, 0.9):
        task = Binary("mask", positive_weight=weight)
        total, _ = masked_loss(task, logits, target, torch.ones(2, 1, 5, 6, dtype=torch.bool))
        expected = -2 * (weight * t * np.log(p) + (1 - weight) * (1 - t) * np.log(1 - p)).sum()
        assert total.item() == pytest.approx(expected, rel=1e-5)


# -- unit vectors ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("count", [8, 32, 64, 128])
def test_vector_centres_cover_the_whole_sphere(count: int) -> None:
    centres = Vectors("v", centres_count=count).centres()
    torch.testing.assert_close(centres.norm(dim=1), torch.ones(count))
    torch.testing.assert_close(centres.sum(0), torch.zeros(3), atol=1e-5, rtol=0)
    nearest = (centres @ centres.T - 2 * torch.eye(count)).amax(dim=1)
    assert nearest.max() < math.cos(math.sqrt(4 * math.pi / count) / 8)
    directions = random_label(Vectors("v"), (60, 60), np.random.default_rng(0)).flatten(1)
    assert torch.rad2deg((centres @ directions).amax(dim=0).min().acos()) < 1.5 * math.degrees(
        math.sqrt(4 * math.pi / count)
    )


@pytest.mark.parametrize("signs", [(a, b, c) for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)], ids=str)
def test_mirroring_negates_the_components_that_flip_names(signs: tuple[int, int, int]) -> None:
    task = Vectors("v", centres_count=16, flip_signs=signs)
    logits = torch.randn(2, 16, 3, 5, generator=torch.Generator().manual_seed(0))
    expected = task.decode(logits).flip(-1) * torch.tensor(signs)[:, None, None]
    torch.testing.assert_close(task.decode(task.flip_logits(logits)), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(task.flip(task.decode(logits)[0]), expected[0], atol=1e-5, rtol=1e-5)


def test_an_undecided_network_gets_a_gradient_of_ordinary_size() -> None:
    task = Vectors("v")
    logits = torch.zeros(1, 64, 1, 1, requires_grad=True)
    task.pixel_loss(logits, torch.tensor([0.6, 0.0, 0.8]).reshape(1, 3, 1, 1)).sum().backward()
    assert logits.grad is not None
    assert 1e-3 < logits.grad.norm() < 10


@pytest.mark.parametrize(
    ("spec", "message"),
    [({"centres": 12}, "multiple of 8"), ({"flip": [0, 1, 1]}, "three signs"), ({"flip": [1, 1]}, "three signs"),
     ({"flip": 3}, "vectors")],
    ids=str,
)  # fmt: skip
def test_a_wrong_vector_task_is_named(spec: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_task("mine", {"kind": "vectors"} | spec)


# -- the whole way -----------------------------------------------------------------------------------------------------
def test_a_run_learns_saves_and_evaluates_tasks_that_the_user_named(
    own_folder: Path, make_config: Callable[..., Config], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    description = yaml.safe_load((own_folder / "dataset.yaml").read_text())
    description["tasks"] = {
        "warmth": {"kind": "regression", "range": [270, 330], "unit": "K", "bins": 6},
        "glossy": {"kind": "binary"},
        "flow": {"kind": "vectors", "centres": 16},
        "parts": {"kind": "classes", "colours": {"none": [0, 0, 0], "head": [250, 0, 0]}},
    }
    for name in description["tasks"]:
        (own_folder / name).mkdir()
    for path in sorted((own_folder / "images").iterdir()):
        np.save(own_folder / "warmth" / f"{path.stem}.npy", rng.uniform(270, 330, (40, 56)))
        Image.fromarray(rng.random((40, 56)) > 0.5).save(own_folder / "glossy" / path.name)
        vectors = rng.normal(size=(40, 56, 3))
        np.savez(own_folder / "flow" / f"{path.stem}.npz", vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))
        parts = np.zeros((40, 56, 3), np.uint8)
        parts[5:20, 5:20, 0] = 250
        Image.fromarray(parts).save(own_folder / "parts" / path.name)
    (own_folder / "dataset.yaml").write_text(yaml.safe_dump(description, sort_keys=False))
    config = make_config(own_folder, tmp_path / "run", **{"run.evaluate": "test"})
    run = train(config, quiet=True)
    _, info = load_model(run)
    assert {name: task.kind for name, task in info.tasks.items()} == {
        "warmth": "regression", "glossy": "binary", "flow": "vectors", "parts": "classes"
    }  # fmt: skip
    results = evaluate(run, "test", write=False)
    for name, metric in (("warmth", "MAE"), ("glossy", "IoU"), ("flow", "mErr"), ("parts", "mIoU")):
        assert np.isfinite(results[name][metric]), name
    assert results["warmth"]["MAE"] <= 60
