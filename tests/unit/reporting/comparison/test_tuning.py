"""Settings that were chosen on held-out images reach each method, its teacher too, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasktokens.errors import ConfigError
from tasktokens.reporting.comparison.suite import Suite, read_suite
from tasktokens.reporting.comparison.tuning import best_settings, with_best_settings

DATA = {"slow": {"optim.lr": 0.001, "steps": 9}, "fast": {"optim.lr": 0.004}}
ROWS = [("mtl", "slow", 1.0), ("mtl", "slow", 5.0), ("mtl", "fast", 2.0), ("htt", "slow", 1.0), ("htt", "fast", 4.0)]


def results(folder: Path, rows: list[tuple[str, str, float | None]], **suite: Any) -> Path:
    path = folder / "results.json"
    described = {"data": DATA, "split": "holdout"} | suite
    keys = ("method", "data", "delta_mtl")
    path.write_text(json.dumps({"suite": described, "rows": [dict(zip(keys, row, strict=True)) for row in rows]}))
    return path


def suite(folder: Path, *methods: str) -> Suite:
    path = folder / "mine.yaml"
    shared = {"data": {"kind": "rooms", "train": 8, "val": 1, "test": 2}, "optim": {"lr": 0.002}}
    path.write_text(yaml.safe_dump({"settings": shared, "steps": 40, "methods": list(methods)}))
    return read_suite(path)


def test_each_method_takes_what_was_best_for_it_in_the_mean_over_the_seeds(tmp_path: Path) -> None:
    assert best_settings(results(tmp_path, ROWS)) == {"mtl": {"optim.lr": 0.001}, "htt": {"optim.lr": 0.004}}
    found = with_best_settings(suite(tmp_path, "mtl", "htt", "htt-two-rounds"), results(tmp_path, ROWS))
    rates = {name: found.config(name, "", None, {}).optim.lr for name in (*found.methods, "htt-teacher")}
    assert rates == {"mtl": 0.001, "htt": 0.004, "htt-teacher": 0.004, "htt-two-rounds": 0.004}
    assert found.config("mtl", "", None, {}).method.model_dump()["steps"] == 40  # of this suite, not of the tuning


def test_every_method_is_tuned_or_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no row with delta_mtl of jtr"):
        with_best_settings(suite(tmp_path, "mtl", "jtr"), results(tmp_path, ROWS))
    with pytest.raises(ConfigError, match="no row with delta_mtl of htt"):
        with_best_settings(suite(tmp_path, "htt"), results(tmp_path, [("htt", "slow", None)]))


@pytest.mark.parametrize("other", [{"split": "test"}, {"data": {"": {}}}])
def test_what_was_chosen_on_test_images_or_among_one_is_refused(tmp_path: Path, other: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="measured on held-out images"):
        best_settings(results(tmp_path, ROWS, **other))
