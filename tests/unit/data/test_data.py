"""Folders, samples, joint geometry and the order of samples."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from any_input import examples
from properties import random_label
from tasktokens.config import Augmentation, Config, parse_config
from tasktokens.data.dataset import PartialDataset, load_sample
from tasktokens.data.loading import eval_loader, train_loader
from tasktokens.data.sample import Batch, Label, Sample, collate
from tasktokens.data.sampler import EpochSampler
from tasktokens.data.transforms import augment, flip, photometric, resize, shrink_to_cover
from tasktokens.datasets.folder import open_folder
from tasktokens.datasets.index import read_image
from tasktokens.datasets.open import all_visible, choose_tasks, open_data
from tasktokens.errors import ConfigError, DataError, LabelError
from tasktokens.tasks import Depth, Edge, Normals, Saliency, Segmentation, Task

SIZE = (32, 48)
MOVING = Augmentation(scale=(0.6, 1.6), photometric=0.3)


def edit_yaml(root: Path, **changes: Any) -> None:
    values = yaml.safe_load((root / "dataset.yaml").read_text())
    values.update(changes)
    (root / "dataset.yaml").write_text(
        yaml.safe_dump({k: v for k, v in values.items() if v is not None}, sort_keys=False)
    )


# -- folders -----------------------------------------------------------------------------------------------------------
def test_a_folder_is_listed(folder_root: Path) -> None:
    folder = open_folder(folder_root)
    assert folder.splits == {"train": tuple(f"im{n:02d}" for n in range(6)), "test": ("im06", "im07")}
    assert list(folder.tasks) == ["semseg", "depth", "normals", "edge", "saliency"]
    assert folder.images["im03"].path == folder_root / "images" / "im03.png"
    assert all(len(labels) == 8 for labels in folder.labels.values())


def test_a_missing_label_file_is_a_missing_label(own_folder: Path) -> None:
    (own_folder / "depth" / "im00.png").unlink()
    for path in (own_folder / "edge").iterdir():
        path.unlink()
    (own_folder / "edge").rmdir()
    folder = open_folder(own_folder)
    assert "im00" not in folder.labels["depth"]
    assert len(folder.labels["depth"]) == 7
    assert folder.labels["edge"] == {}
    assert all_visible(folder, ("im00", "im01"), folder.tasks)["im00"] == ("semseg", "normals", "saliency")


def test_ids_are_paths_below_images_and_files_of_other_kinds_are_left_out(own_folder: Path) -> None:
    for folder in ("images", "semseg"):
        (own_folder / folder / "a.b" / "c").mkdir(parents=True)
        (own_folder / folder / "im00.png").rename(own_folder / folder / "a.b" / "c" / "x.1.png")
    (own_folder / "images" / "notes.txt").write_text("hello")
    (own_folder / "images" / ".hidden.png").write_text("hello")
    (own_folder / "semseg" / "no_such_image.png").write_text("hello")
    edit_yaml(own_folder, splits=None)
    folder = open_folder(own_folder)
    assert "a.b/c/x.1" in folder.images
    assert len(folder.images) == 8
    assert "a.b/c/x.1" in folder.labels["semseg"]
    assert "no_such_image" not in folder.labels["semseg"]
    assert folder.splits == {"train": tuple(folder.images)}


def test_folders_of_images_and_labels_may_have_other_names(own_folder: Path) -> None:
    (own_folder / "images").rename(own_folder / "photos")
    (own_folder / "semseg").rename(own_folder / "classes")
    tasks = {"semseg": {"kind": "classes", "classes": list("abcd"), "folder": "classes"}}
    edit_yaml(own_folder, images="photos", tasks=tasks)
    assert len(open_folder(own_folder).labels["semseg"]) == 8


def test_a_missing_folder_or_description_or_image_is_named(own_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere does not exist"):
        open_folder(tmp_path / "nowhere")
    edit_yaml(own_folder, images="photos")
    with pytest.raises(DataError, match=r"no images in .*photos"):
        open_folder(own_folder)
    (own_folder / "dataset.yaml").unlink()
    with pytest.raises(DataError, match=r"dataset\.yaml"):
        open_folder(own_folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": {}}, r"unknown key 'task' \(did you mean 'tasks'\?\)"),
        ({"tasks": None}, "at least one task"),
        ({"tasks": ["semseg"]}, "at least one task"),
        ({"tasks": {"semseg": "classes"}}, "task 'semseg'"),
        ({"tasks": {"semseg": None}}, "task 'semseg'"),
        ({"tasks": {"semseg": {"kind": "clases", "classes": ["a"]}}}, "did you mean 'classes'"),
        ({"splits": ["train.txt"]}, "'splits'"),
    ],
    ids=str,
)
def test_a_wrong_description_is_a_config_error(changes: dict[str, Any], message: str, own_folder: Path) -> None:
    edit_yaml(own_folder, **changes)
    with pytest.raises(ConfigError, match=message):
        open_folder(own_folder)


def test_split_files_must_exist_and_list_images(own_folder: Path) -> None:
    (own_folder / "train.txt").write_text("im00\n\n  im01  \nghost\n")
    with pytest.raises(DataError, match=r"train\.txt lists 'ghost'"):
        open_folder(own_folder)
    (own_folder / "train.txt").write_text("im00\n\n  im01  \n")
    folder = open_folder(own_folder)
    assert folder.split("train") == ("im00", "im01")
    with pytest.raises(DataError, match=r"no split 'tset'.*did you mean 'test'.*train, test"):
        folder.split("tset")
    (own_folder / "train.txt").unlink()
    with pytest.raises(DataError, match=r"split file train\.txt"):
        open_folder(own_folder)


@pytest.mark.parametrize("folder", ["images", "depth"])
def test_two_files_of_one_id_are_refused(folder: str, own_folder: Path) -> None:
    (own_folder / folder / "im00.bmp").write_bytes((own_folder / folder / "im00.png").read_bytes())
    with pytest.raises(DataError, match="same id 'im00'"):
        open_folder(own_folder)


def test_images_are_read_as_rgb(tmp_path: Path) -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(np.dstack([grey] * 3 + [grey * 0])).save(tmp_path / "clear.png")
    for name in ("grey.png", "clear.png"):
        assert np.array_equal(read_image(tmp_path / name), np.dstack([grey] * 3)), name


def test_a_damaged_image_is_named(own_folder: Path) -> None:
    path = own_folder / "images" / "im02.png"
    path.write_bytes(path.read_bytes()[:200])
    folder = open_folder(own_folder)
    with pytest.raises(DataError, match=r"im02\.png cannot be read"):
        load_sample(folder, "im02", ())
    path.unlink()
    with pytest.raises(DataError, match=r"im02\.png does not exist"):
        load_sample(folder, "im02", ())


def test_a_label_of_another_size_than_its_image_is_named_with_both_sizes(own_folder: Path) -> None:
    Image.fromarray(np.zeros((20, 28), np.uint8)).save(own_folder / "semseg" / "im01.png")
    folder = open_folder(own_folder)
    load_sample(folder, "im01", ("depth",))
    with pytest.raises(LabelError, match=r"im01\.png is 28x20 pixels.*56x40"):
        load_sample(folder, "im01", ("depth", "semseg"))


def test_a_sample_holds_what_the_files_hold(folder_root: Path) -> None:
    folder = open_folder(folder_root)
    sample = load_sample(folder, "im04", tuple(folder.tasks))
    stored = {name: np.asarray(Image.open(folder_root / name / "im04.png")) for name in ("images", *folder.tasks)}
    assert np.array_equal(sample.image.numpy(), stored["images"].transpose(2, 0, 1))
    assert sample.pixels.all()
    assert torch.equal(sample.labels["semseg"].valid[0], torch.from_numpy(stored["semseg"] != 255))
    keep = sample.labels["depth"].valid[0].numpy()
    assert np.array_equal(keep, stored["depth"] > 0)
    np.testing.assert_allclose(sample.labels["depth"].value[0].numpy()[keep], stored["depth"][keep] / 1000, rtol=1e-6)
    assert np.array_equal(sample.labels["edge"].valid[0], stored["edge"][..., 1] > 0)


# -- runs' data --------------------------------------------------------------------------------------------------------
def folder_config(root: Path, **changes: Any) -> Config:
    return parse_config({"data": {"kind": "folder", "root": str(root), **changes.pop("data", {})}, **changes})


def test_open_data_needs_a_root() -> None:
    with pytest.raises(ConfigError, match=r"data\.root"):
        open_data(parse_config({"data": {"kind": "folder"}}))


def test_holdout_and_training_images_are_disjoint_and_repeatable(folder_root: Path) -> None:
    config = folder_config(folder_root, data={"holdout": 0.34, "labels": "full"}, seed=3)
    data = open_data(config)
    assert len(data.holdout) == 2
    assert set(data.holdout) | set(data.train) == set(data.collection.split("train"))
    assert not set(data.holdout) & set(data.train)
    assert open_data(config).holdout == data.holdout
    # A run that goes on from another with a seed of its own would else be measured on what that one was trained on.
    assert open_data(config.model_copy(update={"seed": 4})).holdout == data.holdout
    drawn = {
        open_data(folder_config(folder_root, data={"holdout": 0.34, "labels": "full", "label_seed": seed})).holdout
        for seed in range(5)
    }
    assert len(drawn) > 1


def test_tasks_are_chosen_with_their_weights(folder_root: Path) -> None:
    tasks = open_data(folder_config(folder_root, tasks={"depth": {"weight": 0.5}, "semseg": {"threshold": 0.1}})).tasks
    assert list(tasks) == ["depth", "semseg"]
    assert (tasks["depth"].weight, tasks["depth"].threshold, tasks["semseg"].threshold) == (0.5, 0.85, 0.1)
    folder = open_folder(folder_root)
    assert choose_tasks(folder, None) == folder.tasks
    with pytest.raises(ConfigError, match=r"no task 'dept'.*did you mean 'depth'"):
        open_data(folder_config(folder_root, tasks={"dept": {}}))
    with pytest.raises(ConfigError, match="'tasks' is empty"):
        open_data(folder_config(folder_root, tasks={}))


def test_no_training_images_is_an_error(own_folder: Path) -> None:
    (own_folder / "train.txt").write_text("\n")
    with pytest.raises(DataError, match="no training images"):
        open_data(folder_config(own_folder))


# -- batches -----------------------------------------------------------------------------------------------------------
def test_collate_keeps_labels_with_their_images(tiny_tasks: dict[str, Task]) -> None:
    rng = np.random.default_rng(0)
    present: list[list[str]] = [["depth"], [], ["semseg", "depth"], ["normals"]]
    samples = []
    for n, names in enumerate(present):
        labels = {
            name: Label(random_label(tiny_tasks[name], SIZE, rng), torch.from_numpy(rng.random((1, *SIZE)) > 0.5))
            for name in names
        }
        samples.append(
            Sample(
                f"s{n}", torch.full((3, *SIZE), n, dtype=torch.uint8), torch.ones(1, *SIZE, dtype=torch.bool), labels
            )
        )
    batch = collate(samples, {name: task.label_channels for name, task in tiny_tasks.items()})
    assert batch.ids == ("s0", "s1", "s2", "s3")
    assert batch.image[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    for name in tiny_tasks:
        labels_of = batch.labels[name]
        rows = [n for n, names in enumerate(present) if name in names]
        assert labels_of.rows.tolist() == rows
        assert labels_of.absent.tolist() == [n for n in range(4) if n not in rows]
        assert labels_of.value.shape == (len(rows), tiny_tasks[name].label_channels, *SIZE)
        assert labels_of.valid.dtype == torch.bool
        for at, row in enumerate(rows):
            assert torch.equal(labels_of.value[at], samples[row].labels[name].value)
            assert torch.equal(labels_of.valid[at], samples[row].labels[name].valid)


def same_batch(left: Batch, right: Batch) -> bool:
    if left.ids != right.ids or not torch.equal(left.image, right.image) or not torch.equal(left.pixels, right.pixels):
        return False
    return all(
        torch.equal(getattr(left.labels[name], field), getattr(right.labels[name], field))
        for name in left.labels for field in ("rows", "absent", "value", "valid")
    )  # fmt: skip


# -- geometry ----------------------------------------------------------------------------------------------------------
X, Y = Saliency("x"), Saliency("y")
STEP = 4.0  # grey levels from one pixel to the next


def ramp(height: int = 40, width: int = 56) -> Sample:
    """An image and two labels that all say where each pixel came from."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack([columns * STEP, rows * STEP, torch.full_like(rows, 200)]).to(torch.uint8)
    valid = torch.ones(1, height, width, dtype=torch.bool)
    labels = {
        "x": Label((columns * STEP / 255)[None].float(), valid),
        "y": Label((rows * STEP / 255)[None].float(), valid),
    }
    return Sample("ramp", image, valid.clone(), labels)


