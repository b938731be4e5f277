"""The paired bootstrap: intervals that hold the truth, and a difference where there is one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tasktokens.reporting.comparison.bootstrap import paired_difference
from tasktokens.reporting.comparison.measure import Sums, metric_of
from tasktokens.tasks import build_task

DEPTH = build_task("depth", {"kind": "depth", "range": [0.5, 10.0]})
TASKS = {"depth": DEPTH}


def sums(errors_N: np.ndarray) -> Sums:
    """The sums of images whose single pixel is off by so many metres."""
    states = []
    for error in errors_N:
        metric = DEPTH.metric()
        metric.update(torch.full((1, 1, 1, 1), 5.0 + float(error)), torch.full((1, 1, 1, 1), 5.0))
        states.append(metric.state.numpy())
    return {"depth": np.stack(states)}


def test_metrics_are_read_off_added_sums() -> None:
    found = sums(np.array([0.1, 0.3, 0.5]))
    assert metric_of(DEPTH, found["depth"].sum(0)) == pytest.approx(0.3, abs=1e-4)


def test_a_method_that_is_better_on_every_image_is_significantly_better() -> None:
    errors = np.random.default_rng(0).uniform(0.2, 1.0, 40)
    found = paired_difference(TASKS, [sums(errors * 0.8)], [sums(errors)])
    assert found is not None
    assert found.value == pytest.approx(20, abs=0.1)  # pairing takes the spread of the images out
    assert found.low == pytest.approx(20, abs=0.2)
    assert found.significant


def test_two_methods_that_differ_by_chance_are_not() -> None:
    rng = np.random.default_rng(1)
    found = paired_difference(TASKS, [sums(rng.uniform(0, 1, 60))], [sums(rng.uniform(0, 1, 60))])
    assert found is not None
    assert not found.significant
    assert found.low < found.value < found.high


def test_seeds_are_averaged() -> None:
    errors = np.full(10, 0.5)
    found = paired_difference(TASKS, [sums(errors * 0.5), sums(errors * 1.5)], [sums(errors)])
    assert found is not None
    assert found.value == pytest.approx(0, abs=1e-3)


def test_without_shared_images_or_tasks_there_is_no_difference() -> None:
    assert paired_difference(TASKS, [sums(np.ones(3))], [sums(np.ones(4))]) is None
    assert paired_difference(TASKS, [{}], [sums(np.ones(4))]) is None
    assert paired_difference(TASKS, [], [sums(np.ones(4))]) is None
