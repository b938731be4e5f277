"""odsF, oisF and AP: cases by hand, an independent matching, thinning, real boundaries."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from any_input import examples
from properties import assert_sums
from tasktokens.metrics import BoundaryF, EdgeF, FMeasure
from tasktokens.metrics.boundary import Annotators, boundary_counts
from tasktokens.metrics.thinning import ridge, thin
from tasktokens.tasks import build_task

BSDS = Path(__file__).parents[4] / "shared/data/bsds500/test"
SIZE = (30, 40)  # the diagonal is 50
TWO_PIXELS = 2 / 50


def lines(*rows: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Horizontal lines through the whole image."""
    value = np.zeros(size, np.float32)
    value[list(rows)] = 1
    return value


def measure(*pairs: tuple[np.ndarray, np.ndarray], annotators: Annotators = "one") -> dict[str, float]:
    metric = BoundaryF(TWO_PIXELS, annotators)
    for pair in pairs:
        guess, truth = (torch.from_numpy(x)[None, None] for x in pair)
        metric.update(guess, truth, torch.ones_like(truth, dtype=torch.bool))
    return metric.compute()


def pooled_f(right: float, predicted: float, found: float, true: float) -> float:
    precision, recall = right / predicted, found / true
    return 200 * precision * recall / (precision + recall)


# -- by hand -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("shift", "f"), [(0, 100.0), (1, 100.0), (2, 100.0), (3, 0.0)])
def test_a_shifted_line_is_right_up_to_the_distance(shift: int, f: float) -> None:
    values = measure((lines(10 + shift), lines(10)))
    assert values["odsF"] == values["oisF"] == pytest.approx(f)


def test_a_double_response_is_matched_once() -> None:
    # Both lines are within reach of the true one, which has as many pixels as each of them.
    assert measure((lines(9, 11), lines(10)))["odsF"] == pytest.approx(pooled_f(40, 80, 40, 40))


def test_nothing_predicted_or_nothing_true_is_zero() -> None:
    nothing = np.zeros(SIZE, np.float32)
    assert measure((nothing, lines(3))) == {"odsF": 0, "oisF": 0, "AP": 0}
    # Lines of probability 1 are predicted at every threshold.
    assert measure((lines(3), nothing)) == {"odsF": 0, "oisF": 0, "AP": 0}
    assert all(np.isnan(value) for value in measure((nothing, nothing)).values())


def test_an_image_without_a_boundary_costs_precision() -> None:
    empty = np.zeros(SIZE, np.float32)
    assert measure((lines(10), lines(10)), (lines(5), empty))["odsF"] == pytest.approx(pooled_f(40, 80, 40, 40))


def test_each_image_has_its_own_best_threshold_for_ois_only() -> None:
    # The true line is strong in one image and weak in the other, the wrong line in between.
    first, second = 0.9 * lines(5) + 0.5 * lines(20), 0.3 * lines(5)
    values = measure((first, lines(5)), (second, lines(5)))
    assert values["oisF"] == pytest.approx(100)
    # Either all three lines (2 of 3 right, 2 of 2 found) or the strongest (1 of 1, 1 of 2).
    assert values["odsF"] == pytest.approx(max(pooled_f(80, 120, 80, 80), pooled_f(40, 40, 40, 80)))
    # Precision is 1 up to a recall of a half, then 2/3.
    assert values["AP"] == pytest.approx(100 * (51 + 50 * 2 / 3) / 101)


def test_a_thick_response_is_one_line() -> None:
    assert measure((lines(9, 10, 11), lines(10)))["odsF"] > 97
    blurred = ndimage.gaussian_filter1d(lines(10), 2, axis=0)
    assert measure((blurred / blurred.max(), lines(10)))["odsF"] == pytest.approx(100)


def test_pixels_without_a_label_count_for_nothing() -> None:
    metric = BoundaryF(TWO_PIXELS)
    valid = torch.ones(1, 1, *SIZE, dtype=torch.bool)
    valid[..., 15:, :] = False
    metric.update(torch.from_numpy(lines(5, 20))[None, None], torch.from_numpy(lines(5, 25))[None, None], valid)
    assert metric.compute()["odsF"] == pytest.approx(100)