def interior(pixels: Tensor, margin: int = 3) -> Tensor:
    """Pixels that are far from padding and from the border, where antialiasing mixes nothing foreign in."""
    inside = torch.nn.functional.pad(pixels.float()[None], [margin] * 4)
    return (-torch.nn.functional.max_pool2d(-inside, 2 * margin + 1, 1) > 0)[0]


@examples(60)
@given(
    seed=st.integers(0, 10**6),
    low=st.floats(0.5, 1.0),
    high=st.floats(1.0, 2.0),
    size=st.sampled_from([SIZE, (40, 56), (64, 64), (15, 50)]),
)
def test_labels_move_with_the_image(seed: int, low: float, high: float, size: tuple[int, int]) -> None:
    settings_ = Augmentation(scale=(low, high))
    sample = augment(ramp(), {"x": X, "y": Y}, size, settings_, np.random.default_rng(seed))
    assert sample.image.shape == (3, *size)
    inside = interior(sample.pixels)
    for channel, name in enumerate("xy"):
        assert sample.labels[name].value.shape == sample.labels[name].valid.shape == (1, *size)
        error = sample.image[channel][None].float() - sample.labels[name].value * 255
        if inside.sum() > 20:
            # Nearest neighbour is at most half a source pixel off (everywhere, when shrinking by an even factor).
            assert error[inside].abs().max() <= STEP / 2 + 1.6


