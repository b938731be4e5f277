"""Every metric with zeros, NaN, infinities, empty and all-void input, against NumPy; and what torchmetrics promises."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchmetrics
from torch import Tensor

from properties import assert_metrics_equal
from tasktokens.metrics import (
    AngularErrors,
    BinaryOverlap,
    BoundaryF,
    DepthErrors,
    EdgeF,
    FMeasure,
    InverseDepthErrors,
    MeanIoU,
    Metric,
    RegressionErrors,
    Reliability,
    SaliencyF,
    delta_mtl,
    mean_improvement,
)

SHAPE = (2, 8, 9)
MAKE: dict[str, tuple[Callable[[], Metric], int]] = {
    "mean_iou": (lambda: MeanIoU(2), 1),
    "depth": (DepthErrors, 1),
    "inverse_depth": (InverseDepthErrors, 1),
    "normals": (AngularErrors, 3),
    "saliency": (SaliencyF, 1),
    "f_measure": (FMeasure, 1),
    "binary": (BinaryOverlap, 1),
    "regression": (lambda: RegressionErrors(10.0, "K"), 1),
    "boundary": (BoundaryF, 1),
    "edge": (EdgeF, 1),
}
every = pytest.mark.parametrize("name", MAKE)


def ones(name: str, value: float = 1.0) -> Tensor:
    """A map of one value; as a target: class 1, one metre, one direction, a positive pixel."""
    return torch.full((SHAPE[0], MAKE[name][1], *SHAPE[1:]), value)


def measured(name: str, guess: Tensor, truth: Tensor, valid: Tensor | None = None) -> dict[str, float]:
    metric = MAKE[name][0]()
    metric.update(guess, truth, valid)
    return metric.compute()


def mask(value: bool = True) -> Tensor:
    return torch.full((SHAPE[0], 1, *SHAPE[1:]), value)


@every
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["everywhere", "one pixel"])
@pytest.mark.parametrize("of", ["prediction", "target"])
def test_what_is_not_finite_where_it_counts_makes_every_value_nan(name: str, bad: float, where: str, of: str) -> None:
    spoilt = ones(name, bad) if where == "everywhere" else ones(name)
    spoilt[0, 0, 3, 4] = bad
    pair = (spoilt, ones(name)) if of == "prediction" else (ones(name), spoilt)
    metric = MAKE[name][0]()
    metric.update(*pair)
    for values in (metric.compute(), metric.compute_paper()):
        assert all(math.isnan(value) for value in values.values()), values
    # A good batch after it does not hide it.
    metric.update(ones(name), ones(name))
    assert all(math.isnan(value) for value in metric.compute().values())


@every
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e30, -7.0])
def test_what_lies_outside_the_mask_changes_nothing(name: str, bad: float) -> None:
    guess, truth, valid = ones(name), ones(name), mask()
    valid[:, :, 2:5] = False
    expected = measured(name, guess, truth, valid)
    truth[:, :, 2:5] = bad
    # Boundaries are found before the mask is applied, so what is predicted beside the labels is their surroundings.
    if name not in ("boundary", "edge"):
        guess[:, :, 2:5] = bad
    assert_metrics_equal(measured(name, guess, truth, valid), expected)


@every
@pytest.mark.parametrize("shape", [(0, 8, 9), (2, 0, 9), (2, 8, 0)])
def test_empty_and_all_void_input_is_nan(name: str, shape: tuple[int, int, int]) -> None:
    batch, height, width = shape
    empty = torch.zeros(batch, MAKE[name][1], height, width)
    for values in (measured(name, empty, empty), measured(name, ones(name), ones(name), mask(False))):
        assert all(math.isnan(value) for value in values.values()), values
    # After a real batch it changes nothing.
    metric = MAKE[name][0]()
    metric.update(ones(name), ones(name))
    before = metric.compute()
    metric.update(empty, empty)
    metric.update(ones(name), ones(name), mask(False))
    assert_metrics_equal(metric.compute(), before)


NAN = math.nan
ZEROS = {
    # Class 0 predicted everywhere, class 1 true everywhere.
    "mean_iou": {"mIoU": 0, "pixAcc": 0, "IoU/0": 0, "IoU/1": 0},
    "depth": {"absErr": 1, "relErr": 1, "RMSE": 1, "delta1": 0, "delta2": 0, "delta3": 0},
    "inverse_depth": {"absErr": 1, "relErr": 1, "RMSE": 1, "delta1": 0, "delta2": 0, "delta3": 0},
    # No direction: a cosine of 0.
    "normals": {"mErr": 90, "median": 90.025, "within11.25": 0, "within22.5": 0, "within30": 0},
    "saliency": {"maxF": 0, "meanF": 0},
    "f_measure": {"pixelF": 0},
    "binary": {"IoU": 0, "maxF1": 0, "precision": NAN, "recall": 0},
    "regression": {"MAE": 1, "RMSE": 1, "within5": 0},
    "boundary": {"odsF": 0, "oisF": 0, "AP": 0},
    "edge": {"odsF": 0, "oisF": 0, "AP": 0, "pixelF": 0},
}


@every
def test_a_prediction_of_zeros(name: str) -> None:
    assert_metrics_equal(measured(name, ones(name, 0.0), ones(name)), ZEROS[name], tolerance=1e-6)


def test_some_predictions_of_zeros_against_numpy() -> None:
    rng = np.random.default_rng(0)
    guess, truth = rng.normal(size=(2, 3, 8, 9)), rng.normal(size=(2, 3, 8, 9))
    nowhere = rng.random((2, 1, 8, 9)) < 0.3
    guess = np.where(nowhere, 0, guess)
    length = np.linalg.norm(guess, axis=1) * np.linalg.norm(truth, axis=1)
    cosine = (guess * truth).sum(1) / np.where(length > 0, length, 1)
    angle = np.degrees(np.arccos(cosine.clip(-1, 1)))
    values = measured("normals", torch.from_numpy(guess), torch.from_numpy(truth))
    assert values["mErr"] == pytest.approx(angle.mean())
    assert values["within30"] == pytest.approx(100 * (angle < 30).mean())


def test_a_true_normal_without_a_direction_is_nan() -> None:
    truth = ones("normals")
    truth[0, :, 3, 4] = 0
    assert all(math.isnan(value) for value in measured("normals", ones("normals"), truth).values())


@pytest.mark.parametrize("name", ["depth", "inverse_depth"])
@pytest.mark.parametrize("wrong", [0.0, -2.0])
def test_a_true_depth_of_zero_or_below_has_no_ratio(name: str, wrong: float) -> None:
    truth = ones(name)
    truth[0, 0, 3, 4] = wrong
    values = measured(name, ones(name), truth)
    error = np.zeros(2 * 8 * 9)
    error[0] = 1 - wrong
    assert values["absErr"] == pytest.approx(error.mean())
    assert values["RMSE"] == pytest.approx(np.sqrt((error**2).mean()))
    assert all(math.isnan(values[key]) for key in ("relErr", "delta1", "delta2", "delta3"))


@pytest.mark.parametrize("value", [-1.0, 2.0, 255.0, 0.5])
@pytest.mark.parametrize("of", ["prediction", "target"])
def test_an_id_that_is_no_class_is_refused_where_it_counts(value: float, of: str) -> None:
    maps = {"prediction": ones("mean_iou"), "target": ones("mean_iou")}
    maps[of][1, 0, 2, 3] = value
    with pytest.raises(ValueError, match=rf"a {of} is {value:g}, not a class id from 0 to 1"):
        MeanIoU(2).update(*maps.values())
    valid = mask()
    valid[1, 0, 2, 3] = False
    assert measured("mean_iou", *maps.values(), valid)["pixAcc"] == 100


@every
def test_shapes_and_masks_that_would_be_broadcast_are_refused(name: str) -> None:
    for pair in ((ones(name)[0], ones(name)[0]), (ones(name), ones(name)[:1]), (ones(name)[..., :1], ones(name))):
        with pytest.raises(ValueError, match=r"must both be \(B, C, H, W\); they are"):
            MAKE[name][0]().update(*pair)
    for wrong in (mask()[:1], mask()[:, 0], mask().float()):
        with pytest.raises(ValueError, match=r"the mask must be bool of shape \(2, 1, 8, 9\)"):
            MAKE[name][0]().update(ones(name), ones(name), wrong)


@pytest.mark.parametrize("arguments", [(0,), (3, ("a", "b"))])
def test_class_counts_that_do_not_fit_are_refused(arguments: tuple[int]) -> None:
    with pytest.raises(ValueError, match="num_classes must be at least 1"):
        MeanIoU(*arguments)


@pytest.mark.parametrize("span", [0.0, -1.0, math.nan, math.inf])
def test_a_span_that_is_no_width_is_refused(span: float) -> None:
    with pytest.raises(ValueError, match="span must be the width of a range"):
        RegressionErrors(span)


def test_confidences_that_are_not_finite_give_no_accuracy() -> None:
    for bad in (math.nan, math.inf, -math.inf):
        metric = Reliability()
        metric.update(torch.full((1, 1, 2, 2), bad), torch.ones(1, 1, 2, 2) > 0, torch.ones(1, 1, 2, 2) > 0)
        assert all(math.isnan(value) for value in metric.compute().values())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_change_against_or_to_what_was_not_measured_is_nan(bad: float) -> None:
    for change in (delta_mtl, mean_improvement):
        assert math.isnan(change({"a": bad}, {"a": 1.0}, {"a": True}))
        assert math.isnan(change({"a": 1.0}, {"a": bad}, {"a": True}))
        assert math.isnan(change({}, {}, {}))
    assert math.isnan(delta_mtl({"a": 1.0, "b": 2.0}, {"a": 0.0, "b": 2.0}, {"a": True, "b": True}))


# -- what users of torchmetrics expect ---------------------------------------------------------------------------------
@every
def test_it_is_a_metric_of_torchmetrics(name: str) -> None:
    metric = MAKE[name][0]()
    assert isinstance(metric, torchmetrics.Metric)
    assert metric.name == name
    generator = torch.Generator().manual_seed(0)
    truth = (torch.rand(ones(name).shape, generator=generator) > 0.5).float() + (0 if name == "mean_iou" else 0.2)
    guess = (torch.rand(ones(name).shape, generator=generator) > 0.5).float()
    first = metric(guess[:1], truth[:1])  # forward: the batch's values
    assert_metrics_equal(first, measured(name, guess[:1], truth[:1]))
    metric.update(guess[1:], truth[1:])
    expected = measured(name, guess, truth)
    assert_metrics_equal(metric.compute(), expected)
    for copied in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric)), metric.clone()):
        assert_metrics_equal(copied.compute(), expected)
        assert_metrics_equal(copied.compute_paper(), metric.compute_paper())
    assert metric.half().double().state.dtype == torch.float64
    assert metric.to("meta").state.device.type == "meta"
    again = MAKE[name][0]()
    again.update(guess, truth)
    again.reset()
    assert again.state.sum() == 0
    again.update(guess[:1], truth[:1])
    assert_metrics_equal(again.compute(), first)


@every
def test_sums_of_ranks_are_added_by_torchmetrics_own_sync(name: str) -> None:
    parts = [MAKE[name][0]() for _ in range(2)]
    parts[0].update(ones(name, 0.0), ones(name))
    parts[1].update(ones(name), ones(name))
    whole = MAKE[name][0]()
    whole.update(torch.cat([ones(name, 0.0), ones(name)]), torch.cat([ones(name)] * 2))
    other = parts[1].state
    metric = parts[0]
    metric.distributed_available_fn = lambda: True
    metric.dist_sync_fn = lambda state, group=None: [state, other]
    assert_metrics_equal(metric.compute(), whole.compute())
    if name not in ("mean_iou", "saliency"):
        return
    # `compute_paper` has to see all ranks too, and to give each its own sums back.
    assert_metrics_equal(metric.compute_paper(), whole.compute_paper())
    assert not torch.equal(metric.state, whole.state)
