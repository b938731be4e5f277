"""The table that tells given labels from discovered ones: what is written is read, and nothing else."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasktokens.datasets.provenance import (
    COLUMNS,
    DECIDED,
    PROVENANCE,
    SOURCES,
    ProvenanceRow,
    count_sources,
    read_provenance,
    update_provenance,
    write_provenance,
)
from tasktokens.errors import DataError

IDS = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1).filter(str.strip)
SHARES = st.none() | st.integers(0, 10_000).map(lambda n: n / 10_000)
ROWS = st.builds(
    ProvenanceRow,
    id=IDS,
    task=st.sampled_from(["semseg", "depth"]),
    source=st.sampled_from(SOURCES),
    by=st.sampled_from(["", "network", "theirs; others"]),
    model=st.sampled_from(["", "ab" * 32]),
    views=st.sampled_from(["", "[[1.0, false], [1.25, true]]"]),
    confidence=SHARES,
    coverage=SHARES,
    disagreement=SHARES,
    date=st.sampled_from(["", "2026-11-28", "2026-11-28T10:00:00+00:00"]),
)


@given(rows=st.lists(ROWS, max_size=5, unique_by=lambda row: row.key))
def test_what_is_written_is_read(rows: list[ProvenanceRow], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("table")
    write_provenance(folder, rows)
    assert list(read_provenance(folder).values()) == rows
    with (folder / PROVENANCE).open(newline="", encoding="utf-8") as file:
        plain = list(csv.DictReader(file))
    assert [(line["id"], line["source"]) for line in plain] == [(row.id, row.source) for row in rows]
    before = (folder / PROVENANCE).read_bytes()
    write_provenance(folder, read_provenance(folder).values())
    assert (folder / PROVENANCE).read_bytes() == before


def test_rows_take_the_place_of_those_of_the_same_label(tmp_path: Path) -> None:
    rows = [ProvenanceRow("a", "depth", "discovered"), ProvenanceRow("b", "depth", "given")]
    write_provenance(tmp_path, rows)
    accepted = rows[0].decided("accepted", date="2026-12-01")
    table = update_provenance(tmp_path, [accepted, ProvenanceRow("c", "depth", "rejected")])
    assert table == read_provenance(tmp_path)
    assert [row.source for row in table.values()] == ["accepted", "given", "rejected"]
    assert count_sources(table.values()) == {"depth": {"accepted": 1, "given": 1, "rejected": 1}}


@pytest.mark.parametrize("source", DECIDED)
def test_a_given_label_is_never_decided_of(source: str) -> None:
    with pytest.raises(ValueError, match="given"):
        ProvenanceRow("a", "depth", "given").decided(source)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="given"):
        ProvenanceRow("a", "depth", "discovered").decided("given")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["a,depth,discoverd,"], "row 2: source must be one of given, .*did you mean 'discovered'"),
        (["a,depth,given,", "b,depth,discovered,1.5"], "row 3, column 'confidence' must be a number from 0 to 1"),
        (["a,depth,discovered,x"], "row 2, column 'confidence'"),
        (["a,depth,given,", "a,depth,discovered,"], "row 3 is of a label that is listed before"),
    ],
)
def test_a_wrong_table_is_named_with_its_row(lines: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / PROVENANCE).write_text("\n".join(["id,task,source,confidence", *lines]))
    with pytest.raises(DataError, match=said):
        read_provenance(tmp_path)


def test_a_label_cannot_be_written_twice(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two rows"):
        write_provenance(tmp_path, [ProvenanceRow("a", "depth", "given")] * 2)
    assert not list(tmp_path.iterdir())


def test_folders_of_earlier_versions_list_discovered_labels_alone(tmp_path: Path) -> None:
    (tmp_path / "discovered.csv").write_text("id,task,sure,confidence,source\na,depth,0.25,0.5,network\n")
    row = ProvenanceRow("a", "depth", "discovered", "network", confidence=0.5, coverage=0.25)
    assert list(read_provenance(tmp_path).values()) == [row]


def test_a_discovered_folder_without_its_table_is_refused(tmp_path: Path) -> None:
    assert read_provenance(tmp_path) == {}
    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / "confidence").mkdir()
    with pytest.raises(DataError, match="put it back"):
        read_provenance(tmp_path)


def test_the_columns_are_those_of_the_row() -> None:
    assert COLUMNS[:3] == ("id", "task", "source")