@examples(40)
@given(
    seed=st.integers(0, 10**6), scale=st.floats(0.4, 0.99), size=st.sampled_from([SIZE, (40, 56), (64, 64), (15, 50)])
)
def test_padding_is_black_and_valid_for_nothing(seed: int, scale: float, size: tuple[int, int]) -> None:
    tasks: dict[str, Task] = {
        "x": X, "edge": Edge("edge"), "depth": Depth("depth"), "normals": Normals("normals"),
        "semseg": Segmentation("semseg", classes=("a", "b")),
    }  # fmt: skip
    rng = np.random.default_rng(seed)
    valid = torch.ones(1, 40, 56, dtype=torch.bool)
    labels = {name: Label(random_label(task, (40, 56), rng), valid) for name, task in tasks.items()}
    white = Sample("white", torch.full((3, 40, 56), 255, dtype=torch.uint8), valid, labels)
    sample = augment(white, tasks, size, Augmentation(scale=(scale, scale)), rng)
    covered = scale * scale if size == (40, 56) else None
    assert scale > 0.95 or not sample.pixels.all()
    assert covered is None or sample.pixels.float().mean().item() == pytest.approx(covered, abs=0.07)
    # A pixel whose centre lies outside is at most half white.
    assert (sample.image[0][~sample.pixels[0]] <= 192).all()
    assert (sample.image[0][sample.pixels[0]] >= 64).all()
    for name, label in sample.labels.items():
        assert torch.equal(label.valid, sample.pixels), name


