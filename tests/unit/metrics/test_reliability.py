"""Counts by confidence: against plain NumPy, under any division into batches, and what thresholds they give."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tasktokens.metrics import Reliability

GROUPS, BINS = 3, 20


def drawn(seed: int, count: int = 7) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Confidences with NaN, exact levels, 0 and 1 among them; correct, valid, group."""
    rng = np.random.default_rng(seed)
    confidence = rng.random((count, 1, 6, 9)).astype(np.float32)
    confidence[rng.random(confidence.shape) < 0.2] = np.float32(rng.integers(0, BINS + 1) / BINS)
    confidence[rng.random(confidence.shape) < 0.05] = np.nan
    correct, valid = rng.random(confidence.shape) < confidence, rng.random(confidence.shape) < 0.8
    group = rng.integers(0, GROUPS, confidence.shape)
    return tuple(torch.from_numpy(x) for x in (confidence, correct, valid, group))  # type: ignore[return-value]


def plain(seed: int) -> Any:
    """The valid pixels as NumPy vectors."""
    confidence, correct, valid, group = (x.numpy() for x in drawn(seed))
    kept = valid & ~np.isnan(confidence)
    return confidence[kept], correct[kept], group[kept]


def counted(seed: int, *cuts: int) -> Reliability:
    found = Reliability(GROUPS, BINS)
    parts = drawn(seed)
    for first, last in zip((0, *cuts), (*cuts, len(parts[0])), strict=True):
        found.update(*(x[first:last] for x in parts))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_coverage_accuracy_and_calibration_error_are_those_of_plain_numpy(seed: int) -> None:
    found = counted(seed)
    confidence, correct, _ = plain(seed)
    assert found.state[0].sum() == len(confidence)
    for level in found.levels:
        above = confidence > np.float32(level)
        assert found.coverage(level) == pytest.approx(above.mean())
        assert found.accuracy(level) == pytest.approx(correct[above].mean(), nan_ok=True)
    bins = np.ceil(confidence.astype(np.float64) * BINS - 1e-6).clip(1)
    error = sum(
        abs(correct[bins == k].mean() - confidence[bins == k].mean()) * (bins == k).mean() for k in np.unique(bins)
    )
    assert found.expected_calibration_error() == pytest.approx(error, abs=1e-5)
    bins = np.ceil(confidence.astype(np.float64) * 5 - 1e-6).clip(1)
    for k, (pixels, right, sure) in enumerate(found.binned(5).T, start=1):
        assert pixels == (bins == k).sum()
        assert right == correct[bins == k].sum()
        assert sure == pytest.approx(confidence[bins == k].sum(), rel=1e-5)


@pytest.mark.parametrize("asked", [0.0, 0.5, 0.7, 0.9, 1.0])
def test_the_threshold_is_the_smallest_above_which_pixels_are_right_often_enough(asked: float) -> None:
    found = counted(1).thresholds(asked)
    confidence, correct, group = plain(1)
    for g in range(GROUPS):
        for level in [k / BINS for k in range(BINS)]:
            above = (confidence > np.float32(level)) & (group == g)
            if above.any() and correct[above].sum() >= asked * above.sum():
                assert found[g] == level
                break
        else:
            assert found[g] == 1


@given(st.integers(0, 99), st.lists(st.integers(0, 7), max_size=4).map(sorted))
def test_any_division_into_batches_gives_the_same_bits(seed: int, cuts: list[int]) -> None:
    assert torch.equal(counted(seed, *cuts).state, counted(seed).state)


def test_a_group_that_was_not_met_or_is_never_right_has_the_threshold_one() -> None:
    found, ones = Reliability(3), torch.ones(1, 1, 2, 2)
    found.update(0.7 * ones, ones.bool(), ones.bool(), ones.long())
    found.update(0.9 * ones, ~ones.bool(), ones.bool(), 2 * ones.long())
    assert found.thresholds(0.5).tolist() == [1.0, 0.0, 1.0]


def test_nothing_seen_is_nan_and_what_cannot_count_changes_nothing() -> None:
    found, ones = Reliability(), torch.ones(1, 1, 2, 2)
    found.update(math.nan * ones, ones.bool(), ones.bool())
    found.update(math.inf * ones, ones.bool(), ones.bool())
    found.update(0.5 * ones, ones.bool(), ~ones.bool())
    assert found.state.sum() == 0
    values = found.coverage(0), found.accuracy(0), found.expected_calibration_error()
    assert all(math.isnan(value) for value in values)
    assert found.thresholds(0.8).tolist() == [1.0]


def test_counts_between_the_levels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"multiples of 1/50 below 1, not for 0\.33"):
        Reliability().coverage(0.33)
