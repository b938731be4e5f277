"""Tables: means over seeds, changes against the reference, and the forms in which they are written."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest

from tasktokens.errors import ConfigError, DataError
from tasktokens.reporting.comparison.tables import (
    header,
    lines,
    parse_list,
    read_results,
    to_csv,
    to_latex,
    to_markdown,
    with_delta,
)  # fmt: skip

HIGHER = {"mIoU": True, "absErr": False}


def row(method: str, seed: int, miou: float | None, error: float, labels: str = "one") -> dict[str, object]:
    return {"method": method, "data": "", "labels": labels, "seed": seed, "mIoU": miou, "absErr": error}


ROWS = [row("stl", 0, 20.0, 0.5), row("stl", 1, 30.0, 0.7), row("htt", 0, 30.0, 0.3), row("htt", 1, 25.0, 0.6)]


def test_changes_are_against_the_mean_of_the_reference() -> None:
    found = {(r["method"], r["seed"]): r["delta_mtl"] for r in with_delta(ROWS, "stl", HIGHER)}
    # By hand: the reference is 25 and 0.6.
    assert found["htt", 0] == pytest.approx((100 * 5 / 25 + 100 * 0.3 / 0.6) / 2)
    assert found["stl", 0] == pytest.approx((-100 * 5 / 25 + 100 * 0.1 / 0.6) / 2, abs=0.01)


def test_a_metric_of_nothing_and_a_missing_reference_give_no_change() -> None:
    assert with_delta([row("htt", 0, 1.0, 1.0)], "stl", HIGHER)[0]["delta_mtl"] is None
    found = with_delta([row("stl", 0, 20.0, 0.5), row("htt", 0, None, 0.25)], "stl", HIGHER)
    assert found[1]["delta_mtl"] == 50.0  # of depth alone


def test_lines_hold_mean_and_deviation_over_the_seeds() -> None:
    stl, htt = lines(with_delta(ROWS, "stl", HIGHER), list(HIGHER), {})
    assert stl.values["mIoU"] == pytest.approx((25.0, np.std([20, 30], ddof=1)))
    assert (htt.seeds, htt.method) == (2, "htt")
    (one,) = lines([row("mtl", 0, 1.0, 1.0)], list(HIGHER), {})
    assert math.isnan(one.values["mIoU"][1])


def test_labels_of_one_method_are_lines_of_their_own() -> None:
    found = lines([row("mtl", 0, 1.0, 1.0), row("mtl", 0, 2.0, 1.0, "0.1")], list(HIGHER), {})
    assert [line.labels for line in found] == ["one", "0.1"]
    assert "labels" in header(list(HIGHER), found)


def test_every_form_holds_the_same_numbers() -> None:
    rows = with_delta(ROWS, "stl", HIGHER)
    found = lines(rows, list(HIGHER), {})
    names = header(list(HIGHER), found)
    for text in (to_markdown(names, found), to_latex(names, found)):
        assert "27.50" in text
    assert r"delta\_mtl" in to_latex(names, found)
    read = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert [float(r["mIoU"]) for r in read] == [20.0, 30.0, 30.0, 25.0]


def test_results_of_earlier_versions_are_read(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"rows": [{"method": "mtl", "seed": 0, "labels": "one", "mIoU": 3.0, "minutes": 2.0}]}))
    (found,) = read_results(path)
    assert (found["cpu_minutes"], found["data"]) == (2.0, "")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rows": [{"seed": 0}]}', '{"rows": 3}'])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"other\.json is no results file"):
        read_results(path)


def test_lists_of_options() -> None:
    assert parse_list("--seeds", None) is None
    assert parse_list("--seeds", "0, 2", int) == [0, 2]
    for text in ("a", ",", ""):
        with pytest.raises(ConfigError, match="--seeds"):
            parse_list("--seeds", text, int)