def test_several_annotators_share_the_predicted_pixels() -> None:
    # Two people drew lines at 9 and 11; a prediction at 10 is right for both of them.
    mean = 0.5 * lines(9, 11)
    assert measure((lines(10), mean), annotators="mean")["odsF"] == pytest.approx(100)
    # One person alone drew the line at 20: half of one annotator's pixels, a quarter of the weight of 1 + 1.
    values = measure((lines(10), 1 * lines(10) + 0.5 * lines(20)), annotators="mean")
    assert values["odsF"] == pytest.approx(pooled_f(40, 40, 40, 60), rel=3e-3)
    # What a single annotator drew, too, makes a prediction right.
    assert measure((lines(20), lines(10) + 0.2 * lines(20)), annotators="mean")["odsF"] == pytest.approx(
        pooled_f(40, 40, 8, 48), rel=3e-3
    )


def test_labels_of_one_annotator_are_the_same_either_way() -> None:
    rng = np.random.default_rng(0)
    truth = thin(ndimage.gaussian_filter(rng.normal(size=SIZE), 2) > 0.05).astype(np.float32)
    guess = np.clip(ndimage.gaussian_filter(truth, 1) + 0.3 * rng.random(SIZE), 0, 1).astype(np.float32)
    one, mean = measure((guess, truth)), measure((guess, truth), annotators="mean")
    assert one == pytest.approx(mean)


# -- against an independent matching -----------------------------------------------------------------------------------
def brute_force(guess: np.ndarray, truth: np.ndarray, reach: float) -> int:
    """The size of a largest matching, by augmenting paths (Kuhn)."""
    left, right = np.argwhere(guess), np.argwhere(truth)
    near = [[j for j, b in enumerate(right) if math.dist(a, b) <= reach] for a in left]
    partner: dict[int, int] = {}

    def augment(i: int, tried: set[int]) -> bool:
        for j in near[i]:
            if j not in tried:
                tried.add(j)
                if j not in partner or augment(partner[j], tried):
                    partner[j] = i
                    return True
        return False

    return sum(augment(i, set()) for i in range(len(left)))


