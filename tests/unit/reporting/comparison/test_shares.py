"""How many labels a method saves, against NumPy's interpolation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tasktokens.reporting.comparison.shares import EqualShare, equal_share, equal_shares
from tasktokens.reporting.comparison.tables import by_share, lines, with_delta

STL = {0.05: 10.0, 0.1: 16.0, 0.25: 22.0, 0.5: 27.0, 1.0: 30.0}
SHARES, VALUES = np.array(list(STL)), np.array(list(STL.values()))


@pytest.mark.parametrize("value", [10.0, 11.0, 16.0, 20.5, 26.9, 29.0, 30.0])
def test_shares_are_interpolated_in_their_logarithm(value: float) -> None:
    assert equal_share(value, STL) == pytest.approx(math.exp(np.interp(value, VALUES, np.log(SHARES))))


def test_beyond_the_points_nothing_is_made_up() -> None:
    assert equal_share(30.1, STL) == math.inf
    assert equal_share(9.9, STL) == 0.0


def test_of_several_crossings_the_first_counts() -> None:
    """A curve that falls again by chance must not make the other method look better."""
    dented = {0.1: 10.0, 0.25: 20.0, 0.5: 15.0, 1.0: 30.0}
    assert equal_share(18.0, dented) == pytest.approx(0.1 * 2.5**0.8)


def row(method: str, labels: str, seed: int, miou: float) -> dict[str, object]:
    return {"method": method, "data": "", "labels": labels, "seed": seed, "mIoU": miou}


def test_made_up_rows_become_the_sentence() -> None:
    """HTT reaches with a tenth what single-task networks reach with a quarter."""
    rows = [row("stl", "full" if s == 1 else str(s), 0, v) for s, v in STL.items()]
    rows += [row("htt", "0.1", seed, v) for seed, v in ((0, 21.0), (1, 23.0))]
    rows += [row("htt", "full", 0, 33.0), row("htt", "0.05", 0, 9.0), row("htt", "one", 0, 5.0)]
    changed = with_delta(rows, "stl", {"mIoU": True}, labels="full")
    by_hand = {r["labels"]: 100 * (float(r["mIoU"]) - 30) / 30 for r in rows if r["method"] == "stl"}
    for each in changed:
        if each["method"] == "stl":
            assert each["delta_mtl"] == pytest.approx(by_hand[each["labels"]], abs=0.01)
    curves = by_share(lines(changed, ["mIoU"], {}), "delta_mtl")
    assert set(curves["htt"]) == {0.05, 0.1, 1.0}
    found = {each.share: each.sentence() for each in equal_shares(curves, "stl")}
    assert found == {
        0.05: "htt with 5 % of the labels is worse than stl with the fewest that were tried",
        0.1: "htt with 10 % of the labels equals stl with 25 %",
        1.0: "htt with 100 % of the labels is better than stl with all that were tried",
    }


def test_one_point_of_the_reference_is_no_curve() -> None:
    assert equal_shares({"stl": {1.0: 3.0}, "htt": {1.0: 4.0}}, "stl") == []
    assert equal_shares({"htt": {1.0: 4.0}}, "stl") == []
    assert EqualShare("a", 0.07, "b", 0.125).sentence() == "a with 7 % of the labels equals b with 12.5 %"
