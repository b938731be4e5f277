"""Which labels a run may see."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasktokens.data.visibility import VisibleLabels, draw_visible, load_visible, save_visible
from tasktokens.errors import DataError

TASKS = ("semseg", "depth", "normals")
Available = dict[str, dict[str, object]]


@st.composite
def availability(draw: st.DrawFn) -> tuple[list[str], Available]:
    """Some images, any subset of their labels existing, one image at least with all of them."""
    ids = [f"i{n}" for n in range(draw(st.integers(4, 30)))]
    chosen = draw(st.lists(st.sets(st.sampled_from(TASKS)), min_size=len(ids), max_size=len(ids)))
    # Three images with everything, so that no rule has to leave a task without any label.
    chosen[:3] = [set(TASKS)] * 3
    available: Available = {
        task: {id: None for id, has in zip(ids, chosen, strict=True) if task in has} for task in TASKS
    }
    available["depth"]["foreign"] = None  # a label of an image outside the split
    return ids, available


def full(count: int, tasks: tuple[str, ...] = TASKS) -> tuple[list[str], Available]:
    ids = [f"i{n}" for n in range(count)]
    return ids, {task: dict.fromkeys(ids) for task in tasks}


def check_exists(split: VisibleLabels, ids: list[str], available: Available) -> None:
    """Every image is listed, in order; only labels that exist are seen, each once, in the order of the tasks."""
    assert list(split) == ids
    for id, seen in split.items():
        assert list(seen) == [task for task in available if task in seen]
        assert all(id in available[task] for task in seen)


def how_many(id: str, available: Available) -> int:
    return sum(id in labels for labels in available.values())


@given(drawn=availability(), seed=st.integers(0, 1000), rule=st.sampled_from(["one", "random", "full", "0.5", "1"]))
def test_only_existing_labels_are_drawn_and_the_draw_is_repeatable(
    drawn: tuple[list[str], Available], seed: int, rule: str
) -> None:
    ids, available = drawn
    try:
        split = draw_visible(ids, available, rule, seed)
    except DataError as error:
        assert "no labelled image" in str(error)  # noqa: PT017 - a lawful end of random draws
        assert rule in ("random", "0.5")
        return
    check_exists(split, ids, available)
    assert split == draw_visible(ids, available, rule, seed)


@given(drawn=availability(), seed=st.integers(0, 1000))
def test_one_means_exactly_one_where_there_is_any(drawn: tuple[list[str], Available], seed: int) -> None:
    ids, available = drawn
    split = draw_visible(ids, available, "one", seed)
    assert all(len(seen) == min(1, how_many(id, available)) for id, seen in split.items())


@given(count=st.integers(3, 60), seed=st.integers(0, 1000))
def test_one_is_even_over_the_tasks_when_all_labels_exist(count: int, seed: int) -> None:
    counts = Counter(task for seen in draw_visible(*full(count), "one", seed).values() for task in seen)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_one_evens_out_what_scarce_files_allow() -> None:
    ids, available = full(30)
    available["depth"] = dict.fromkeys(ids[:5])
    available["semseg"] = dict.fromkeys(ids[:20])
    counts = Counter(task for seen in draw_visible(ids, available, "one", 0).values() for task in seen)
    assert counts["depth"] == 5
    assert sum(counts.values()) == 30
    assert abs(counts["semseg"] - counts["normals"]) <= 1


@given(drawn=availability(), seed=st.integers(0, 1000))
def test_random_means_some_but_not_all_tasks(drawn: tuple[list[str], Available], seed: int) -> None:
    ids, available = drawn
    try:
        split = draw_visible(ids, available, "random", seed)
    except DataError:
        return
    for id, seen in split.items():
        has = how_many(id, available)
        assert min(1, has) <= len(seen) <= min(has, len(TASKS) - 1)


def test_random_draws_every_number_of_labels() -> None:
    numbers = Counter(len(seen) for seen in draw_visible(*full(300, ("a", "b", "c", "d")), "random", 0).values())
    assert numbers.keys() == {1, 2, 3}
    assert min(numbers.values()) > 60


@given(drawn=availability())
def test_full_means_every_label_that_exists(drawn: tuple[list[str], Available]) -> None:
    ids, available = drawn
    split = draw_visible(ids, available, "full", 0)
    assert all(len(seen) == how_many(id, available) for id, seen in split.items())


@given(share=st.floats(0.1, 1), seed=st.integers(0, 100))
def test_a_fraction_is_that_share_of_each_tasks_labels(share: float, seed: int) -> None:
    ids, available = full(40)
    available["depth"] = dict.fromkeys(ids[:20])
    split = draw_visible(ids, available, str(share), seed)
    for task in TASKS:
        assert sum(task in seen for seen in split.values()) == round(share * len(available[task]))


def test_other_seeds_draw_other_labels() -> None:
    splits = [draw_visible(*full(40), rule, seed) for rule in ("one", "random", "0.5") for seed in (0, 1)]
    assert all(splits[i] != splits[i + 1] for i in (0, 2, 4))


def test_the_draw_of_seed_0_does_not_change_between_versions() -> None:
    """Splits must stay comparable: another result here changes what every published number was trained on."""
    ids, available = full(6)
    drawn = {rule: draw_visible(ids, available, rule, 0) for rule in ("one", "random", "0.5")}
    letters = {
        rule: " ".join("".join(task[0] for task in seen) or "-" for seen in split.values())
        for rule, split in drawn.items()
    }
    assert letters == {"one": "s s d d n n", "random": "dn dn sn sd d dn", "0.5": "- sdn s dn d sn"}


@given(drawn=availability(), seed=st.integers(0, 1000))
def test_a_saved_split_is_loaded_back(
    tmp_path_factory: pytest.TempPathFactory, drawn: tuple[list[str], Available], seed: int
) -> None:
    ids, available = drawn
    split = draw_visible(ids, available, "one", seed)
    path = tmp_path_factory.getbasetemp() / "split.csv"
    save_visible(path, split, TASKS)
    assert load_visible(path, ids, available) == split
    assert draw_visible(ids, available, str(path), seed + 1) == split


def test_odd_ids_survive_the_csv(tmp_path: Path) -> None:
    ids = ["a,b", 'quote"d', "küche/0 1", "new\nline"]
    available: Available = {"semseg": dict.fromkeys(ids)}
    split = dict.fromkeys(ids, ("semseg",))
    save_visible(tmp_path / "s.csv", split, ["semseg"])
    assert load_visible(tmp_path / "s.csv", ids, available) == split


def test_images_that_the_csv_does_not_list_have_no_label_and_unknown_ones_are_left(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("id,normals,semseg,depth\ni1,0,1,1\nelsewhere,1,1,1\n")
    split = load_visible(tmp_path / "s.csv", *full(3))
    assert split == {"i0": (), "i1": ("semseg", "depth"), "i2": ()}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,semseg,depth\ni0,1,1\n", "no column 'normals'"),
        ("semseg,depth,normals\n1,1,1\n", "no column 'id'"),
        ("id,semseg,depth,normals\n", "must have rows"),
        ("", "has no rows"),
        ("id,semseg,depth,normals\ni0,1,1,1\ni9,0,0,1\n", "line 3.*i9.*normals"),
        ("id,semseg,depth,normals\ni0,1\n", "line 2"),
        ("id,semseg,depth,normals\ni0,yes,no,no\n", "line 2.*yes"),
    ],
)
def test_a_csv_that_does_not_fit_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text(content)
    ids, available = full(10)
    del available["normals"]["i9"]
    with pytest.raises(DataError, match=message):
        load_visible(tmp_path / "s.csv", ids, available)


def test_a_missing_csv_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv"):
        draw_visible(*full(3), str(tmp_path / "none.csv"), 0)


@pytest.mark.parametrize("rule", ["half", "0", "-0.5", "1.5", "nan", "", "One"])
def test_an_unknown_rule_says_which_there_are(rule: str) -> None:
    with pytest.raises(DataError, match="one, random, full"):
        draw_visible(*full(5), rule, 0)


@pytest.mark.parametrize("rule", ["one", "random", "full", "0.5"])
def test_a_task_without_any_label_is_an_error_that_names_it(rule: str) -> None:
    ids, available = full(9)
    available["depth"] = {"foreign": None}
    with pytest.raises(DataError, match="task 'depth'"):
        draw_visible(ids, available, rule, 0)


def test_a_csv_may_list_other_splits_but_no_image_that_does_not_exist(tmp_path: Path) -> None:
    """A spreadsheet makes 7 of 007: passed over in silence, its labels would be lost."""
    ids = ["006", "007", "008"]
    available: Available = {"semseg": dict.fromkeys(ids)}
    path = tmp_path / "S.CSV"
    path.write_text("id,semseg\n006,1\n008,1\n")
    assert draw_visible(ids[:2], available, str(path), 0, known=ids) == {"006": ("semseg",), "007": ()}
    path.write_text("id,semseg\n006,1\n7,1\n")
    with pytest.raises(DataError, match=r"line 3: no image has the id '7' .did you mean '007'"):
        draw_visible(ids[:2], available, str(path), 0, known=ids)