@examples(25)
@given(seed=st.integers(0, 10**6), share=st.sampled_from([0.1, 0.3, 0.6]))
def test_the_matching_is_the_largest(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    size, distance = (9, 12), 0.12  # 1.8 pixels
    guess, truth = rng.random(size).astype(np.float32), (rng.random(size) < share).astype(np.float32)
    valid = rng.random(size) > 0.1
    counts = boundary_counts(guess, truth, valid, (0.3, 0.6), distance)
    drawn = thin((truth > 0.5) & valid)
    for (right, predicted, found, true), level in zip(counts, (0.3, 0.6), strict=True):
        shown = thin(ridge(guess, 0.3) & valid & (guess > level))
        assert (predicted, true) == (shown.sum(), drawn.sum())
        assert right == found == brute_force(shown, drawn, distance * 15)


# -- thinning ----------------------------------------------------------------------------------------------------------
@examples(40)
@given(seed=st.integers(0, 10**6), smooth=st.sampled_from([0, 1, 2]))
def test_thinning_keeps_what_is_connected_and_thin_lines(seed: int, smooth: int) -> None:
    noise = np.random.default_rng(seed).normal(size=(24, 31))
    mask = ndimage.gaussian_filter(noise, smooth) > 0
    lean = thin(mask)
    assert not (lean & ~mask).any()
    np.testing.assert_array_equal(thin(lean), lean)
    pieces, count = ndimage.label(mask, np.ones((3, 3)))
    assert ndimage.label(lean, np.ones((3, 3)))[1] == count
    assert np.unique(pieces[lean]).size == count
    # A block of 3 by 3 is left only where something touches it at all four sides, which happens in noise: about once in
    # 300 masks of this size, and of smooth shapes never.
    blocks = np.argwhere(ndimage.binary_erosion(lean, np.ones((3, 3))))
    for row, column in blocks:
        around = np.pad(lean, 1)[row - 1 : row + 4, column - 1 : column + 4]
        assert all(side[1:4].any() for side in (around[0], around[4], around[:, 0], around[:, 4]))
    assert smooth < 2 or len(blocks) == 0


def test_thinning_keeps_a_block_that_something_touches_at_all_sides() -> None:
    knot = np.array(
        [
            [0, 0, 1, 0, 1, 0, 0],
            [0, 0, 0, 1, 0, 0, 1],
            [1, 1, 1, 1, 1, 1, 0],
            [0, 0, 1, 1, 1, 0, 0],
            [0, 1, 1, 1, 1, 1, 1],
            [1, 0, 0, 1, 0, 0, 0],
            [0, 0, 1, 0, 0, 0, 0],
        ],
        bool,
    )
    np.testing.assert_array_equal(thin(knot), knot)


@pytest.mark.parametrize("degrees", [0, 30, 45, 90, 120])
def test_a_ridge_is_thinned_across_whichever_way_it_runs(degrees: float) -> None:
    y, x = np.mgrid[-20:21, -20:21]
    across = x * np.sin(np.radians(degrees)) - y * np.cos(np.radians(degrees))
    kept = ridge(np.exp(-((across / 3) ** 2)), 0.05)
    inside = (abs(x) < 18) & (abs(y) < 18)
    assert (kept & inside).any()
    assert abs(across[kept & inside]).max() <= 1


def test_a_map_of_zeros_and_ones_has_no_pixel_suppressed() -> None:
    mask = np.random.default_rng(1).random((20, 20)) > 0.5
    np.testing.assert_array_equal(ridge(mask.astype(np.float32), 0.05), mask)


# -- as a metric and a task --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("annotators", ["one", "mean"])
def test_batches_ranks_and_invalid_pixels_do_not_change_it(annotators: Annotators) -> None:
    rng = np.random.default_rng(3)
    truth = (rng.random((5, 1, 16, 20)) > 0.8).astype(np.float32)
    guess = (0.4 * truth + 0.6 * rng.random(truth.shape)).astype(np.float32)
    valid = rng.random(truth.shape) > 0.2
    valid[2] = False
    assert_sums(lambda: EdgeF(0.1, annotators), *map(torch.from_numpy, (guess, truth, valid)))


def test_nothing_valid_is_nan() -> None:
    metric = EdgeF()
    blank = torch.zeros(1, 1, *SIZE)
    metric.update(blank, blank, blank > 0)
    assert all(math.isnan(value) for value in metric.compute().values())


def test_the_edge_task_has_odsf_first_and_keeps_pixelf() -> None:
    edge = build_task("edge", {"kind": "edge"})
    guess = torch.from_numpy(lines(11))[None, None]
    truth, valid = torch.from_numpy(lines(10))[None, None], torch.ones(1, 1, *SIZE, dtype=torch.bool)
    metric = build_task("edge", {"kind": "edge", "max_distance": TWO_PIXELS}).metric()
    metric.update(guess, truth, valid)
    assert metric.compute() == pytest.approx({"odsF": 100, "oisF": 100, "AP": 100, "pixelF": 0})
    assert next(iter(metric.compute())) == metric.primary == edge.metric().primary == "odsF"
    without = build_task("edge", {"kind": "edge", "max_distance": 0})
    assert isinstance(without.metric(), FMeasure)
    assert without.metric().primary == "pixelF"
    assert build_task("edge", without.spec()) == without


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"max_distance": 2}, "share of the diagonal"),
        ({"annotators": "five"}, "one, mean"),
        ({"max_distance": "x"}, "must be a number"),
    ],
)
def test_odd_settings_are_refused(settings_: dict[str, object], message: str) -> None:
    from tasktokens.errors import ConfigError

    with pytest.raises(ConfigError, match=message):
        build_task("edge", {"kind": "edge"} | settings_)


# -- real boundaries ---------------------------------------------------------------------------------------------------
@pytest.mark.skipif(not BSDS.is_dir(), reason="BSDS500 is not here")
def test_on_real_boundaries_a_perfect_prediction_is_perfect_and_a_gradient_is_not() -> None:
    perfect, gradient = BoundaryF(), BoundaryF(annotators="mean")
    # One of these makes scipy's bipartite matching run without end.
    for path in sorted((BSDS / "edge").glob("*.png"))[:3]:
        mean = torch.from_numpy(np.asarray(Image.open(path), np.float32) / 255)[None, None]
        anyone, valid = (mean > 0).float(), torch.ones_like(mean, dtype=torch.bool)
        perfect.update(anyone, anyone, valid)
        grey = np.asarray(Image.open(BSDS / "image" / f"{path.stem}.jpg").convert("L"), np.float32)
        magnitude = ndimage.gaussian_gradient_magnitude(grey, 2)
        gradient.update(torch.from_numpy(magnitude / magnitude.max())[None, None], mean, valid)
    assert perfect.compute() == {"odsF": 100, "oisF": 100, "AP": 100}
    assert 40 < gradient.compute()["odsF"] < 75
    assert gradient.compute()["oisF"] >= gradient.compute()["odsF"]
