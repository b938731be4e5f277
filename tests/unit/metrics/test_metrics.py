"""Metrics against independent NumPy versions and torchmetrics, on labels with invalid pixels."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from properties import assert_metrics_equal, assert_sums
from tasktokens.metrics import (
    AngularErrors,
    DepthErrors,
    FMeasure,
    MeanIoU,
    Metric,
    SaliencyF,
    delta_mtl,
    higher_is_better,
)

CLASSES = ("a", "b", "c", "d", "never")
LEVELS = tuple(i / 20 for i in range(1, 20))
SHAPE = (5, 1, 11, 13)
Case = tuple[Tensor, Tensor, Tensor]


def valid_mask(seed: int) -> Tensor:
    valid = np.random.default_rng(seed).random(SHAPE) > 0.3
    valid[2] = False  # an image without a usable pixel
    return torch.from_numpy(valid)


def classes_case(seed: int = 0) -> Case:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, SHAPE).astype(np.uint8)
    guess = np.where(rng.random(SHAPE) > 0.5, truth, rng.integers(0, 4, SHAPE)).astype(np.uint8)
    return torch.from_numpy(guess), torch.from_numpy(truth), valid_mask(seed)


def depth_case(seed: int = 0) -> Case:
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.5, 10, SHAPE).astype(np.float32)
    guess = (truth * rng.lognormal(0, 0.3, SHAPE)).astype(np.float32)
    return torch.from_numpy(guess), torch.from_numpy(truth), valid_mask(seed)


def normals_case(seed: int = 0) -> Case:
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(5, 3, 11, 13))
    guess = truth + rng.normal(size=truth.shape) * 0.6
    unit = [torch.from_numpy((v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32)) for v in (guess, truth)]
    return unit[0], unit[1], valid_mask(seed)


def probability_case(seed: int = 0) -> Case:
    rng = np.random.default_rng(seed)
    truth = (rng.random(SHAPE) > 0.8).astype(np.float32)
    guess = (0.5 * truth + 0.5 * rng.random(SHAPE)).astype(np.float32)
    return torch.from_numpy(guess), torch.from_numpy(truth), valid_mask(seed)


METRICS: dict[str, tuple[Callable[[], Metric], Callable[[int], Case]]] = {
    "classes": (lambda: MeanIoU(len(CLASSES), CLASSES), classes_case),
    "depth": (DepthErrors, depth_case),
    "normals": (AngularErrors, normals_case),
    "maxF": (SaliencyF, probability_case),
    "pixelF": (lambda: FMeasure("pixelF", 1.0, LEVELS), probability_case),
}
every_metric = pytest.mark.parametrize("name", METRICS)


def result(name: str, case: Case) -> dict[str, float]:
    metric = METRICS[name][0]()
    metric.update(*case)
    return metric.compute()


@every_metric
def test_batches_of_any_size_ranks_and_invalid_pixels_do_not_change_a_metric(name: str) -> None:
    assert_sums(METRICS[name][0], *METRICS[name][1](0))


@every_metric
def test_a_perfect_prediction_has_the_best_values(name: str) -> None:
    _, truth, valid = METRICS[name][1](1)
    metric = METRICS[name][0]()
    metric.update(truth, truth, valid)
    for key, value in metric.compute().items():
        if key == "IoU/never":
            continue
        best = 100.0 if higher_is_better(metric, key) else 0.0
        assert value == pytest.approx(best, abs=0.03), key


@every_metric
def test_nothing_valid_is_nan_and_no_crash(name: str) -> None:
    guess, truth, valid = METRICS[name][1](2)
    values = result(name, (guess, truth, torch.zeros_like(valid)))
    fresh = METRICS[name][0]().compute()
    assert all(math.isnan(value) for value in values.values())
    assert_metrics_equal(values, fresh)


@every_metric
def test_the_primary_metric_is_computed_and_has_a_direction_and_a_unit(name: str) -> None:
    metric = METRICS[name][0]()
    metric.update(*METRICS[name][1](3))
    values = metric.compute()
    assert metric.primary in values
    assert all(key.split("/")[0] in metric.higher_is_better for key in values)
    assert metric.primary in metric.units


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_iou_is_that_of_numpy(seed: int) -> None:
    guess, truth, valid = classes_case(seed)
    values = result("classes", (guess, truth, valid))
    g, t = guess.numpy()[valid], truth.numpy()[valid]
    expected = {}
    for k, name in enumerate(CLASSES):
        union = ((g == k) | (t == k)).sum()
        expected[f"IoU/{name}"] = 100 * ((g == k) & (t == k)).sum() / union if union else np.nan
    expected |= {"pixAcc": 100 * (g == t).mean(), "mIoU": np.nanmean(list(expected.values()))}
    assert_metrics_equal(values, {key: expected[key] for key in values})


def test_iou_is_that_of_torchmetrics() -> None:
    from torchmetrics.classification import MulticlassConfusionMatrix

    guess, truth, valid = classes_case(4)
    values = result("classes", (guess, truth, valid))
    theirs = MulticlassConfusionMatrix(len(CLASSES), ignore_index=255)
    matrix = theirs(guess.long(), torch.where(valid, truth.long(), 255)).double()
    union = matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
    iou = (matrix.diagonal() / union)[union > 0]
    assert values["mIoU"] == pytest.approx(100 * iou.mean().item())


def test_a_class_that_is_nowhere_is_left_out_and_one_only_predicted_counts_as_zero() -> None:
    truth = torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    guess = torch.tensor([[[[0, 0], [0, 3]]]], dtype=torch.uint8)
    values = result("classes", (guess, truth, torch.ones(1, 1, 2, 2, dtype=torch.bool)))
    assert values["IoU/a"] == pytest.approx(75)
    assert values["IoU/d"] == 0
    assert values["mIoU"] == pytest.approx(37.5)
    assert math.isnan(values["IoU/b"])


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_depth_errors_are_those_of_numpy(seed: int) -> None:
    guess, truth, valid = depth_case(seed)
    p, t = guess.numpy()[valid].astype(np.float64), truth.numpy()[valid].astype(np.float64)
    ratio = np.maximum(p / t, t / p)
    expected = {
        "absErr": np.abs(p - t).mean(), "relErr": (np.abs(p - t) / t).mean(), "RMSE": np.sqrt(((p - t) ** 2).mean()),
        **{f"delta{k}": 100 * (ratio < 1.25**k).mean() for k in (1, 2, 3)},
    }  # fmt: skip
    assert_metrics_equal(result("depth", (guess, truth, valid)), expected)


def test_published_code_counts_a_class_that_is_nowhere_as_zero() -> None:
    guess, truth, valid = classes_case(7)
    metric = MeanIoU(len(CLASSES), CLASSES)
    metric.update(guess, truth, valid)
    correct, paper = metric.compute(), metric.compute_paper()
    ious = np.array([correct[f"IoU/{name}"] for name in CLASSES])
    assert np.isnan(ious).sum() == 1
    assert paper["mIoU"] == pytest.approx(np.nan_to_num(ious).mean())
    assert_metrics_equal(correct | {"mIoU": 0}, paper | {"mIoU": 0})


def test_parts_are_classes_and_an_image_without_a_person_counts_for_nothing() -> None:
    guess, truth, valid = classes_case(8)
    with_people, without = MeanIoU(len(CLASSES), CLASSES), torch.zeros_like(valid[:1])
    with_people.update(guess, truth, valid)
    before = with_people.compute()
    with_people.update(torch.full_like(guess[:1], 3), truth[:1], without)
    assert_metrics_equal(with_people.compute(), before)


def test_depth_errors_are_those_of_torchmetrics() -> None:
    from torchmetrics.regression import MeanAbsoluteError, MeanAbsolutePercentageError, MeanSquaredError

    guess, truth, valid = depth_case(5)
    values = result("depth", (guess, truth, valid))
    assert values["absErr"] == pytest.approx(MeanAbsoluteError()(guess[valid], truth[valid]).item(), rel=1e-5)
    assert values["RMSE"] == pytest.approx(MeanSquaredError(squared=False)(guess[valid], truth[valid]).item(), rel=1e-5)
    relative = MeanAbsolutePercentageError()(guess[valid], truth[valid]).item()
    assert values["relErr"] == pytest.approx(relative, rel=1e-5)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_angles_are_those_of_numpy(seed: int) -> None:
    guess, truth, valid = normals_case(seed)
    p, t = (np.moveaxis(v.numpy().astype(np.float64), 1, -1)[valid[:, 0].numpy()] for v in (guess, truth))
    cosine = (p * t).sum(1) / np.linalg.norm(p, axis=1) / np.linalg.norm(t, axis=1)
    angle = np.degrees(np.arccos(cosine.clip(-1, 1)))
    values = result("normals", (guess, truth, valid))
    assert values["mErr"] == pytest.approx(angle.mean(), rel=1e-6)
    # Half of the angles lie below the median, whichever of the two middle ones is taken.
    low, high = np.quantile(angle, [0.5, 0.5], method="lower")[0], np.quantile(angle, 0.5, method="higher")
    assert low - 0.05 <= values["median"] <= high + 0.05
    for limit in ("11.25", "22.5", "30"):
        assert values[f"within{limit}"] == pytest.approx(100 * (angle < float(limit)).mean())


@pytest.mark.parametrize("angle", [0.0, 0.001, 11.0, 90.0, 179.999, 180.0])
def test_a_known_angle_is_measured(angle: float) -> None:
    a = math.radians(angle)
    truth = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64).reshape(1, 3, 1, 1)
    guess = torch.tensor([math.sin(a), 0.0, -math.cos(a)], dtype=torch.float64).reshape(1, 3, 1, 1)
    values = result("normals", (guess, truth, torch.ones(1, 1, 1, 1, dtype=torch.bool)))
    assert values["mErr"] == pytest.approx(angle, abs=1e-6)
    assert values["median"] == pytest.approx(angle, abs=0.05)


@pytest.mark.parametrize(("name", "beta2"), [("maxF", 0.3), ("pixelF", 1.0)])
@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_f_is_that_of_numpy(name: str, beta2: float, seed: int) -> None:
    guess, truth, valid = probability_case(seed)
    f = [numpy_f(guess.numpy()[valid], truth.numpy()[valid] > 0.5, level, beta2) for level in np.float32(LEVELS)]
    values = result(name, (guess, truth, valid))
    assert values[name] == pytest.approx(max(f))
    if name == "maxF":
        assert values["meanF"] == pytest.approx(np.mean(f))


def numpy_f(guess: np.ndarray, truth: np.ndarray, level: float, beta2: float) -> float:
    hit = ((guess > level) & truth).sum()
    precision, recall = hit / max((guess > level).sum(), 1), hit / max(truth.sum(), 1)
    return 100 * (1 + beta2) * precision * recall / max(beta2 * precision + recall, 1e-12)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_maxf_as_published_has_a_sigmoid_too_many(seed: int) -> None:
    guess, truth, valid = probability_case(seed)
    metric = SaliencyF()
    metric.update(guess, truth, valid)
    p, t = guess.numpy()[valid].astype(np.float64), truth.numpy()[valid] > 0.5
    f = [numpy_f(1 / (1 + np.exp(-p)), t, level, 0.3) for level in np.arange(1, 20) / 20]
    assert metric.compute_paper()["maxF"] == pytest.approx(max(f))


@every_metric
def test_both_protocols_have_the_same_names(name: str) -> None:
    metric = METRICS[name][0]()
    metric.update(*METRICS[name][1](9))
    assert metric.compute().keys() == metric.compute_paper().keys()


def test_pixel_f_is_that_of_torchmetrics() -> None:
    from torchmetrics.classification import BinaryF1Score

    guess, truth, valid = probability_case(6)
    theirs = max(BinaryF1Score(threshold=level)(guess[valid], truth[valid].int()).item() for level in LEVELS)
    assert result("pixelF", (guess, truth, valid))["pixelF"] == pytest.approx(100 * theirs, rel=1e-5)


@pytest.mark.parametrize(
    ("positive", "predicted", "expected"), [(1, 0.7, 100), (1, 0, 0), (0, 0.99, 0), (0, 0.7, None)]
)
def test_f_without_a_positive_or_negative_pixel(positive: int, predicted: float, expected: float | None) -> None:
    """Without a positive pixel it is 0/0, thus NaN, at a threshold that predicts none."""
    truth = torch.full((1, 1, 3, 3), float(positive))
    valid = torch.ones(1, 1, 3, 3, dtype=torch.bool)
    value = result("maxF", (torch.full((1, 1, 3, 3), predicted), truth, valid))["maxF"]
    assert np.isnan(value) if expected is None else value == pytest.approx(expected)


def test_delta_is_the_mean_relative_gain_signed_by_the_direction() -> None:
    reference, higher = {"semseg": 40.0, "depth": 0.5}, {"semseg": True, "depth": False}
    assert delta_mtl(reference, reference, higher) == 0
    assert delta_mtl({"semseg": 44.0, "depth": 0.5}, reference, higher) == pytest.approx(5)
    assert delta_mtl({"semseg": 40.0, "depth": 0.45}, reference, higher) == pytest.approx(5)
    assert delta_mtl({"semseg": 36.0, "depth": 0.6}, reference, higher) == pytest.approx(-15)
    assert delta_mtl({"semseg": 44.0, "depth": 0.55}, reference, higher) == pytest.approx(0, abs=1e-9)


def test_delta_against_numpy_over_several_tasks() -> None:
    rng = np.random.default_rng(0)
    new, old, up = rng.uniform(1, 50, 5), rng.uniform(1, 50, 5), rng.random(5) > 0.5
    expected = 100 * np.mean((-1.0) ** (~up) * (new - old) / old)
    named = [dict(zip("abcde", values.tolist(), strict=True)) for values in (new, old, up)]
    assert delta_mtl(*named) == pytest.approx(expected)