def test_zooming_in_needs_no_padding() -> None:
    for seed in range(20):
        sample = augment(ramp(), {"x": X, "y": Y}, SIZE, Augmentation(scale=(1.0, 2.0)), np.random.default_rng(seed))
        assert sample.pixels.all()


def test_a_zoom_divides_depth_by_as_much_as_it_magnifies() -> None:
    label = Label(torch.full((1, 40, 56), 6.0), torch.ones(1, 40, 56, dtype=torch.bool))
    start = ramp()
    sample = Sample("d", start.image, start.pixels, {"d": label, "x": start.labels["x"]})
    for scale in (1.0, 1.5, 2.0):
        out = augment(
            sample,
            {"d": Depth("d"), "x": X},
            (40, 56),
            Augmentation(scale=(scale, scale), flip=False),
            np.random.default_rng(1),
        )
        columns = out.labels["x"].value[0, 20] * 255 / STEP
        magnified = 55 / (columns[-1] - columns[0]).item()
        assert magnified == pytest.approx(scale, rel=0.05)
        torch.testing.assert_close(out.labels["d"].value, torch.full((1, 40, 56), 6.0 / scale))


def test_late_samples_have_a_zoom_of_the_late_range() -> None:
    label = Label(torch.full((1, 40, 56), 6.0), torch.ones(1, 40, 56, dtype=torch.bool))
    sample = Sample("d", ramp().image, ramp().pixels, {"d": label})

    def zoom(seed: int, late: bool, **ranges: tuple[float, float]) -> float:
        rng = np.random.default_rng(seed)
        out = augment(sample, {"d": Depth("d")}, (40, 56), Augmentation(scale=(1.2, 2.0), **ranges), rng, late)
        return 6.0 / out.labels["d"].value.max().item()

    late = [zoom(seed, True, late_scale=(0.9, 1.1)) for seed in range(40)]
    assert 0.9 <= min(late) < 0.95
    assert 1.05 < max(late) <= 1.1 + 1e-6
    early = [zoom(seed, False, late_scale=(0.9, 1.1)) for seed in range(40)]
    assert min(early) >= 1.2 - 1e-6
    assert early == [zoom(seed, late=True) for seed in range(40)] == [zoom(seed, late=False) for seed in range(40)]


