"""Rules of visible labels keep their word for any labels; any table is read or a data error."""

from __future__ import annotations

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from any_input import quick
from tasktokens.data.visibility import draw_visible, load_visible, published_visible, save_visible
from tasktokens.datasets.cityscapes import PUBLISHED as CITYSCAPES
from tasktokens.datasets.manifest import read_manifest
from tasktokens.datasets.nyud.files import PUBLISHED as NYUD
from tasktokens.datasets.pascal_context.dataset import PUBLISHED as PASCAL_CONTEXT
from tasktokens.datasets.published import published_labels
from tasktokens.errors import DataError

FILES = {"nyud": NYUD, "cityscapes": CITYSCAPES, "pascal_context": PASCAL_CONTEXT}

ids = st.lists(
    st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=8),
    min_size=1,
    max_size=12,
    unique=True,
)
TASKS = ("a", "b", "c", "d")


@quick
@given(ids=ids, data=st.data())
def test_every_rule_keeps_its_word_for_any_labels_that_there_are(ids: list[str], data: st.DataObject) -> None:
    has = {id: data.draw(st.sets(st.sampled_from(TASKS))) for id in ids}
    available = {task: {id: None for id in ids if task in has[id]} for task in TASKS}
    rule = data.draw(st.sampled_from(["one", "random", "full", "0.4"]))
    try:
        split = draw_visible(ids, available, rule, data.draw(st.integers(0, 99)))
    except DataError as error:
        assert "no labelled image" in str(error)  # noqa: PT017 - a task may have no label at all
        return
    assert list(split) == ids
    for id, seen in split.items():
        assert set(seen) <= has[id]
        assert len(set(seen)) == len(seen)
        if rule == "one":
            assert len(seen) == min(1, len(has[id]))
        if rule == "full":
            assert set(seen) == has[id]
        if rule == "random" and has[id]:
            assert 1 <= len(seen) <= max(1, min(len(has[id]), len(TASKS) - 1))
    if rule == "0.4":
        for task in TASKS:
            assert sum(task in seen for seen in split.values()) == round(0.4 * len(available[task]))


@quick
@given(ids=ids, data=st.data())
def test_a_split_comes_back_from_its_file(
    ids: list[str], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    split = {id: tuple(sorted(data.draw(st.sets(st.sampled_from(TASKS))))) for id in ids}
    path = tmp_path_factory.mktemp("split") / "s.csv"
    if "\ufeff" in "".join(ids):  # reading leaves it out
        with pytest.raises(DataError, match="holds U"):
            save_visible(path, split, TASKS)
        return
    save_visible(path, split, TASKS)
    assert load_visible(path, ids, dict.fromkeys(TASKS, dict.fromkeys(ids))) == split


@quick
@given(
    content=st.binary(max_size=200)
    | st.text("id,ab01\"'\n\r\0 ", max_size=60).map(lambda text: ("id,a,b\n" + text).encode())
)
def test_any_table_is_read_or_a_data_error(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("table") / "t.csv"
    path.write_bytes(content)
    for read in (
        lambda: load_visible(path, ["i", "d"], {"a": {"i": None}, "b": {}}),
        lambda: read_manifest(path, ["a"], [".png"], [".png"]),
    ):
        try:
            read()
        except DataError as error:
            assert str(path) in str(error)  # noqa: PT017


@pytest.mark.parametrize(("name", "rule"), [(name, rule) for name, rules in FILES.items() for rule in rules])
def test_a_published_split_keeps_the_rule_of_its_name(name: str, rule: str) -> None:
    from importlib.resources import files

    text = (files("tasktokens") / "assets" / "splits" / FILES[name][rule]).read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    key, *tasks = rows[0]
    names = [row[key] for row in rows]
    split = published_labels(FILES[name], names)[rule]
    available = {task: dict.fromkeys(names) for task in tasks}
    shown = published_visible(names, available, split, rule)
    assert list(shown) == names
    counts = {len(seen) for seen in shown.values()}
    assert counts == {1} if rule == "one" else counts <= set(range(1, len(tasks) + 1))
    half = published_visible(names[::2], available, split, rule)
    assert half == {id: shown[id] for id in names[::2]}
