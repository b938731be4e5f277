"""Classes labelled in some images only, against NumPy: loss, gradient, geometry, metrics, joined data sets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tasktokens.datasets.concat import concat
from tasktokens.datasets.folder import open_folder
from tasktokens.errors import ConfigError, DataError
from tasktokens.inspection.survey import check
from tasktokens.losses import masked_loss
from tasktokens.metrics import MeanIoU
from tasktokens.tasks import Segmentation, build_task

NAMES = ("floor", "left arm", "right arm", "cat", "dog")
COUNT = len(NAMES)


def partial_task(labelled: list[list[str]], mirror: bool = False) -> Segmentation:
    values: dict[str, Any] = {"kind": "classes", "classes": list(NAMES), "labelled": labelled}
    if mirror:
        values["mirror"] = [["left arm", "right arm"]]
    task = build_task("semseg", values)
    assert isinstance(task, Segmentation)
    return task


SETS = st.lists(
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=COUNT - 1, unique=True).map(sorted),
    min_size=1, max_size=3, unique_by=tuple,
)  # fmt: skip


@given(sets=SETS, seed=st.integers(0, 2**31), scale=st.sampled_from([1.0, 30.0, 3000.0]))
def test_loss_and_gradient_are_those_of_the_summed_likelihood(sets: list[list[str]], seed: int, scale: float) -> None:
    task, rng = partial_task(sets), np.random.default_rng(seed)
    logits = torch.tensor(rng.normal(size=(2, COUNT, 3, 4)) * scale, requires_grad=True)
    target = rng.integers(0, COUNT + len(task.labelled), (2, 1, 3, 4))
    valid = rng.random((2, 1, 3, 4)) < 0.8
    total, count = masked_loss(task, logits.float(), torch.tensor(target, dtype=torch.uint8), torch.tensor(valid))
    total.backward()

    z = logits.detach().float().double().numpy()
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    allowed = np.zeros((2, COUNT, 3, 4), bool)
    for b, y, x in np.ndindex(2, 3, 4):
        number = target[b, 0, y, x]
        open_to = [number] if number < COUNT else set(range(COUNT)) - set(task.labelled[number - COUNT])
        allowed[b, list(open_to), y, x] = True
    # log of a sum of probabilities, in double precision, from the logits themselves
    inside = np.where(allowed, z, -np.inf)
    most, whole = inside.max(1, keepdims=True), z.max(1, keepdims=True)
    log_in = most + np.log(np.exp(inside - most).sum(1, keepdims=True))
    log_all = whole + np.log(np.exp(z - whole).sum(1, keepdims=True))
    expected = ((log_all - log_in) * valid).sum()
    within = np.exp(inside - log_in)
    np.testing.assert_allclose(total.item(), expected, rtol=1e-4, atol=1e-4)
    assert count == valid.sum()
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), (p - within) * valid, atol=2e-5 + 3e-7 * scale)


@given(sets=SETS, seed=st.integers(0, 2**31))
def test_a_mirrored_label_leaves_open_the_mirrored_classes(sets: list[list[str]], seed: int) -> None:
    task = partial_task(sets, mirror=True)
    rng = np.random.default_rng(seed)
    value = torch.tensor(rng.integers(0, COUNT + len(task.labelled), (1, 4, 6)), dtype=torch.uint8)
    flipped = task.flip(value)
    assert flipped.dtype == torch.uint8
    assert (task.flip(flipped) == value).all()
    other = {0: 0, 1: 2, 2: 1, 3: 3, 4: 4}
    for y, x in np.ndindex(4, 6):
        before, after = int(value[0, y, x]), int(flipped[0, y, 5 - x])
        if before < COUNT:
            assert after == other[before]
        else:
            swapped = {other[number] for number in task.labelled[before - COUNT]}
            assert set(task.labelled[after - COUNT]) == swapped


def test_void_and_unlabelled_classes_are_never_confused(tmp_path: Path) -> None:
    stored = np.array([[0, 1, 2], [255, 3, 4]], np.uint8)
    Image.fromarray(stored).save(tmp_path / "a.png")
    task = build_task("semseg", {"kind": "classes", "classes": list(NAMES), "labelled": ["cat", "dog"]})
    value, valid = task.read(tmp_path / "a.png")
    assert value[0].tolist() == [[COUNT, COUNT, COUNT], [0, 3, 4]]
    assert valid.tolist() == [[True, True, True], [False, True, True]]
    small, small_valid = task.resize(torch.from_numpy(value), torch.from_numpy(valid)[None], (4, 6))
    assert set(small.unique().tolist()) == {0, 3, 4, COUNT}
    assert small_valid.sum() == 20
    # What is written is read alike.
    task.write(tmp_path / "b.png", value, valid)
    again, again_valid = task.read(tmp_path / "b.png")
    np.testing.assert_array_equal(again, value)
    np.testing.assert_array_equal(again_valid, valid)
    picture = task.colourise(value, valid)
    assert (picture[0] == 128).all()
    assert not (picture[1, 1:] == 128).all(axis=-1).any()


@given(sets=SETS, seed=st.integers(0, 2**31))
def test_metrics_leave_open_pixels_out_of_the_confusion_matrix(sets: list[list[str]], seed: int) -> None:
    task, rng = partial_task(sets), np.random.default_rng(seed)
    prediction = rng.integers(0, COUNT, (2, 1, 4, 5))
    target = rng.integers(0, COUNT + len(task.labelled), (2, 1, 4, 5))
    valid = rng.random((2, 1, 4, 5)) < 0.8
    metric, plain = task.metric(), MeanIoU(COUNT, NAMES)
    args = [torch.tensor(prediction), torch.tensor(target)]
    metric.update(*args, torch.tensor(valid))
    known = valid & (target < COUNT)
    plain.update(torch.tensor(prediction), torch.tensor(np.where(known, target, 0)), torch.tensor(known))
    found, expected = metric.compute(), plain.compute()
    for name in expected:
        np.testing.assert_equal(found[name], expected[name])
    open_pixels = valid & (target >= COUNT)
    right = np.array([
        (number < COUNT and number == guess) or (number >= COUNT and guess not in task.labelled[number - COUNT])
        for guess, number in zip(prediction.ravel(), target.ravel(), strict=True)
    ]).reshape(target.shape)  # fmt: skip
    np.testing.assert_array_equal(task.correct(*args).numpy(), right)
    if open_pixels.any():
        assert found["openAcc"] == pytest.approx(100 * right[open_pixels].mean())


def test_a_label_map_shares_an_open_pixel_among_its_classes() -> None:
    task = partial_task([["cat", "dog"]])
    shares = task.label_map(torch.tensor([[[[3, COUNT]]]]))
    torch.testing.assert_close(shares[0, :, 0, 0], torch.tensor([0.0, 0, 0, 1, 0]))
    torch.testing.assert_close(shares[0, :, 0, 1], torch.tensor([1 / 3, 1 / 3, 1 / 3, 0, 0]))


@pytest.mark.parametrize(
    ("labelled", "said"),
    [
        (["cta"], "'labelled' names the class 'cta'.*did you mean 'cat'"),
        ([], "'labelled' must be a list"),
        (list(NAMES), "'labelled' names all classes"),
        ("cat", "'labelled' must be a list"),
    ],
)
def test_wrong_settings_are_refused(labelled: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build_task("semseg", {"kind": "classes", "classes": list(NAMES), "labelled": labelled})


@given(sets=SETS)
def test_a_task_is_made_again_from_its_description(sets: list[list[str]]) -> None:
    task = partial_task(sets)
    assert build_task("semseg", task.spec()) == task
    alone = build_task("semseg", {"kind": "classes", "classes": list(NAMES), "labelled": sets[0]})
    assert build_task("semseg", alone.spec()) == alone
    assert isinstance(alone, Segmentation)
    assert alone.reads == 0
    assert task.predicts_like(replace(task, labelled=()))


# -- folders -----------------------------------------------------------------------------------------------------------
def folder(root: Path, classes: list[str], ids: dict[str, np.ndarray[Any, Any]], **more: Any) -> Path:
    for id, stored in ids.items():
        for name, array in (("images", np.full((*stored.shape, 3), 90, np.uint8)), ("semseg", stored)):
            (root / name / f"{id}.png").parent.mkdir(parents=True, exist_ok=True)
            array[0, 0] = array[0, 0] + len(list((root / name).iterdir())) if name == "images" else array[0, 0]
            Image.fromarray(array).save(root / name / f"{id}.png")
    task = {"kind": "classes", "classes": classes, **more.pop("task", {})}
    (root / "dataset.yaml").write_text(yaml.safe_dump({"tasks": {"semseg": task}, **more}))
    return root


def halves(value: int) -> np.ndarray[Any, Any]:
    stored = np.zeros((16, 16), np.uint8)
    stored[:, 8:] = value
    return stored


def test_cats_of_one_folder_and_dogs_of_another_are_one_task(tmp_path: Path) -> None:
    cats = open_folder(folder(tmp_path / "a", ["floor", "cat"], {"x": halves(1)}, task={"labelled": ["cat"]}))
    dogs = open_folder(folder(tmp_path / "b", ["floor", "dog"], {"x": halves(1)}, task={"labelled": ["dog"]}))
    joined = concat({"cats": cats, "dogs": dogs})
    task = joined.tasks["semseg"]
    assert task.class_names() == ("floor", "cat", "dog")
    assert isinstance(task, Segmentation)
    assert task.labelled == ((1,), (2,))
    for id, known, code in (("cats/x", 1, 3), ("dogs/x", 2, 4)):
        value, valid = joined.labels["semseg"][id].read()
        assert valid.all()
        np.testing.assert_array_equal(value[0], np.where(halves(1) > 0, known, code))
        assert not joined.labels["semseg"][id].plain
    report = check(joined, workers=1)
    assert report.tasks["semseg"].numbers["partially labelled images"] == 2
    assert "one-sided" not in report.counts
    # A part that does not say what was labelled is refused: its floor may be a dog.
    plain = open_folder(folder(tmp_path / "c", ["floor", "dog"], {"x": halves(1)}))
    with pytest.raises(ConfigError, match=r"'c' has no class 'cat'.*say which of its classes were labelled"):
        concat({"cats": cats, "c": plain})


def test_images_say_which_classes_were_labelled(tmp_path: Path) -> None:
    root = folder(
        tmp_path / "a", list(NAMES), {"k/x": halves(3), "k/y": halves(4), "z": halves(4)}, labelled="partial.csv"
    )
    (root / "partial.csv").write_text("id,task,labelled\nk/,semseg,cat\nk/y,semseg,cat;dog\n")
    index = open_folder(root)
    assert index.labelled_classes("semseg") == {"k/x": ("cat",), "k/y": ("cat", "dog")}
    values = {id: set(np.unique(file.read()[0]).tolist()) for id, file in index.labels["semseg"].items()}
    assert values == {"k/x": {3, COUNT}, "k/y": {4, COUNT + 1}, "z": {0, 4}}
    for row, said in (("k/x,semseg,cta", "names the class 'cta'"), ("q,semseg,cat", "row 2: no image has the id 'q'")):
        (root / "partial.csv").write_text(f"id,task,labelled\n{row}\n")
        with pytest.raises((ConfigError, DataError), match=said):
            open_folder(root)


def test_a_manifest_says_it_in_a_column(tmp_path: Path) -> None:
    root = folder(tmp_path / "a", list(NAMES), {"x": halves(3), "y": halves(4)}, manifest="files.csv")
    (root / "files.csv").write_text(
        "image,semseg,semseg.labelled\nimages/x.png,semseg/x.png,cat\nimages/y.png,semseg/y.png,\n"
    )
    index = open_folder(root)
    values = {id: set(np.unique(file.read()[0]).tolist()) for id, file in index.labels["semseg"].items()}
    assert values == {"images/x": {3, COUNT}, "images/y": {0, 4}}