def test_the_widest_range_is_that_of_both() -> None:
    assert Augmentation(scale=(0.8, 1.5)).widest == (0.8, 1.5)
    assert Augmentation(scale=(0.8, 1.5), late_scale=(0.9, 1.2)).widest == (0.8, 1.5)
    assert Augmentation(scale=(1.0, 1.5), late_scale=(0.5, 2.0)).widest == (0.5, 2.0)


def test_a_flip_mirrors_image_labels_and_masks_and_is_its_own_inverse() -> None:
    rng = np.random.default_rng(0)
    normals = Label(random_label(Normals("n"), (40, 56), rng), torch.from_numpy(rng.random((1, 40, 56)) > 0.5))
    start = ramp()
    sample = Sample("f", start.image, torch.from_numpy(rng.random((1, 40, 56)) > 0.5), {**start.labels, "n": normals})
    tasks: dict[str, Task] = {"x": X, "y": Y, "n": Normals("n")}
    once, twice = flip(sample, tasks), flip(flip(sample, tasks), tasks)
    assert torch.equal(once.image, sample.image.flip(-1))
    assert torch.equal(once.pixels, sample.pixels.flip(-1))
    assert torch.equal(once.labels["n"].valid, normals.valid.flip(-1))
    assert torch.equal(once.labels["n"].value[0], -normals.value[0].flip(-1))
    assert torch.equal(twice.image, sample.image)
    assert all(torch.equal(twice.labels[name].value, sample.labels[name].value) for name in tasks)


def test_flips_happen_about_half_of_the_time_and_only_if_asked() -> None:
    def flipped(seed: int, wanted: bool) -> bool:
        sample = augment(ramp(), {"x": X, "y": Y}, SIZE, Augmentation(flip=wanted), np.random.default_rng(seed))
        return bool(sample.image[0, 5, 0] > sample.image[0, 5, -1])

    assert 10 < sum(flipped(seed, True) for seed in range(40)) < 30
    assert not any(flipped(seed, False) for seed in range(20))


