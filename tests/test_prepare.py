"""Preparing a data set: what is written, what is kept after an interruption, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasktokens.data.folder import open_folder
from tasktokens.errors import ConfigError, DataError

HEADER = "id,semseg,depth,normals,edge,saliency\n"


def add_to_description(root: Path, line: str) -> None:
    with (root / "dataset.yaml").open("a") as file:
        file.write(line + "\n")


def test_a_folder_brings_its_published_splits_along(own_folder: Path) -> None:
    (own_folder / "mine.csv").write_text(HEADER + "im00,1,0,0,0,0\nim01,0,1,1,0,0\nim07,1,1,1,1,1\n")
    add_to_description(own_folder, "labels: {one: mine.csv}")
    (own_folder / "semseg" / "im00.png").unlink()  # is no matter while nobody chooses the split
    split = open_folder(own_folder).published["one"]
    assert list(split) == [f"im{number:02d}" for number in range(6)], "the training images, in their order"
    assert split["im00"] == ("semseg",)
    assert split["im01"] == ("depth", "normals")
    assert split["im02"] == ()


def test_a_bad_labels_entry_is_named(own_folder: Path) -> None:
    add_to_description(own_folder, "labels: mine.csv")
    with pytest.raises(ConfigError, match="one: labels_one.csv"):
        open_folder(own_folder)
    (own_folder / "dataset.yaml").write_text(
        (own_folder / "dataset.yaml").read_text().replace("labels: mine.csv", "labels: {one: nowhere.csv}")
    )
    with pytest.raises(DataError, match=r"nowhere\.csv"):
        open_folder(own_folder)
