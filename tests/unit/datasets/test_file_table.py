"""A table of files on disk says what listing the folder says, in the same order, and takes no memory."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from tasktokens.datasets.file_table import FileRow, FileTable, write_rows, write_table
from tasktokens.datasets.files_by_id import iter_paths, list_files
from tasktokens.errors import DataError
from tasktokens.utils.file_kinds import IMAGE_ENDINGS

NAMES = ["b.jpg", "a/x.png", "a-b.png", "a/y.d.PNG", "ä/ö.png", "a b.jpg", "Z.webp", "a.tif", "10.png", "9.png"]


def touch(root: Path, names: list[str]) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_rows_are_the_files_of_the_folder_in_its_order(tmp_path: Path) -> None:
    images = touch(tmp_path / "images", [*NAMES, ".hidden.png", "note.txt"])
    depth = touch(tmp_path / "depth", ["b.png", "a/x.npy", "of-no-image.png"])
    path = write_table(
        tmp_path / "table", iter_paths(images, IMAGE_ENDINGS), {"depth": iter_paths(depth, (".png", ".npy"))}
    )
    table, listed = FileTable(path), list_files(images, IMAGE_ENDINGS)
    rows = list(table.rows(0, len(table)))
    assert [(row.id, row.path) for row in rows] == list(listed.items())
    assert [row.number for row in rows] == list(range(len(NAMES)))
    assert {row.id: dict(row.labels) for row in rows if row.labels} == {
        "b": {"depth": depth / "b.png"}, "a/x": {"depth": depth / "a/x.npy"},
    }  # fmt: skip
    assert [row.id for row in table.rows(3, 5)] == list(listed)[3:5]
    assert table.row(2) == rows[2]
    with pytest.raises(IndexError):
        table.row(len(NAMES))
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


@pytest.mark.parametrize("task", [False, True])
def test_two_files_of_one_id_are_named(task: bool, tmp_path: Path) -> None:
    folder = touch(tmp_path / "f", ["a.jpg", "a.png", "b.png"])
    both, one = list(iter_paths(folder, IMAGE_ENDINGS)), [("a", "a.png")]
    with pytest.raises(DataError, match=r"a\.jpg and .*a\.png have the same id 'a'"):
        write_table(tmp_path / "table", one if task else both, {"depth": both if task else one})


def test_a_row_keeps_all_that_it_is_given_whatever_the_bytes_of_its_path(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(b"/data/caf\xe9/a.png"))
    rows = [
        FileRow(0, "b", odd, {"depth": odd.with_name("b.npy")}, {"depth": ["b", "depth", "accepted", None]}, False),
        FileRow(1, "a", Path("/x"), {}, {}),
    ]
    assert list(FileTable(write_rows(tmp_path / "table", rows)).rows(0, 2)) == rows


def test_memory_does_not_grow_with_the_number_of_files(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        path = write_table(tmp_path / f"{count}", ((f"{n:08}", f"/data/{n:08}.png") for n in range(count)), {})
        table = FileTable(path)
        assert sum(1 for _ in table.rows(0, count)) == count
        table.close()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(20_000) < peak(200) + 100_000
