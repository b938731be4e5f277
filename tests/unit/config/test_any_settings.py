"""Any settings, overrides and YAML: read as they are, or a config error."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from any_input import examples, plain, quick
from tasktokens.config import Config, load_config, parse_config, to_yaml
from tasktokens.errors import ConfigError
from tasktokens.utils.safe_io import load_yaml

names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
paths = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)


def positive(most: float) -> st.SearchStrategy[float]:
    return st.floats(0, most, exclude_min=True)


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    """Settings that are right."""
    low, high = sorted((draw(st.floats(0.1, 4)), draw(st.floats(0.1, 4))))
    htt = {
        "name": "htt",
        "stage1_steps": draw(st.integers(1, 10**9)),
        "ema": draw(st.floats(0, 0.999)),
        "schedule": draw(st.sampled_from(["two-stage", "online"])),
        "confidence_loss": draw(st.floats(0, 1e9)),
    }
    data = {
        "kind": draw(st.sampled_from(["folder", "nyud", "cityscapes", "pascal_context"])),
        "root": draw(st.none() | paths),
        "size": draw(st.tuples(st.integers(1, 2**15), st.integers(1, 2**15))),
        "labels": draw(st.sampled_from(["one", "random", "full", "0.25", "a b.csv"])),
        "label_seed": draw(st.none() | st.integers(0, 10**6)),
        "workers": draw(st.integers(0, 64)),
        "holdout": draw(st.floats(0, 0.99)),
        "augmentation": {
            "scale": (low, high),
            "late_scale": draw(st.none() | st.just((low, high))),
            "late_from": draw(st.floats(0, 1)),
            "photometric": draw(st.floats(0, 1)),
            "flip": draw(st.booleans()),
        },
    }
    return {
        "seed": draw(st.integers(0, 2**29 - 1)),
        "data": data,
        "tasks": draw(st.none() | st.dictionaries(names, st.fixed_dictionaries({"weight": positive(1e6)}), max_size=3)),
        "method": draw(st.sampled_from([htt, {"name": "mtl", "steps": 5}])),
        "optim": {
            "lr": draw(positive(1e300)),
            "batch_size": draw(st.integers(1, 10**6)),
            "clip": draw(positive(1e300)),
        },
        "run": {"dir": draw(paths), "evaluate": draw(st.none() | names)},
    }


@quick
@given(values=configs())
def test_settings_come_back_from_yaml_as_they_were(
    values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = parse_config(values)
    path = tmp_path_factory.mktemp("config") / "c.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(path) == config


def _flat(values: dict[str, Any], above: str = "") -> list[tuple[str, Any]]:
    pairs = []
    for key, value in values.items():
        pairs += _flat(value, f"{above}{key}.") if isinstance(value, dict) and value else [(f"{above}{key}", value)]
    return pairs


@quick
@given(values=configs(), data=st.data())
def test_overrides_say_what_a_file_says_in_any_order(values: dict[str, Any], data: st.DataObject) -> None:
    flat = [(key, value) for key, value in _flat(values) if key.count(".") or key == "seed"]
    shuffled = data.draw(st.permutations(flat))
    config = load_config(None, [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in shuffled])
    assert config == parse_config({key: value for key, value in values.items() if key != "tasks" or value})


top = st.sampled_from([*Config.model_fields, "x", ""])


@examples(150)
@given(
    values=st.dictionaries(top, plain, max_size=4) | st.dictionaries(top, st.dictionaries(st.text(max_size=5), plain))
)
def test_any_settings_are_right_or_a_config_error(values: dict[str, Any]) -> None:
    try:
        config = parse_config(values)
    except ConfigError:
        return
    assert parse_config(yaml.safe_load(to_yaml(config))) == config


_KEYS = sorted(key for key, _ in _flat(Config().model_dump(mode="json")))


@examples(150)
@given(
    key=st.sampled_from(_KEYS) | st.text(max_size=10), value=st.text(max_size=10) | plain.map(lambda v: json.dumps(v))
)
@example(key="data.kind", value=json.dumps("\U00010000"))
def test_any_override_is_right_or_a_config_error(key: str, value: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(load_config(None, [f"{key}={value}"]), Config)


@examples(150)
@given(text=st.text(max_size=60) | st.from_regex(r"([a-z&*!<:\-\[\]{},? \n\d\"'|>]{0,40})", fullmatch=True))
def test_any_text_is_yaml_as_pyyaml_reads_it_or_a_value_error(text: str) -> None:
    try:
        value = load_yaml(text)
    except ValueError:
        return
    if not re.search(r"\b(?:yes|no|on|off)\b|[0-9=]", text, re.IGNORECASE):  # words and numbers we read otherwise
        assert repr(value) == repr(yaml.safe_load(text))
