"""JSON without NaN and infinity, at any depth, in every file and printed text."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tasktokens
from tasktokens.inference.evaluate import write_results
from tasktokens.training.log import RunLog
from tasktokens.utils import strict_json

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def strict(text: str) -> Any:
    """Parsed as the standard says: `NaN` and `Infinity` are errors."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def same_or_null(value: Any, found: Any) -> bool:
    if isinstance(value, float) and not math.isfinite(value):
        return found is None
    if isinstance(value, dict):
        return value.keys() == found.keys() and all(same_or_null(each, found[key]) for key, each in value.items())
    if isinstance(value, list):
        return len(value) == len(found) and all(map(same_or_null, value, found))
    return bool(value == found)


@given(plain)
def test_numbers_that_json_does_not_have_are_null_and_all_else_comes_back(value: Any) -> None:
    assert same_or_null(value, strict(strict_json.dumps(value)))


def test_what_has_no_json_form_is_refused() -> None:
    with pytest.raises(TypeError):
        strict_json.dumps({"path": object()})
    assert strict_json.dumps({"path": Path("a")}, default=str) == '{"path": "a"}'


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_evaluations_and_logs_hold_null(bad: float, tmp_path: Path) -> None:
    write_results(tmp_path / "evaluation-test.json", {"depth": {"absErr": bad, "RMSE": 1.5}})
    assert strict((tmp_path / "evaluation-test.json").read_text()) == {"depth": {"absErr": None, "RMSE": 1.5}}
    log = RunLog(tmp_path / "metrics.jsonl", quiet=True)
    log.row({"step": 1, "score": bad, "validation": {"depth": {"absErr": bad}}})
    log.close()
    row = {"step": 1, "score": None, "validation": {"depth": {"absErr": None}}}
    assert strict((tmp_path / "metrics.jsonl").read_text()) == row


def test_nothing_in_the_package_writes_json_in_another_way() -> None:
    package = Path(tasktokens.__file__).parent
    for path in package.rglob("*.py"):
        if path.name != "strict_json.py":
            assert not re.search(r"(?<!strict_)json\.dumps?\(", path.read_text(encoding="utf-8")), path
