"""A table that names the files of a data set."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tasktokens.datasets.folder import open_folder
from tasktokens.errors import ConfigError, DataError

DESCRIPTION = {
    "manifest": "files.csv",
    "tasks": {"semseg": {"kind": "classes", "classes": ["a", "b"]}, "depth": {"kind": "depth"}},
}
ROWS = [
    {"image": "photos/0.jpg", "semseg": "masks/zero.png", "depth": "", "split": "train"},
    {"image": "photos/1.jpg", "semseg": "", "depth": "d/one.npy", "split": "train"},
    {"image": "photos/2.jpg", "semseg": "masks/two.png", "depth": "d/two.npy", "split": "test"},
    {"image": "photos/3.jpg", "semseg": "", "depth": "", "split": ""},
]


def write_csv(root: Path, rows: list[dict[str, str]], description: dict[str, Any] = DESCRIPTION) -> Path:
    """A manifest and its dataset.yaml; the files are empty, for opening a folder reads none."""
    root.mkdir(exist_ok=True)
    with (root / "files.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else ["image"])
        writer.writeheader()
        writer.writerows(rows)
    (root / "dataset.yaml").write_text(yaml.safe_dump(description))
    return root


def touch(root: Path, rows: list[dict[str, str]] = ROWS) -> None:
    for row in rows:
        for name in ("image", "semseg", "depth"):
            if row.get(name):
                (root / row[name]).parent.mkdir(parents=True, exist_ok=True)
                (root / row[name]).touch()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_csv(tmp_path / "data", ROWS)
    touch(tmp_path / "data")
    return tmp_path / "data"


def check_rows(root: Path) -> None:
    collection = open_folder(root)
    assert list(collection.images) == [f"photos/{i}" for i in range(4)]
    assert collection.images["photos/2"].path == root / "photos" / "2.jpg"
    assert {id: label.path for id, label in collection.labels["semseg"].items()} == {
        "photos/0": root / "masks" / "zero.png", "photos/2": root / "masks" / "two.png"
    }  # fmt: skip
    assert set(collection.labels["depth"]) == {"photos/1", "photos/2"}
    assert collection.splits == {"train": ("photos/0", "photos/1"), "test": ("photos/2",)}


def test_a_row_is_an_image_and_an_empty_cell_a_missing_label(root: Path) -> None:
    check_rows(root)


def test_a_spreadsheet_mark_and_spaces_do_no_harm(root: Path) -> None:
    text = (root / "files.csv").read_text().replace(",", ", ")
    (root / "files.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    check_rows(root)


def test_parquet_is_read_as_csv_is(root: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    columns = {name: [row[name] or None for row in ROWS] for name in ROWS[0]}
    write_table(pyarrow.table(columns | {"score": [1.5, 2.5, 3.5, 4.5]}), root / "files.parquet")
    (root / "dataset.yaml").write_text(yaml.safe_dump(DESCRIPTION | {"manifest": "files.parquet"}))
    check_rows(root)
    (root / "files.parquet").write_bytes(b"PAR1 no table")
    with pytest.raises(DataError, match=r"cannot read the manifest .*files\.parquet"):
        open_folder(root)
    write_table(pyarrow.table({"image": [1, 2], "semseg": ["", ""], "depth": ["", ""]}), root / "files.parquet")
    with pytest.raises(DataError, match=r"row 2, column 'image' must hold text, found 1"):
        open_folder(root)


def test_without_pyarrow_a_parquet_manifest_says_what_to_install(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "files.parquet").touch()
    (root / "dataset.yaml").write_text(yaml.safe_dump(DESCRIPTION | {"manifest": "files.parquet"}))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"needs pyarrow: pip install 'tasktokens\[parquet\]'"):
        open_folder(root)


def test_without_a_split_column_the_lists_of_dataset_yaml_hold(root: Path) -> None:
    rows = [{name: row[name] for name in ("image", "semseg", "depth")} for row in ROWS]
    write_csv(root, rows)
    assert open_folder(root).splits == {"train": tuple(f"photos/{i}" for i in range(4))}
    (root / "mine.txt").write_text("photos/3\nphotos/0\n")
    write_csv(root, rows, DESCRIPTION | {"splits": {"train": "mine.txt"}})
    assert open_folder(root).splits == {"train": ("photos/3", "photos/0")}
    write_csv(root, ROWS, DESCRIPTION | {"splits": {"train": "mine.txt"}})
    with pytest.raises(ConfigError, match=r"column 'split' and dataset\.yaml has 'splits'"):
        open_folder(root)


def test_absolute_paths_may_lie_anywhere_and_relative_ones_may_not(root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for name in ("7.jpg", "7.png"):
        (tmp_path / "elsewhere" / name).touch()
    row = {"image": str(tmp_path / "elsewhere" / "7.jpg"), "semseg": str(tmp_path / "elsewhere" / "7.png"), "depth": ""}
    inside = {"image": str(root / "photos" / "1.jpg"), "semseg": "", "depth": ""}
    write_csv(root, [row, inside])
    collection = open_folder(root)
    outside = (tmp_path / "elsewhere" / "7").as_posix().lstrip("/")
    assert list(collection.images) == [outside, "photos/1"]
    assert collection.labels["semseg"][outside].path == tmp_path / "elsewhere" / "7.png"
    write_csv(root, [row | {"image": "../elsewhere/7.jpg"}])
    with pytest.raises(DataError, match=r"row 2, column 'image': \.\./elsewhere/7\.jpg lies outside .*absolute"):
        open_folder(root)


@pytest.mark.parametrize(
    ("number", "change", "message"),
    [
        (1, {"depth": "d/none.npy"}, r"files\.csv row 3, column 'depth': .*none\.npy does not exist"),
        (2, {"image": "photos/9.jpg"}, r"row 4, column 'image': .*9\.jpg does not exist"),
        (0, {"image": ""}, r"row 2, column 'image' is empty"),
        (3, {"image": "photos/0.jpg"}, r"row 5 and row 2 both have the image id 'photos/0'"),
        (0, {"semseg": "masks/zero.txt"}, r"row 2, column 'semseg': masks/zero\.txt is none of \.png"),
        (0, {"semseg": "masks"}, r"row 2, column 'semseg': masks is none of"),
    ],
    ids=str,
)
def test_a_bad_cell_is_named_by_row_and_column(number: int, change: dict[str, str], message: str, root: Path) -> None:
    rows = [row | change if i == number else row for i, row in enumerate(ROWS)]
    write_csv(root, rows)
    with pytest.raises(DataError, match=message):
        open_folder(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows"),
        ("image,semseg,depth\n", "has no rows"),
        ("images,semseg,depth\nphotos/0.jpg,,\n", "no column 'image' .did you mean 'images'.*found: images, semseg"),
        ("image|semseg|depth\nphotos/0.jpg||\n", "no column 'image'.*found: image|semseg|depth"),
        ("image,semseg,depth,semseg\nphotos/0.jpg,,,\n", "the column 'semseg' 2 times"),
        ("image,semseg\nphotos/0.jpg,\n", "no column 'depth'"),
        ("image,semseg,depth\nphotos/0.jpg,,,x,\n", "row 2 has more cells"),
    ],
    ids=repr,
)
def test_a_bad_table_is_named(text: str, message: str, root: Path) -> None:
    (root / "files.csv").write_text(text)
    with pytest.raises(DataError, match=rf"files\.csv.*{message}"):
        open_folder(root)


def test_a_row_that_is_too_short_has_no_more_labels(root: Path) -> None:
    (root / "files.csv").write_text("image,semseg,depth\nphotos/0.jpg\n")
    assert not any(open_folder(root).labels.values())


def test_what_does_not_go_with_a_manifest_is_said(root: Path) -> None:
    for extra, message in (
        ({"manifest": "none.csv"}, "none.csv, which does not exist"),
        ({"images": "photos"}, "both 'images' and 'manifest'"),
        ({"tasks": {"depth": {"kind": "depth", "folder": "d"}}}, "task 'depth' has a folder"),
    ):
        (root / "dataset.yaml").write_text(yaml.safe_dump(DESCRIPTION | extra))
        with pytest.raises((DataError, ConfigError), match=message):
            open_folder(root)
    (root / "files.csv").write_bytes(b"image,semseg,depth\n\xff\xfe,,\n")
    (root / "dataset.yaml").write_text(yaml.safe_dump(DESCRIPTION))
    with pytest.raises(DataError, match=r"cannot read the manifest .*files\.csv"):
        open_folder(root)


names = st.lists(
    st.text("abc ,'\"é_", min_size=1, max_size=6).filter(lambda s: s == s.strip()), min_size=1, unique=True
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stems=names, seed=st.integers(0, 9))
def test_any_names_give_the_labels_that_the_rows_say(
    stems: list[str], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("any")
    rng = np.random.default_rng(seed)
    rows = [
        {"image": f"i/{stem}.png", "semseg": f"m/{stem}.png" if rng.random() < 0.5 else "",
         "depth": f"x/{number}.npy" if rng.random() < 0.5 else ""}
        for number, stem in enumerate(stems)
    ]  # fmt: skip
    write_csv(root, rows)
    touch(root, rows)
    collection = open_folder(root)
    assert list(collection.images) == [f"i/{stem}" for stem in stems]
    for name in ("semseg", "depth"):
        expected = {f"i/{stem}": root / row[name] for stem, row in zip(stems, rows, strict=True) if row[name]}
        assert {id: label.path for id, label in collection.labels[name].items()} == expected


def test_a_run_opens_a_manifest(own_folder: Path, make_config: Callable[..., Any], tmp_path: Path) -> None:
    from tasktokens.data.dataset import PartialDataset
    from tasktokens.datasets.open import open_data

    rows = [{"image": f"images/im{i:02d}.png", "semseg": f"semseg/im{i:02d}.png" if i % 2 else "",
             "depth": f"depth/im{i:02d}.png" if i < 3 else "", "split": "train"} for i in range(6)]  # fmt: skip
    description = yaml.safe_load((own_folder / "dataset.yaml").read_text())
    tasks = {name: description["tasks"][name] for name in ("semseg", "depth")}
    write_csv(own_folder, rows, {"manifest": "files.csv", "tasks": tasks})
    data = open_data(make_config(own_folder, tmp_path / "run", **{"data.labels": "full"}))
    assert set(data.train["images/im01"]) == {"semseg", "depth"}
    assert data.train["images/im04"] == ()
    sample = PartialDataset(data.collection, data.train, data.tasks, (40, 56))[(0, 1)]
    with Image.open(own_folder / "depth" / "im01.png") as image:
        with_pillow = np.asarray(image)
    np.testing.assert_allclose(sample.labels["depth"].value[0], np.where(with_pillow, with_pillow / 1000, 0.001))
