"""Several data sets as one run: names, splits, tasks that are stored differently, and labels that stay apart."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from conftest import write_folder
from tasktokens.config import Config, parse_config
from tasktokens.data.dataset import PartialDataset, load_sample
from tasktokens.data.loading import train_loader
from tasktokens.datasets.open import all_visible, open_data
from tasktokens.errors import ConfigError, DataError
from tasktokens.training.trainer import train


@pytest.fixture
def two_folders(tmp_path: Path) -> tuple[Path, Path]:
    """One folder labelled for semseg alone, the other, of larger pictures, for depth and normals."""
    street = write_folder(tmp_path / "street", count=5, train=4, seed=1)
    indoor = write_folder(tmp_path / "indoor", count=6, train=4, seed=2, height=64, width=48)
    for root, kept in ((street, {"semseg"}), (indoor, {"depth", "normals"})):
        description = yaml.safe_load((root / "dataset.yaml").read_text())
        description["tasks"] = {name: spec for name, spec in description["tasks"].items() if name in kept}
        (root / "dataset.yaml").write_text(yaml.safe_dump(description))
    return street, indoor


def several(*parts: dict[str, Any], **data: Any) -> Config:
    return parse_config({"data": {"kind": "concat", "size": [32, 32], "labels": "full", "parts": list(parts)} | data})


def part(root: Path, **more: Any) -> dict[str, Any]:
    return {"name": root.name, "source": {"kind": "folder", "root": str(root)}} | more


def test_each_image_shows_the_labels_of_its_own_part_alone(two_folders: tuple[Path, Path]) -> None:
    data = open_data(several(*map(part, two_folders)))
    assert list(data.tasks) == ["semseg", "depth", "normals"]
    assert data.train["street/im00"] == ("semseg",)
    assert data.train["indoor/im00"] == ("depth", "normals")
    assert len(data.train) == 8
    assert data.collection.split("test") == ("street/im04", "indoor/im04", "indoor/im05")
    sample = load_sample(data.collection, "indoor/im03", ("depth",))
    stored = np.asarray(Image.open(two_folders[1] / "depth" / "im03.png"))
    np.testing.assert_allclose(
        sample.labels["depth"].value[0].numpy()[stored > 0], stored[stored > 0] / 1000, rtol=1e-6
    )


def test_pictures_of_all_parts_and_sizes_come_in_one_batch(two_folders: tuple[Path, Path]) -> None:
    data = open_data(several(*map(part, two_folders)))
    split = all_visible(data.collection, tuple(data.train), data.tasks)
    dataset = PartialDataset(data.collection, split, data.tasks, (32, 32))
    batch = next(iter(train_loader(dataset, [[(0, index) for index in range(8)]], workers=0)))
    assert batch.labels["semseg"].rows.tolist() == [0, 1, 2, 3]
    assert batch.labels["depth"].rows.tolist() == [4, 5, 6, 7]


def test_tasks_can_be_chosen_and_renamed_and_splits_too(two_folders: tuple[Path, Path]) -> None:
    street, indoor = two_folders
    data = open_data(
        several(part(street, tasks={"semseg": "road"}, splits={"val": "test"}), part(indoor, tasks=["depth"]))
    )
    assert list(data.tasks) == ["road", "depth"]
    assert data.tasks["road"].name == "road"
    assert data.train["street/im01"] == ("road",)
    assert data.collection.split("val") == ("street/im04",)


def test_unknown_tasks_and_splits_of_a_part_are_named(two_folders: tuple[Path, Path]) -> None:
    street, _ = two_folders
    with pytest.raises(ConfigError, match=r"part 'street' has no task 'semsek' \(did you mean 'semseg'"):
        open_data(several(part(street, tasks=["semsek"])))
    with pytest.raises(DataError, match=r"no split 'vall'"):
        open_data(several(part(street, splits={"test": "vall"})))


def change_task(root: Path, task: str, **settings: Any) -> None:
    description = yaml.safe_load((root / "dataset.yaml").read_text())
    description["tasks"][task] |= settings
    (root / "dataset.yaml").write_text(yaml.safe_dump(description))


def test_the_same_task_stored_in_two_ways_is_one_task(tmp_path: Path, two_folders: tuple[Path, Path]) -> None:
    indoor = two_folders[1]
    other = shutil.copytree(indoor, tmp_path / "other")
    change_task(other, "depth", scale=0.002)
    data = open_data(several(part(indoor), part(other)))
    values = [load_sample(data.collection, f"{name}/im00", ("depth",)).labels["depth"] for name in ("indoor", "other")]
    np.testing.assert_allclose(values[1].value[values[0].valid], 2 * values[0].value[values[0].valid])
    # A copy of the file would be read with the scale of the one task, and be wrong.
    assert data.collection.labels["depth"]["indoor/im00"].plain
    assert not data.collection.labels["depth"]["other/im00"].plain


def test_two_meanings_of_one_name_are_refused(tmp_path: Path, two_folders: tuple[Path, Path]) -> None:
    indoor = two_folders[1]
    other = shutil.copytree(indoor, tmp_path / "other")
    change_task(other, "depth", range=[1.0, 80.0])
    with pytest.raises(ConfigError, match=r"'depth' of part 'other' .*rename one of them.*other_depth"):
        open_data(several(part(indoor), part(other)))


def test_parts_of_the_same_name_are_refused(two_folders: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match=r"two parts are named 'street'"):
        open_data(several(part(two_folders[0]), part(two_folders[0])))


@pytest.mark.slow
def test_a_run_on_disjoint_labels_learns_and_reports_every_task(two_folders: tuple[Path, Path], tmp_path: Path) -> None:
    config = parse_config(
        {
            "data": {"kind": "concat", "size": [32, 32], "labels": "full", "parts": [part(f) for f in two_folders]},
            "model": {"backbone": "resnet10t", "pretrained": False, "width": 16},
            "method": {"name": "htt", "stage1_steps": 2, "stage2_steps": 2},
            "optim": {"batch_size": 4},
            "run": {"dir": str(tmp_path / "run"), "device": "cpu"},
        }
    )
    run = train(config, quiet=True)
    results = json.loads((run / "evaluation-test.json").read_text())
    assert set(results) == {"semseg", "depth", "normals"}
    assert all(np.isfinite(results["depth"][name]) for name in ("absErr", "RMSE"))
