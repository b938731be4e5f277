"""The own-folder layout: which files are found, and how labels of another size are brought to their image's."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tasktokens.config import parse_config
from tasktokens.data.dataset import load_sample
from tasktokens.datasets.files_by_id import list_files
from tasktokens.datasets.folder import open_folder
from tasktokens.errors import ConfigError, DataError, LabelError
from tasktokens.tasks import KINDS, build_task
from tasktokens.utils.file_kinds import LABEL_ENDINGS


def describe(root: Path, **changes: Any) -> Path:
    """Change the top level of dataset.yaml."""
    values = yaml.safe_load((root / "dataset.yaml").read_text())
    (root / "dataset.yaml").write_text(yaml.safe_dump(values | changes, sort_keys=False))
    return root


# -- which files -------------------------------------------------------------------------------------------------------
def test_files_are_found_below_a_folder_in_any_case_of_their_ending(tmp_path: Path) -> None:
    for name in ("a.png", "B.PNG", "deep/er/c.npz", "deep/d.v2.npy", ".hidden.png", ".cache/e.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert {id: path.name for id, path in list_files(tmp_path, LABEL_ENDINGS).items()} == {
        "B": "B.PNG", "a": "a.png", "deep/d.v2": "d.v2.npy", "deep/er/c": "c.npz"
    }  # fmt: skip
    assert list_files(tmp_path / "none", LABEL_ENDINGS) == {}


def test_the_order_is_that_of_the_paths(tmp_path: Path) -> None:
    for name in ("a-1/x.png", "a/x.png", "a/10.png", "a/9.png", "b.png", "A.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list(list_files(tmp_path, (".png",)).values()) == sorted(tmp_path.rglob("*.png"))


def test_two_files_of_one_id_are_refused(tmp_path: Path) -> None:
    for name in ("x/a.png", "x/a.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"x/a\.npy and .*x/a\.png have the same id 'x/a'"):
        list_files(tmp_path, LABEL_ENDINGS)


def test_a_folder_behind_a_link_is_read(own_folder: Path, tmp_path: Path) -> None:
    (own_folder / "images").rename(tmp_path / "elsewhere")
    (own_folder / "images").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert len(open_folder(own_folder).images) == 8


def test_images_and_labels_may_be_arrays(own_folder: Path) -> None:
    for folder in ("images", "semseg"):
        path = own_folder / folder / "im00.png"
        with Image.open(path) as image:
            array = np.asarray(image)
        path.unlink()
        np.savez_compressed(path.with_suffix(".npz"), array)
        expected = array if folder == "images" else np.where(array == 255, 0, array)
        collection = open_folder(own_folder)
        found = load_sample(collection, "im00", ["semseg"])
        value = found.image.permute(1, 2, 0) if folder == "images" else found.labels["semseg"].value[0]
        assert np.array_equal(value, expected)


def test_a_folder_without_a_description_names_the_command_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"tasktokens init {tmp_path}"):
        open_folder(tmp_path)


# -- splits ------------------------------------------------------------------------------------------------------------
def test_a_split_may_be_a_folder_below_the_images(own_folder: Path) -> None:
    for task in ("images", "semseg"):
        for number in range(8):
            part = "train" if number < 5 else "val"
            (own_folder / task / part).mkdir(exist_ok=True)
            path = own_folder / task / f"im{number:02d}.png"
            path.rename(own_folder / task / part / path.name)
    collection = open_folder(describe(own_folder, splits={"train": "train/", "val": "val/"}))
    assert collection.splits["train"] == tuple(f"train/im{i:02d}" for i in range(5))
    assert collection.splits["val"] == tuple(f"val/im{i:02d}" for i in range(5, 8))
    assert set(collection.labels["semseg"]) == set(collection.images)
    with pytest.raises(DataError, match="no image's id begins with 'test/', the split 'test'"):
        open_folder(describe(own_folder, splits={"test": "test/"}))


# -- labels of another size --------------------------------------------------------------------------------------------
def resized_folder(root: Path, label_size: tuple[int, int], **more: Any) -> Path:
    """One image of 40 x 56 and one label of class ids of another size, its left half class 1."""
    (root / "images").mkdir(parents=True)
    (root / "semseg").mkdir()
    Image.fromarray(np.zeros((40, 56, 3), np.uint8)).save(root / "images" / "a.png")
    ids = np.zeros(label_size, np.uint8)
    ids[:, : label_size[1] // 2] = 1
    ids[-1] = 255
    Image.fromarray(ids).save(root / "semseg" / "a.png")
    spec = {"kind": "classes", "classes": ["x", "y"]} | more
    (root / "dataset.yaml").write_text(yaml.safe_dump({"tasks": {"semseg": spec}}))
    return root


@pytest.mark.parametrize("size", [(40, 56), (20, 28), (80, 112), (10, 14), (21, 28), (41, 57)], ids=str)
def test_a_label_of_another_size_is_resized_where_the_task_says_so(size: tuple[int, int], tmp_path: Path) -> None:
    collection = open_folder(resized_folder(tmp_path / "d", size, resize=True))
    file = pickle.loads(pickle.dumps(collection.labels["semseg"]["a"]))  # loader processes get a copy
    value, valid = file.read()
    assert valid.shape == (40, 56)
    assert abs(int(value[0, 0].sum()) - 28) <= 1
    rows = (~valid).all(axis=1)
    assert abs(int(rows.sum()) - 40 / size[0]) <= 1
    assert rows[-max(1, int(rows.sum())) :].all()
    assert load_sample(collection, "a", ["semseg"]).labels["semseg"].value.shape == (1, 40, 56)
    assert not file.plain


@pytest.mark.parametrize("size", [(40, 50), (56, 40), (20, 25)], ids=str)
def test_a_label_of_another_shape_is_an_error_that_gives_both_sizes(size: tuple[int, int], tmp_path: Path) -> None:
    collection = open_folder(resized_folder(tmp_path / "d", size, resize=True))
    with pytest.raises(LabelError, match=rf"a\.png is {size[1]}x{size[0]} pixels, its image a\.png is 56x40.*shape"):
        collection.labels["semseg"]["a"].read()


def test_without_the_setting_another_size_stays_an_error(tmp_path: Path) -> None:
    collection = open_folder(resized_folder(tmp_path / "d", (20, 28)))
    assert collection.labels["semseg"]["a"].plain
    with pytest.raises(LabelError, match="28x20"):
        load_sample(collection, "a", ["semseg"])


@given(factor=st.sampled_from([0.5, 2, 3]), seed=st.integers(0, 99))
def test_resizing_moves_what_is_seen_with_the_image(
    factor: float, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A label that was enlarged by a whole factor comes back exactly."""
    root = tmp_path_factory.mktemp("scaled")
    (root / "images").mkdir()
    (root / "height").mkdir()
    rng = np.random.default_rng(seed)
    small = rng.random((6, 10)).astype(np.float32)
    size = (6, 10) if factor > 1 else (12, 20)
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(root / "images" / "a.png")
    whole = int(max(factor, 1))
    np.save(root / "height" / "a.npy", small.repeat(whole, 0).repeat(whole, 1))
    (root / "dataset.yaml").write_text("tasks: {height: {kind: regression, range: [0, 1], resize: true}}")
    value, _ = open_folder(root).labels["height"]["a"].read()
    assert np.array_equal(value[0], small if factor > 1 else small.repeat(2, 0).repeat(2, 1))


