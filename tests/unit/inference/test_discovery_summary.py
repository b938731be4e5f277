"""What a summary says of confidences, against NumPy on all pixels at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from any_input import examples
from tasktokens.inference.discovery_summary import SHARES, histogram, summarise


@examples(50)
@given(st.integers(0, 2**31), st.integers(1, 4), st.sampled_from([0.2, 1.0, 5.0]), st.floats(0, 1))
def test_proposed_thresholds_fill_what_they_say_and_the_next_step_does_not(
    seed: int, images: int, power: float, threshold: float
) -> None:
    rng = np.random.default_rng(seed)
    maps = [rng.random(rng.integers(1, 20, 2)).astype(np.float32) ** power for _ in range(images)]
    for one in maps:
        one[rng.random(one.shape) < 0.1] = 0
    rows = [[str(i), "t", float((m > threshold).mean()), float(m.mean()), histogram(m)] for i, m in enumerate(maps)]
    (summary,) = summarise(rows, {"t": threshold})
    pixels = np.concatenate([m.ravel() for m in maps])
    assert summary.images == images
    assert summary.filled == pytest.approx((pixels > threshold).mean(), abs=1e-4)
    assert summary.confidence == pytest.approx(pixels.mean(), abs=1e-4)
    for share in SHARES:
        if str(share) in summary.fills:
            assert (pixels > np.float32(summary.fills[str(share)]) - 1e-6).mean() >= share
            assert (pixels > np.float32(summary.fills[str(share)] + 0.01) + 1e-6).mean() < share
        else:
            assert (pixels > 0).mean() < share


def test_a_warning_says_what_would_fill_and_only_where_next_to_nothing_was_filled() -> None:
    sure = np.linspace(0.005, 0.995, 100, dtype=np.float32)[None]
    for threshold, filled, warned in ((0.5, 0.5, False), (0.98, 0.02, False), (1.0, 0.0, True)):
        (summary,) = summarise([["a", "depth", filled, 0.5, histogram(sure)]], {"depth": threshold})
        assert (summary.warning is not None) == warned
    assert summary.warning is not None
    assert "depth=0.8 would fill 20%, depth=0.5 would fill 50%, depth=0.2 would fill 80%" in summary.warning
    (summary,) = summarise([["a", "depth", 0.0, 0.0, histogram(sure * 0)]], {"depth": 0.5})
    assert "no threshold would" in str(summary.warning)
    assert summarise([], {"depth": 0.5})[0].warning is None
