"""YAML as people mean it: which plain words are text, numbers or booleans, and that what is written is read back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tasktokens.config import read_yaml
from tasktokens.datasets.folder import open_folder
from tasktokens.errors import ConfigError
from tasktokens.tasks import build_task
from tasktokens.utils.safe_io import dump_yaml, load_yaml

WORDS = ["yes", "no", "on", "off", "Yes", "NO", "On", "y", "n", "nUll", "none", "None", "tRue", "NaN", "inf", "e3", "-",
         "1e", "0x", "0xg", "1_000", "12:30", "2024-11-28", "1.2.3", "=", "+", ".", "..", "0b11", "1,5"]  # fmt: skip
VALUES: dict[str, Any] = {
    "true": True, "True": True, "FALSE": False, "null": None, "~": None, "Null": None, "0": 0, "-7": -7, "+7": 7,
    "0x1F": 31, "0o17": 15, "1e-3": 1e-3, "5e-1": 0.5, "1e1": 10.0, "1E5": 1e5, "-1.5e+2": -150.0, "1.": 1.0, ".5": 0.5,
    "-.5e1": -5.0, "00.5": 0.5, ".inf": math.inf, "-.Inf": -math.inf, "9007199254740993": 2**53 + 1,
}  # fmt: skip


@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_text(word: str) -> None:
    assert load_yaml(f"a: [x, {word}]" if word not in ("-", "=", "1,5") else f"a: [x, '{word}']")["a"][1] == word
    if word not in ("-", "1,5"):
        assert load_yaml(f"{word}: 1") == {word: 1}


@pytest.mark.parametrize("text", VALUES)
def test_a_number_or_a_constant_is_one(text: str) -> None:
    value = load_yaml(f"a: {text}")["a"]
    assert value == VALUES[text]
    assert type(value) is type(VALUES[text])
    assert math.isnan(load_yaml(".nan"))


@pytest.mark.parametrize("text", ["010", "007", "008", "-012", "+00"])
def test_a_number_that_begins_with_a_zero_is_refused(text: str) -> None:
    for written in (f"\na: [1, {text}]", f"\n{text}: a", f"\n- {text}"):
        with pytest.raises(ValueError, match=rf"line 2 has {text.replace('+', '.')}.*write {int(text)}, or"):
            load_yaml(written)
    assert load_yaml(f"a: '{text}'") == {"a": text}


@pytest.mark.parametrize(
    ("text", "key", "where"),
    [
        ("a: 1\nb: 2\na: 3\n", "a", "lines 1 and 3"),
        ("tasks:\n  depth: {kind: depth}\n  depth: {kind: edge}\n", "depth", "lines 2 and 3"),
        ("ids: {7: a, 8: b, 7: c}\n", "7", "line 1"),
        ("ids: {7: a, 0x7: b}\n", "0x7", "line 1"),
        ("- - {no: 1, 'no': 2}\n", "no", "line 1"),
        ("a: &a {x: 1}\nb:\n  <<: *a\n  y: 1\n  y: 2\n", "y", "lines 4 and 5"),
    ],
)
def test_a_key_that_stands_twice_is_an_error_that_names_it(text: str, key: str, where: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"the key '{key}' stands twice .{where}.; keep one"):
        load_yaml(text)
    (tmp_path / "dataset.yaml").write_text(text)
    with pytest.raises(ConfigError, match=f"dataset.yaml .*'{key}' stands twice"):
        read_yaml(tmp_path / "dataset.yaml")


def test_what_is_merged_may_be_overridden_and_merged_again() -> None:
    text = "a: &a {x: 1, y: 2}\nb: &b\n  <<: *a\n  x: 3\nc:\n  <<: *b\n  x: 4\n"
    assert load_yaml(text) == {"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 2}, "c": {"x": 4, "y": 2}}


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8) | st.sampled_from([*WORDS, *VALUES, "010"])
VALUE = st.recursive(
    SCALARS | TEXTS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3)
)


@given(value=VALUE)
def test_what_is_written_is_read_back(value: Any) -> None:
    assert load_yaml(dump_yaml(value)) == value
    assert load_yaml(dump_yaml({"a": value}, default_flow_style=True, width=10**9)) == {"a": value}


@given(text=TEXTS)
def test_text_is_quoted_for_other_readers_too(text: str) -> None:
    assert yaml.safe_load(dump_yaml([text])) == [text]


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("null: {kind: binary}", "'null' cannot be a task's name"),
        ("1: {kind: binary}", "'1' cannot be a task's name"),
        ("true: {kind: binary}", "'True' cannot be a task's name"),
        ("a: {kind: binary}\n  a: {kind: edge}", "'a' stands twice"),
        ("a: {kind: binary, resize: yes}", "'resize' of task 'a' must be true or false, found 'yes'"),
        ("a: {kind: depth, inverse: yes, range: [5e-1, 1e1]}", "inverse must be true or false, found 'yes'"),
        ("a: {kind: classes, classes: [x], ids: {010: x}}", "write 10, or '010' in quotes"),
    ],
)
def test_a_description_with_such_words_is_refused_in_one_sentence(tasks: str, message: str, own_folder: Path) -> None:
    (own_folder / "dataset.yaml").write_text(f"tasks:\n  {tasks}\n")
    with pytest.raises(ConfigError, match=message):
        open_folder(own_folder)


def test_yes_and_no_are_classes_and_on_is_a_task(own_folder: Path) -> None:
    (own_folder / "dataset.yaml").write_text(
        "tasks:\n  on: {kind: classes, classes: [yes, no], ids: {0: no, 1: yes, 2: no}, folder: semseg}\n"
        "  depth: {kind: depth, scale: 1e-3, range: [5e-1, 1e1]}\n"
    )
    tasks = open_folder(own_folder).tasks
    assert tasks["on"].spec() == {
        "kind": "classes", "classes": ["yes", "no"], "void": [255], "ids": {0: 1, 1: 0, 2: 1}
    }  # fmt: skip
    assert {key: tasks["depth"].spec()[key] for key in ("scale", "range")} == {"scale": 0.001, "range": [0.5, 10.0]}


@pytest.mark.parametrize("word", [*(v for v in VALUES if VALUES[v] is not None), ".nan", "1.50"])
def test_the_name_of_a_class_is_what_is_written(word: str, own_folder: Path) -> None:
    text = (own_folder / "dataset.yaml").read_text()
    (own_folder / "dataset.yaml").write_text(text.replace("- floor", f"- {word}"))
    task = open_folder(own_folder).tasks["semseg"]
    assert task.class_names()[0] == word
    spec = load_yaml(dump_yaml(task.spec()))
    assert build_task("semseg", spec) == task
    colours = f"{{kind: classes, colours: {{{word}: [0, 0, 0], left: [1, 1, 1], right: [2, 2, 2]}}}}"
    assert build_task("semseg", load_yaml(colours)).class_names() == (word, "left", "right")
    whole = isinstance(VALUES.get(word), int) and not isinstance(VALUES.get(word), bool)
    if not whole:  # numbers are those of classes there
        named = f"{{kind: classes, classes: [a, {word}], ids: {{7: a, 9: {word}}}, mirror: [[a, {word}]]}}"
        assert build_task("semseg", load_yaml(named)).spec()["ids"] == {7: 0, 9: 1}