# -- the description ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"manifests": "a.csv"}, ConfigError, "unknown key 'manifests' .did you mean 'manifest'"),
        ({"images": "photos"}, DataError, "no images in .*photos"),
        ({"splits": {"train": "none.txt"}}, DataError, "none.txt, which does not exist"),
        ({"splits": ["train.txt"]}, ConfigError, "'splits' must name a file"),
        ({"tasks": {"depth": "depth"}}, ConfigError, "task 'depth' must have settings"),
        ({"tasks": {}}, ConfigError, "at least one task"),
        ({"tasks": {"depth": {"kind": "depth", "resise": True}}}, ConfigError, "no setting 'resise'"),
    ],
    ids=str,
)
def test_a_wrong_description_is_named(
    changes: dict[str, Any], error: type[Exception], message: str, own_folder: Path
) -> None:
    with pytest.raises(error, match=message):
        open_folder(describe(own_folder, **changes))


def test_the_tasks_of_the_documentation_can_be_built() -> None:
    docs = Path(__file__).parents[3] / "docs"
    pages = ("reference/data.md", "start/several-data-sets.md")
    text = "\n".join((docs / page).read_text(encoding="utf-8") for page in pages)
    found = [yaml.safe_load(block) for block in re.findall(r"```yaml[^\n]*\n(.*?)```", text, re.DOTALL)]
    specs = [item for values in found for item in values.get("tasks", {}).items()]  # one block is a run's settings
    kinds = set()
    for name, spec in specs:
        kinds.add(build_task(name, {k: v for k, v in spec.items() if k not in ("folder", "resize")}).kind)
    assert kinds == set(KINDS)
    assert [parse_config(values).data.kind for values in found if "data" in values] == ["concat"]


@pytest.mark.parametrize("name", ["auto", "holdout", "none"])
def test_a_split_called_like_a_word_of_the_settings_is_refused(name: str, own_folder: Path) -> None:
    describe(own_folder, splits={"train": "train.txt", name: "test.txt"})
    with pytest.raises(DataError, match=rf"names a split '{name}'.*rename it"):
        open_folder(own_folder)


@pytest.mark.parametrize("up", ["/", "..", "../..", "../../", "images/../.."])
@pytest.mark.parametrize("of", ["images", "task"])
def test_a_folder_that_the_data_lies_in_is_refused_before_it_is_listed(
    up: str, of: str, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = []
    monkeypatch.setattr("tasktokens.utils.listing.walk_files", lambda folder: listed.append(folder) or [("a.png",)])
    if of == "images":
        describe(own_folder, images=up)
    else:
        describe(own_folder, tasks={"depth": {"kind": "depth", "range": [1, 9], "folder": up}})
    with pytest.raises(ConfigError, match="in which the data folder itself lies"):
        open_folder(own_folder)
    assert all(own_folder in folder.parents for folder in listed)