def test_augmentation_does_not_change_the_sample_that_it_was_given() -> None:
    sample, twin = ramp(), ramp()
    for seed in range(5):
        augment(sample, {"x": X, "y": Y}, SIZE, MOVING, np.random.default_rng(seed))
    assert torch.equal(sample.image, twin.image)
    assert torch.equal(sample.pixels, twin.pixels)
    assert all(torch.equal(sample.labels[n].value, twin.labels[n].value) for n in "xy")


def test_a_large_sample_shrinks_until_it_just_covers() -> None:
    small = shrink_to_cover(ramp(120, 200), {"x": X, "y": Y}, (32, 48))
    assert small.image.shape[-2:] == (32, 53)
    assert shrink_to_cover(small, {"x": X, "y": Y}, (64, 96)) is small
    assert resize(small, {"x": X, "y": Y}, (32, 53)) is small


def test_colour_changes_are_drawn_an_image_and_keep_the_type() -> None:
    images = torch.randint(0, 256, (3, 3, 8, 9), dtype=torch.uint8)
    images[1] = images[0]
    changed = photometric(images, 0.5, torch.Generator().manual_seed(0))
    assert changed.dtype == torch.uint8
    assert changed.shape == images.shape
    assert not torch.equal(changed[0], changed[1])
    assert torch.equal(changed, photometric(images, 0.5, torch.Generator().manual_seed(0)))
    assert torch.equal(photometric(images, 0.0, torch.Generator()), images)


# -- order -------------------------------------------------------------------------------------------------------------
samplers = st.tuples(st.integers(1, 40), st.integers(1, 12), st.integers(0, 1000))


@given(drawn=samplers)
def test_an_epoch_has_each_index_at_most_once_and_all_batches_are_whole(drawn: tuple[int, int, int]) -> None:
    length, batch, seed = drawn
    sampler = EpochSampler(length, batch, seed)
    steps = sampler.steps_per_epoch
    assert steps >= 1
    for epoch, batches in enumerate([list(islice(sampler, steps)), list(islice(sampler, steps, 2 * steps))]):
        assert {draw.epoch for items in batches for draw in items} == {epoch}
        assert all(len(items) == min(batch, length) for items in batches)
        indices = [draw.number for items in batches for draw in items]
        assert len(set(indices)) == len(indices) > length - min(batch, length)
        assert set(indices) <= set(range(length))


@given(drawn=samplers, first=st.integers(0, 30))
def test_an_order_goes_on_at_any_step(drawn: tuple[int, int, int], first: int) -> None:
    resumed = list(islice(EpochSampler(*drawn, first_step=first), 5))
    assert resumed == list(islice(EpochSampler(*drawn), first, first + 5))


def test_epochs_and_seeds_differ_in_order() -> None:
    first, second = list(islice(EpochSampler(20, 20, 0), 2))
    other = next(iter(EpochSampler(20, 20, 1)))
    orders = {tuple(draw.number for draw in items) for items in (first, second, other)}
    assert len(orders) == 3


