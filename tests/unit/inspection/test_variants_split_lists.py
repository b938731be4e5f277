"""`init` beside lists of splits that it cannot read: never a dataset.yaml that trains on the test images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasktokens.errors import DataError
from tasktokens.inspection.init import init

ODD: dict[str, Callable[[str], bytes]] = {
    "UTF-16 without a mark": lambda text: text.encode("utf-16-le"),
    "with the folder": lambda text: "".join(f"images/{id}.png\n" for id in text.split()).encode(),
    "without zeros": lambda text: "".join(f"{int(id)}\n" for id in text.split()).encode(),
    "Latin-1": lambda text: (text + "küche\n").encode("latin-1"),
}


def folder(root: Path, lists: dict[str, bytes]) -> Path:
    rng = np.random.default_rng(0)
    for name in ("images", "semseg"):
        (root / name).mkdir(parents=True)
    for i in range(6):
        Image.fromarray(rng.integers(0, 255, (16, 24, 3), np.uint8)).save(root / f"images/{i:03}.png")
        Image.fromarray(rng.integers(0, 3, (16, 24), np.uint8)).save(root / f"semseg/{i:03}.png")
    for name, content in lists.items():
        (root / name).write_bytes(content)
    return root


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("odd", [("train.txt",), ("train.txt", "test.txt")])
def test_a_training_list_that_cannot_be_read_stops_init(kind: str, odd: tuple[str, ...], tmp_path: Path) -> None:
    ids = {"train.txt": "000\n001\n002\n003\n", "test.txt": "004\n005\n"}
    lists = {name: (ODD[kind] if name in odd else str.encode)(text) for name, text in ids.items()}
    root = folder(tmp_path / "d", lists)
    with pytest.raises(DataError, match=r"train\.txt.*correct it, or rename it"):
        init(root)
    assert not (root / "dataset.yaml").exists()
    (root / "train.txt").write_text(ids["train.txt"])
    guess = init(root)  # test.txt alone only lacks a split to be measured on, and is named
    assert guess.members["train"] == ("000", "001", "002", "003")
    assert ("test.txt" in guess.left_out) == ("test.txt" in odd)


def test_a_test_list_alone_that_cannot_be_read_stops_init(tmp_path: Path) -> None:
    root = folder(tmp_path / "d", {"test.txt": b"4\n5\n"})
    with pytest.raises(DataError, match=r"test\.txt lists '4'.*did you mean '004'"):
        init(root)
