"""Any description of a task is right or a config error; any array is taken or a label error."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from any_input import examples, plain
from tasktokens.errors import ConfigError
from tasktokens.tasks import KINDS, build_task


@examples(150)
@given(kind=st.sampled_from(sorted(KINDS)) | plain, data=st.data())
def test_any_description_of_a_task_is_right_or_a_config_error(kind: Any, data: st.DataObject) -> None:
    known = [
        "range",
        "bins",
        "scale",
        "offset",
        "inverse",
        "classes",
        "void",
        "ids",
        "colours",
        "centres",
        "frame",
        "flip",
        "white",
        "unit",
        "weight",
        "threshold",
        "discovered_weight",
        "max_distance",
        "x",
    ]
    spec = data.draw(st.dictionaries(st.sampled_from(known), plain, max_size=3))
    good = {"depth": {"range": [1, 10]}, "regression": {"range": [0, 1]}, "classes": {"classes": ["a", "b"]}}
    base = good.get(kind, {}) if isinstance(kind, str) and data.draw(st.booleans()) else {}
    try:
        task = build_task("t", {"kind": kind, **base, **spec})
    except ConfigError as error:
        assert "'t'" in str(error)  # noqa: PT017
        return
    assert 0 < task.num_tokens <= 4096
    assert build_task("t", task.spec()).spec() == task.spec()