@given(drawn=samplers, first=st.integers(0, 30), late=st.integers(0, 30), parts=st.integers(1, 2))
def test_draws_are_late_from_a_step_on_wherever_the_order_begins(
    drawn: tuple[int, int, int], first: int, late: int, parts: int
) -> None:
    parts = min(parts, *drawn[:2])
    sampler = EpochSampler(*drawn, first_step=first, accumulate=parts, late_step=late)
    for number, items in enumerate(islice(sampler, 8 * parts)):
        assert {draw.late for draw in items} == {first + number // parts >= late}


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_evaluation_sees_each_image_once(folder_root: Path, ranks: int) -> None:
    folder = open_folder(folder_root)
    dataset = PartialDataset(folder, all_visible(folder, tuple(folder.images), folder.tasks), folder.tasks, SIZE)
    seen = [id for rank in range(ranks) for batch in eval_loader(dataset, 3, rank, ranks) for id in batch.ids]  # type: ignore[attr-defined]
    assert sorted(seen) == sorted(folder.images)


# -- data sets ---------------------------------------------------------------------------------------------------------
def partial(
    root: Path, seed: int = 0, cache: bool = False, augmentation: Augmentation | None = MOVING
) -> PartialDataset:
    data = open_data(folder_config(root, data={"labels": "one"}))
    return PartialDataset(data.collection, data.train, data.tasks, SIZE, augmentation, seed, cache)


def as_batch(dataset: PartialDataset, *keys: tuple[int, int]) -> Batch:
    return collate([dataset[key] for key in keys], {name: task.label_channels for name, task in dataset.tasks.items()})


def test_a_sample_depends_on_seed_epoch_and_index_alone(folder_root: Path) -> None:
    dataset, again = partial(folder_root), partial(folder_root)
    keys = [(0, 0), (0, 3), (1, 0), (7, 5)]
    before = [as_batch(dataset, key) for key in keys]
    after = [as_batch(again, key) for key in reversed(keys)][::-1]
    assert all(same_batch(a, b) for a, b in zip(before, after, strict=True))
    assert not torch.equal(before[0].image, before[2].image)
    assert not torch.equal(before[0].image, as_batch(partial(folder_root, seed=1), (0, 0)).image)


@pytest.mark.parametrize("augmentation", [MOVING, None], ids=["train", "evaluation"])
def test_the_cache_changes_nothing(folder_root: Path, augmentation: Augmentation | None) -> None:
    plain, cached = (partial(folder_root, cache=cache, augmentation=augmentation) for cache in (False, True))
    for epoch in range(3):
        keys = [(epoch, index) for index in range(len(plain))]
        assert same_batch(as_batch(plain, *keys), as_batch(cached, *keys))


def test_the_cache_spares_the_files(own_folder: Path) -> None:
    dataset = partial(own_folder, cache=True)
    first = as_batch(dataset, *((0, index) for index in range(len(dataset))))
    for folder in ("images", *dataset.tasks):
        for path in (own_folder / folder).iterdir():
            path.unlink()
    assert same_batch(first, as_batch(dataset, *((0, index) for index in range(len(dataset)))))


def test_workers_change_nothing(folder_root: Path) -> None:
    batches = []
    for workers in (0, 2):
        dataset = partial(folder_root, cache=True)
        loader = train_loader(dataset, EpochSampler(len(dataset), 2, 5, first_step=1), workers)
        batches.append(list(islice(loader, 5)))
    assert all(same_batch(a, b) for a, b in zip(*batches, strict=True))  # type: ignore[arg-type]


def test_without_augmentation_a_sample_is_stretched_and_epochs_are_alike(folder_root: Path) -> None:
    dataset = partial(folder_root, augmentation=None)
    assert same_batch(as_batch(dataset, (0, 2)), as_batch(dataset, (9, 2)))
    assert dataset[0, 2].image.shape == (3, *SIZE)
    assert dataset[0, 2].pixels.all()


def test_hidden_label_files_are_not_opened(own_folder: Path) -> None:
    dataset = partial(own_folder)
    expected = [as_batch(dataset, (0, index)) for index in range(len(dataset))]
    for name in dataset.tasks:
        for id in dataset.ids:
            if name not in dataset.split[id]:
                (own_folder / name / f"{id}.png").write_bytes(b"garbage")
    seen = [as_batch(partial(own_folder), (0, index)) for index in range(len(dataset))]
    assert all(same_batch(a, b) for a, b in zip(expected, seen, strict=True))
    assert sum(len(label.rows) for batch in seen for label in batch.labels.values()) == len(dataset)


def test_a_damaged_visible_label_is_named(own_folder: Path) -> None:
    dataset = partial(own_folder)
    id = dataset.ids[0]
    (own_folder / dataset.split[id][0] / f"{id}.png").write_bytes(b"garbage")
    with pytest.raises(LabelError, match=f"{id}.png"):
        dataset[0, 0]


def test_images_may_have_different_sizes(own_folder: Path, make_folder: Callable[..., Path], tmp_path: Path) -> None:
    other = make_folder(tmp_path / "other", height=60, width=36, seed=9)
    for folder in ("images", "semseg", "depth", "normals", "edge", "saliency"):
        (other / folder / "im00.png").replace(own_folder / folder / "im00.png")
    batch = as_batch(partial(own_folder), *((0, index) for index in range(6)))
    assert batch.image.shape == (6, 3, *SIZE)
