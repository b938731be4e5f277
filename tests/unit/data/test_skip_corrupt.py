"""``data.skip_corrupt``: what cannot be read is left out, named once and counted; without it, it is an error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tasktokens.config import Config
from tasktokens.data.dataset import PartialDataset
from tasktokens.data.sample import collate
from tasktokens.datasets.folder import open_folder
from tasktokens.datasets.open import all_visible
from tasktokens.errors import DataError, LabelError
from tasktokens.training.log import read_rows
from tasktokens.training.trainer import train

MakeConfig = Callable[..., Config]


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:70])
    return path


def dataset(root: Path, skip_corrupt: bool = True) -> PartialDataset:
    folder = open_folder(root)
    split = all_visible(folder, folder.split("train"), folder.tasks)
    return PartialDataset(folder, split, folder.tasks, (32, 48), skip_corrupt=skip_corrupt)


def test_an_unreadable_label_is_left_out_and_the_rest_of_the_image_stays(own_folder: Path) -> None:
    path = cut(own_folder / "depth" / "im02.png")
    with pytest.raises(LabelError, match="im02"):
        dataset(own_folder, skip_corrupt=False)[0, 2]
    sample = dataset(own_folder)[0, 2]
    assert (sample.id, list(sample.labels)) == ("im02", ["semseg", "normals", "edge", "saliency"])
    assert len(sample.left_out) == 1
    assert str(path) in sample.left_out[0]
    data = dataset(own_folder)
    batch = collate([data[0, i] for i in (1, 2)], {"depth": 1, "edge": 1})
    assert batch.labels["depth"].rows.tolist() == [0]
    assert batch.labels["depth"].absent.tolist() == [1]
    assert batch.left_out == sample.left_out
    assert batch.to(torch.device("cpu")).left_out == sample.left_out


def test_the_next_readable_image_comes_in_place_of_an_unreadable_one(own_folder: Path) -> None:
    for id in ("im04", "im05"):
        cut(own_folder / "images" / f"{id}.png")
    with pytest.raises(DataError, match="im04"):
        dataset(own_folder, skip_corrupt=False)[0, 4]
    sample = dataset(own_folder)[0, 4]
    assert sample.id == "im00"
    assert len(sample.labels) == 5
    assert ["im04" in sample.left_out[0], "im05" in sample.left_out[1]] == [True, True]
    assert dataset(own_folder)[0, 0].left_out == ()


def test_nothing_that_can_be_read_is_an_error(own_folder: Path) -> None:
    for path in (own_folder / "images").iterdir():
        cut(path)
    with pytest.raises(DataError, match="none of the 6 images can be read"):
        dataset(own_folder)[0, 3]


def test_a_run_goes_on_and_names_each_file_once(
    own_folder: Path, make_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes: dict[str, Any] = {"method": {"name": "mtl", "steps": 6}, "data.labels": "full", "data.cache": False}
    image, label = cut(own_folder / "images" / "im01.png"), cut(own_folder / "edge" / "im03.png")
    with pytest.raises(DataError):
        train(make_config(own_folder, tmp_path / "refused", **changes), quiet=True)
    with pytest.raises(DataError):
        train(make_config(own_folder, tmp_path / "failed", **changes | {"data.check": False}), quiet=True)
    capsys.readouterr()
    run = train(make_config(own_folder, tmp_path / "run", **changes | {"data.skip_corrupt": True}), quiet=True)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("left out: ")]
    assert sorted(path for path in (str(image), str(label)) for line in lines if path in line) == sorted(
        [str(label), str(image)]
    )
    assert len(lines) == 2
    # Three epochs of two batches of three meet both files once each.
    assert sum(row["left_out"] for row in read_rows(run / "metrics.jsonl") if "step" in row) == 6
