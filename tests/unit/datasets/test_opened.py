"""A data set opened without a configuration: what torchvision's users expect of one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import tasktokens
from conftest import CLASSES, DESCRIPTION
from tasktokens.data.sampler import Draw
from tasktokens.errors import ConfigError, DataError


@pytest.fixture
def data(folder_root: Path) -> tasktokens.OpenedDataset:
    return tasktokens.open_dataset("folder", root=str(folder_root))


def test_tasks_and_splits(data: tasktokens.OpenedDataset, folder_root: Path) -> None:
    assert list(data.tasks) == list(DESCRIPTION["tasks"])
    assert data.tasks["semseg"].class_names() == tuple(CLASSES)
    assert data.splits["train"] == tuple(f"im{number:02d}" for number in range(6))
    assert "6 train" in repr(data)
    assert tasktokens.open_dataset(root=folder_root).splits == data.splits


def test_samples_by_number_are_the_files(data: tasktokens.OpenedDataset, folder_root: Path) -> None:
    train = data.train_dataset(size=(40, 56))
    assert len(train) == 6
    for number, sample in enumerate(train):
        assert sample.id == f"im{number:02d}"
        image = np.asarray(Image.open(folder_root / f"images/{sample.id}.png"))
        np.testing.assert_array_equal(sample.image.permute(1, 2, 0).numpy(), image)
        stored = np.asarray(Image.open(folder_root / f"depth/{sample.id}.png"))
        np.testing.assert_array_equal(sample.labels["depth"].valid[0].numpy(), stored > 0)
        np.testing.assert_allclose(sample.labels["depth"].value[0].numpy()[stored > 0], stored[stored > 0] / 1000)
    assert train[-1].id == train[np.int64(5)].id == train[torch.tensor(5)].id == "im05"
    for beyond in (6, -7):
        with pytest.raises(IndexError, match="6 images"):
            train[beyond]


def test_numbers_mean_the_looks_of_an_epoch(data: tasktokens.OpenedDataset) -> None:
    train = data.train_dataset((32, 48), augmentation=tasktokens.Augmentation(), seed=3)
    for epoch in (0, 1, 7):
        train.set_epoch(epoch)
        for number in range(3):
            assert torch.equal(train[number].image, train[epoch, number].image)
            assert torch.equal(train[number].image, train[Draw(epoch, number)].image)
    looks = {train[epoch, 0].image.numpy().tobytes() for epoch in range(5)}
    assert len(looks) == 5
    plain = data.train_dataset((32, 48))
    assert torch.equal(plain[0, 0].image, plain[9, 0].image)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_ordinary_data_loader(workers: int, data: tasktokens.OpenedDataset) -> None:
    train = data.train_dataset((32, 48), labels="one")
    loader = DataLoader(train, batch_size=4, shuffle=True, collate_fn=train.collate, num_workers=workers)
    batches = list(loader)
    assert sorted(id for batch in batches for id in batch.ids) == sorted(train.ids)
    assert [batch.image.shape[0] for batch in batches] == [4, 2]
    for batch in batches:
        assert set(batch.labels) == set(data.tasks)
        seen = [id for labels in batch.labels.values() for id in (batch.ids[row] for row in labels.rows)]
        assert sorted(seen) == sorted(batch.ids)


def test_hidden_labels_follow_the_rules_of_runs(data: tasktokens.OpenedDataset, folder_root: Path) -> None:
    one = data.train_dataset((32, 48), labels="one", label_seed=4)
    assert {len(sample.labels) for sample in one} == {1}
    assert {name for sample in data.train_dataset((32, 48)) for name in sample.labels} == set(data.tasks)
    assert set(data.train_dataset((32, 48), tasks=["depth", "edge"])[0].labels) == {"depth", "edge"}


def test_hidden_label_files_are_not_opened(own_folder: Path) -> None:
    train = tasktokens.open_dataset("folder", root=own_folder).train_dataset((32, 48), labels="one")
    for id, seen in train.split.items():
        for name in set(train.tasks) - set(seen):
            (own_folder / name / f"{id}.png").write_bytes(b"no picture")
    assert [tuple(sample.labels) for sample in train] == [train.split[sample.id] for sample in train]


def test_the_tasks_of_an_augmented_data_set_express_its_zooms(data: tasktokens.OpenedDataset) -> None:
    plain, zoomed = data.train_dataset(), data.train_dataset(augmentation={"scale": (0.5, 2.0)})
    assert plain.tasks == data.tasks
    low, high = (zoomed.tasks["depth"].spec()["range"], data.tasks["depth"].spec()["range"])
    assert low[0] <= high[0] / 2
    assert low[1] >= high[1] * 2


def test_evaluation_has_all_labels_of_a_split(data: tasktokens.OpenedDataset) -> None:
    test = data.eval_dataset("test", (32, 48))
    assert test.ids == data.splits["test"]
    assert all(set(sample.labels) == set(data.tasks) for sample in test)
    full = data.eval_dataset(size=(32, 48), full=True, tasks=["depth"])
    assert full[0].labels["depth"].value.shape == (1, 40, 56)
    assert set(full[0].labels) == {"depth"}


def test_mistakes(data: tasktokens.OpenedDataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'folder'"):
        tasktokens.open_dataset("foldr", root=tmp_path)
    with pytest.raises(ConfigError, match="unknown key"):
        tasktokens.open_dataset("folder", root=tmp_path, clases=3)
    with pytest.raises(ConfigError, match=r"root.* is not set|required"):
        tasktokens.open_dataset("folder")
    with pytest.raises(DataError):
        tasktokens.open_dataset("folder", root=tmp_path / "missing")
    with pytest.raises(ConfigError, match="did you mean 'depth'"):
        data.train_dataset(tasks=["depht"])
    with pytest.raises(ConfigError, match=r"give \['depth'\]"):
        data.train_dataset(tasks="depth")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="did you mean 'test'"):
        data.eval_dataset("tset")
    with pytest.raises(DataError, match="unknown"):
        data.train_dataset(labels="most")
    with pytest.raises(ConfigError, match="size"):
        data.train_dataset(size=(0, 48))
