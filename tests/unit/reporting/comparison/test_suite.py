"""Suites: what they share, what methods change, and what is wrong with them is said before anything runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasktokens.errors import ConfigError
from tasktokens.methods import build_method
from tasktokens.reporting.comparison.compare import cells_of
from tasktokens.reporting.comparison.suite import SHIPPED, about, read_suite, shipped, task_columns

SETTINGS = {"data": {"kind": "rooms", "train": 8, "val": 1, "test": 2}, "optim": {"lr": 0.004}}


def written(folder: Path, **values: Any) -> Path:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"settings": SETTINGS, "steps": 40, "methods": ["mtl", "htt"], **values}))
    return path


BENCHMARKS = Path(__file__).parents[4] / "benchmarks" / "suites"


@pytest.mark.parametrize("name", [*shipped(), *sorted(map(str, BENCHMARKS.glob("*.yaml")))])
def test_every_suite_is_right(name: str) -> None:
    given = {"data.root": "somewhere", "model.weights": "file.safetensors"}
    file = Path(name) if name.endswith(".yaml") else SHIPPED / f"{name}.yaml"
    needs = yaml.safe_load(file.read_text()).get("needs", [])
    suite = read_suite(name, [f"{key}={given[key]}" for key in needs])
    for method in suite.methods:
        for data in suite.data:
            config = suite.config(method, data, None, {"run.dir": "x"})
            assert build_method(config.method, {}).steps > 0


def test_methods_share_all_but_what_makes_them(tmp_path: Path) -> None:
    suite = read_suite(written(tmp_path), ["optim.batch_size=5"], steps=30)
    mtl, htt = (suite.config(method, "", None, {}) for method in ("mtl", "htt"))
    assert (mtl.optim, mtl.data, mtl.model) == (htt.optim, htt.data, htt.model)
    assert (mtl.optim.lr, mtl.optim.images) == (0.004, 5)
    assert build_method(mtl.method, {}).steps == build_method(htt.method, {}).steps == 30
    assert suite.chain("htt") == ["htt-teacher", "htt"]


def test_a_file_may_define_methods_and_data(tmp_path: Path) -> None:
    define = {"slow": {"steps": 2, "set": {"method.name": "mtl", "optim.lr": 0.001}}}
    data = {"few": {"data.train": 4}, "many": {"data.train": 9}}
    suite = read_suite(written(tmp_path, define=define, methods=["slow"], data=data))
    few, many = (suite.config("slow", name, None, {}) for name in data)
    assert build_method(few.method, {}).steps == 80
    assert few.optim.lr == 0.001
    assert (few.data.model_dump()["train"], many.data.model_dump()["train"]) == (4, 9)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"methods": ["htx"]}, "has no method 'htx' (did you mean 'htt'"),
        ({"methods": []}, "methods"),
        ({"steps": 0}, "steps"),
        ({"stps": 3}, "stps"),
        ({"define": {"a": {"steps": 1, "stages": [1, 1]}}, "methods": ["a"]}, "either steps, or stages"),
        ({"define": {"a": {"steps": 1, "set": {"optim.lrr": 1}}}, "methods": ["a"]}, "optim.lrr"),
        ({"define": {"a": {"steps": 1, "after": "a"}}, "methods": ["a"]}, "goes on from itself"),
        ({"cost": "total"}, "cannot go on from another run"),
        ({"needs": ["data.root"]}, "needs data.root=..."),
        ({"settings": 3}, "settings must be"),
        ({"reference_data": "rooms"}, "reference_data 'rooms' is no data set of it"),
        ({"reference_labels": "full"}, "reference_labels 'full' is no label setting of it; found: one"),
        ({"label_seeds": {"one": [7]}}, "leaves no label setting any of the seeds [0, 1, 2]"),
        ({"settings": "missing.yaml"}, "missing.yaml"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_suite(written(tmp_path, **values))


def test_every_shipped_suite_says_what_it_is_in_its_first_lines() -> None:
    for name in shipped():
        text = about(name)
        assert len(text) > 40
        assert "#" not in text
    with pytest.raises(ConfigError, match=r"nyud needs data.root=\.\.\..*compare --list"):
        read_suite("nyud")


def test_settings_of_another_method_do_not_reach_one_with_two_stages(tmp_path: Path) -> None:
    settings = SETTINGS | {"method": {"name": "htt", "schedule": "online", "ramp": 7}}
    suite = read_suite(written(tmp_path, settings=settings, methods=["self_training", "htt"]), steps=30)
    other = suite.config("self_training", "", None, {}).method
    assert other.name == "self_training"
    assert build_method(other, {}).steps == 30
    htt = suite.config("htt", "", None, {}).method.model_dump()
    assert (htt["schedule"], htt["ramp"]) == ("two-stage", 7)


def test_a_label_setting_may_have_fewer_seeds(tmp_path: Path) -> None:
    suite = read_suite(written(tmp_path, labels=["one", "random"], label_seeds={"random": [0]}, seeds=[0, 1]))
    found = [(cell.seed, cell.labels, cell.method) for cell in cells_of(suite)]
    assert found == [
        (0, "one", "mtl"), (0, "one", "htt"), (0, "random", "mtl"), (0, "random", "htt"),
        (1, "one", "mtl"), (1, "one", "htt"),
    ]  # fmt: skip


def test_an_unknown_suite_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'quick'"):
        read_suite("quik")


def test_columns_name_the_task_where_a_metric_stands_twice() -> None:
    assert task_columns([("semseg", "mIoU"), ("depth", "absErr")]) == {"semseg": "mIoU", "depth": "absErr"}
    assert task_columns([("a", "mIoU"), ("b", "mIoU")]) == {"a": "a/mIoU", "b": "b/mIoU"}
