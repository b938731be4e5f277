"""Transforms driven by each task's rules: labels move with the image, values follow the geometry, padding is void."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from any_input import examples
from properties import random_label
from tasktokens.config import Augmentation, load_config
from tasktokens.data.sample import Label, Sample
from tasktokens.data.transforms import augment, flip, photometric, resize, resize_image
from tasktokens.tasks import Depth, Edge, Normals, Saliency, Segmentation, Task
from tasktokens.utils.resizing import working_size

TASKS: dict[str, Task] = {
    "semseg": Segmentation("semseg", classes=("dark", "light")),
    "depth": Depth("depth"),
    "inverse": Depth("inverse", minimum=0.01, maximum=1.0, inverse=True),
    "normals": Normals("normals"),
    "saliency": Saliency("saliency"),
    "edge": Edge("edge"),
}
DARK, LIGHT = torch.tensor([0.6, 0.0, -0.8]), torch.tensor([0.36, 0.48, -0.8])
SIZES = st.sampled_from([(64, 96), (48, 48), (40, 120), (90, 60)])
SCALES = st.floats(0.5, 2.0)
SEEDS = st.integers(0, 10**6)


def board(height: int = 64, width: int = 96, cell: int = 16, void: slice = slice(20, 44)) -> Sample:
    """A checkerboard in red and in every label; green grows to the right; blue shows where labels are void (or NaN)."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    light = ((rows // cell + columns // cell) % 2)[None]
    valid = torch.ones(1, height, width, dtype=torch.bool)
    valid[:, :, void] = False
    image = torch.cat([light * 255, columns[None] * 2, (~valid) * 255]).to(torch.uint8)
    values = {
        "semseg": light.to(torch.uint8),
        "depth": torch.where(light == 1, 6.0, 2.0),
        "inverse": torch.where(light == 1, 0.125, 0.25),
        "normals": torch.where(light == 1, LIGHT[:, None, None], DARK[:, None, None]),
        "saliency": light.float(),
    }
    labels = {
        name: Label(torch.where(valid, value, float("nan")) if value.is_floating_point() else value, valid.clone())
        for name, value in values.items()
    }
    return Sample("board", image, torch.ones(1, height, width, dtype=torch.bool), labels)


def assert_moved(sample: Sample, scale: float) -> None:
    """Wherever the picture is plainly dark or light, plainly void or not, each label says the same."""
    red, blue = sample.image[0].int(), sample.image[2].int()
    plain = ((red < 20) | (red > 235)) & ((blue < 20) | (blue > 235)) & sample.pixels[0]
    light = red > 127
    across = sample.image[1].float()[sample.pixels[0]].diff()
    mirrored = across.median() < 0 if across.median() != 0 else across[across.abs() < 30].mean() < 0
    for name, label in sample.labels.items():
        assert torch.equal(label.valid[0][plain], blue[plain] < 127), name
        assert not label.valid[~sample.pixels].any(), name
        seen = plain & label.valid[0]
        if not seen.any():
            continue
        value = label.value[:, seen]
        if name == "normals":
            sign = torch.tensor([-1.0 if mirrored else 1.0, 1.0, 1.0])[:, None]
            expected = sign * torch.where(light[seen], LIGHT[:, None], DARK[:, None])
        else:
            near = {"semseg": (0, 1), "saliency": (0, 1), "depth": (2 / scale, 6 / scale)}
            low, high = near.get(name, (0.25 * scale, 0.125 * scale))
            expected = torch.where(light[seen], high, low)[None]
        torch.testing.assert_close(value.float(), expected.float(), msg=lambda text, name=name: f"{name}: {text}")


@examples(80)
@given(seed=SEEDS, scale=SCALES, size=SIZES, share=st.sampled_from([None, 0.75]))
def test_a_checkerboard_and_its_labels_move_together(
    seed: int, scale: float, size: tuple[int, int], share: float | None
) -> None:
    changes = Augmentation(scale=(scale, scale), crop_max_share=share)
    sample = augment(board(), TASKS, size, changes, np.random.default_rng(seed))
    assert sample.image.shape == (3, *size)
    assert sample.image.dtype == torch.uint8
    assert all(label.value.shape[-2:] == label.valid.shape[-2:] == size for label in sample.labels.values())
    assert_moved(sample, scale)


@given(size=SIZES)
def test_a_stretched_checkerboard_fits_its_labels(size: tuple[int, int]) -> None:
    assert_moved(resize(board(), TASKS, size), 1.0)


@examples(30)
@given(seed=SEEDS, scale=SCALES, size=SIZES)
def test_normals_keep_their_length(seed: int, scale: float, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    valid = torch.from_numpy(rng.random((1, 40, 56)) > 0.2)
    label = Label(random_label(TASKS["normals"], (40, 56), rng), valid)
    sample = Sample("n", torch.zeros(3, 40, 56, dtype=torch.uint8), torch.ones_like(valid), {"normals": label})
    out = augment(sample, TASKS, size, Augmentation(scale=(scale, scale)), rng).labels["normals"]
    length = out.value.norm(dim=0)[out.valid[0]]
    torch.testing.assert_close(length, torch.ones_like(length))
    assert (out.value[2][out.valid[0]] <= 0).all()


@pytest.mark.parametrize("name", TASKS)
def test_a_flip_is_its_own_inverse_and_changes_nothing_that_it_was_given(name: str) -> None:
    rng = np.random.default_rng(3)
    value = random_label(TASKS[name], (9, 14), rng)
    valid = torch.from_numpy(rng.random((1, 9, 14)) > 0.3)
    image = torch.from_numpy(rng.integers(0, 256, (3, 9, 14), dtype=np.uint8))
    sample = Sample("f", image, valid.clone(), {name: Label(value, valid)})
    before = value.clone()
    once = flip(sample, TASKS)
    twice = flip(once, TASKS)
    assert torch.equal(sample.labels[name].value, before)
    assert torch.equal(once.labels[name].valid, valid.flip(-1))
    assert torch.equal(twice.labels[name].value, value)
    assert torch.equal(twice.labels[name].valid, valid)
    assert torch.equal(twice.image, image)
    assert torch.equal(twice.pixels, sample.pixels)


@examples(30)
@given(seed=SEEDS, scale=SCALES, column=st.integers(40, 55))
def test_a_line_of_one_pixel_survives_and_stays_on_its_picture(seed: int, scale: float, column: int) -> None:
    line = torch.zeros(1, 64, 96)
    line[:, :, column] = 1
    valid = torch.ones(1, 64, 96, dtype=torch.bool)
    start = Sample("l", (line * 255).expand(3, -1, -1).to(torch.uint8), valid, {"edge": Label(line, valid)})
    changes = Augmentation(scale=(scale, scale))
    sample = augment(start, TASKS, (64, 96), changes, np.random.default_rng(seed))
    drawn = sample.image[0].float().mean(dim=0)
    labelled = sample.labels["edge"].value[0].amax(dim=0)
    if drawn.max() > 0:
        centre = (drawn * torch.arange(96)).sum() / drawn.sum()
        marked = labelled.nonzero().float()
        if 2 < centre < 93:
            assert labelled.max() == 1
            assert (marked.mean() - centre).abs() <= 1


# -- zoom and padding --------------------------------------------------------------------------------------------------
@examples(40)
@given(seed=SEEDS, scale=st.floats(0.5, 0.98), size=SIZES)
def test_beyond_the_border_is_black_and_void_and_no_border_is_mixed_in(
    seed: int, scale: float, size: tuple[int, int]
) -> None:
    start = board(void=slice(0, 0))
    white = Sample("w", torch.full_like(start.image, 255), start.pixels, start.labels)
    sample = augment(white, TASKS, size, Augmentation(scale=(scale, scale)), np.random.default_rng(seed))
    assert torch.equal(sample.image > 127, sample.pixels.expand(3, -1, -1))
    assert set(sample.image.unique().tolist()) <= {0, 255}
    for label in sample.labels.values():
        assert torch.equal(label.valid, sample.pixels)
    if size == (64, 96):
        assert sample.pixels.float().mean().item() == pytest.approx(scale**2, abs=0.03)


@pytest.mark.parametrize("scale", [0.5, 0.7, 1.0, 1.4, 2.0])
def test_a_zoom_magnifies_by_as_much_as_it_says(scale: float) -> None:
    columns = torch.arange(96).expand(64, 96)[None]
    position = Label((columns / 96).float(), torch.ones(1, 64, 96, dtype=torch.bool))
    sample = Sample("p", columns.expand(3, -1, -1).to(torch.uint8), position.valid, {"saliency": position})
    changes = Augmentation(scale=(scale, scale), flip=False)
    out = augment(sample, TASKS, (64, 96), changes, np.random.default_rng(0))
    row = out.labels["saliency"].value[0, 32] * 96
    seen = row[out.labels["saliency"].valid[0, 32]]
    assert (len(seen) - 1) / (seen[-1] - seen[0]).item() == pytest.approx(scale, rel=0.04)


def test_zooms_spread_over_their_whole_range() -> None:
    shares = []
    for seed in range(200):
        label = augment(board(), TASKS, (64, 96), Augmentation(scale=(0.5, 2.0)), np.random.default_rng(seed))
        shares.append(6 / label.labels["depth"].value[label.labels["depth"].valid].max().item())
    scales = torch.tensor([s for s in shares if s <= 2.0])
    assert scales.min() < 0.55
    assert scales.max() > 1.8
    # As many zooms in as out.
    assert 0.35 < (scales < 1).float().mean() < 0.65


def test_draws_are_those_of_the_shipped_runs() -> None:
    """Zoom, top, left, mirror, in this order: what the published figures were trained with."""
    rng = np.random.default_rng([0, 3, 5])
    scale = np.exp(rng.uniform(np.log(1.0), np.log(1.6)))
    height, width = round(64 / scale), round(96 / scale)
    top, left = rng.integers(64 - height + 1), rng.integers(96 - width + 1)
    mirrored = rng.random() < 0.5
    sample = augment(board(), TASKS, (64, 96), Augmentation(scale=(1.0, 1.6)), np.random.default_rng([0, 3, 5]))
    part = board().labels["semseg"].value[:, top : top + height, left : left + width]
    expected = F.interpolate(part[None], (64, 96), mode="nearest-exact")[0]
    assert torch.equal(sample.labels["semseg"].value, expected.flip(-1) if mirrored else expected)


# -- the 75 % rule -----------------------------------------------------------------------------------------------------
def halves(names: tuple[str, ...]) -> Sample:
    """Left of the middle one class, right of it another; the image tells how far right a pixel is."""
    start = board(void=slice(0, 0))
    image = (torch.arange(96) * 2).expand(3, 64, 96).to(torch.uint8)
    semseg = (torch.arange(96) >= 48).expand(1, 64, 96).to(torch.uint8)
    labels = {**start.labels, "semseg": Label(semseg, start.pixels)}
    return Sample("halves", image, start.pixels, {name: labels[name] for name in names})


def largest_share(sample: Sample) -> float:
    """The larger half's share of a crop, read off the image."""
    right = (sample.image[0].float() / 2 >= 47.5).float().mean().item()
    return max(right, 1 - right)


def crops(names: tuple[str, ...], share: float | None) -> list[Sample]:
    changes = Augmentation(scale=(2.0, 2.0), crop_max_share=share, flip=False)
    return [augment(halves(names), TASKS, (64, 96), changes, np.random.default_rng(seed)) for seed in range(60)]


def test_a_crop_of_mostly_one_class_is_drawn_again() -> None:
    assert max(map(largest_share, crops(("semseg", "depth"), None))) > 0.95
    limited = crops(("semseg", "depth"), 0.75)
    # Ten bad draws in a row are rare.
    assert sum(largest_share(sample) > 0.78 for sample in limited) <= 1
    assert len({largest_share(sample) for sample in limited}) > 10


def test_the_rule_asks_visible_classes_only() -> None:
    free, asked = crops(("depth", "normals"), None), crops(("depth", "normals"), 0.75)
    assert all(torch.equal(a.image, b.image) for a, b in zip(free, asked, strict=True))
    assert max(map(largest_share, asked)) > 0.95


def test_crops_without_any_choice_are_taken_as_they_are() -> None:
    one_class = halves(("semseg",))
    changes = Augmentation(scale=(1.0, 1.0), crop_max_share=0.3, flip=False)
    sample = augment(one_class, TASKS, (64, 96), changes, np.random.default_rng(0))
    assert torch.equal(sample.image, one_class.image)


def test_a_share_counts_valid_pixels_alone() -> None:
    task = Segmentation("s", classes=("a", "b", "c"))
    value = torch.tensor([[[0, 0, 0, 0], [1, 1, 2, 2]]], dtype=torch.uint8)
    valid = torch.tensor([[[True, False, False, False], [True, True, True, False]]])
    assert not task.crop_ok(value, valid, 0.4)
    assert task.crop_ok(value, valid, 0.5)
    assert not task.crop_ok(value, torch.zeros_like(valid), 0.9)
    assert all(TASKS[name].crop_ok(value.float(), valid, 0.01) for name in ("depth", "normals", "edge", "saliency"))


def test_shipped_configurations_do_not_use_it() -> None:
    root = Path(__file__).parents[3]
    for path in (root / "configs" / "accuracy_nyud.yaml", root / "src" / "tasktokens" / "assets" / "demo.yaml"):
        assert load_config(path).data.augmentation.crop_max_share is None


# -- the image alone ---------------------------------------------------------------------------------------------------
@examples(40)
@given(seed=SEEDS, size=SIZES, layout=st.booleans())
def test_resizing_in_bytes_is_within_a_level_of_floats(seed: int, size: tuple[int, int], layout: bool) -> None:
    image = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (50, 70, 3), dtype=np.uint8)).permute(2, 0, 1)
    image = image if layout else image.contiguous()
    exact = F.interpolate(image[None].float(), size, mode="bilinear", antialias=True, align_corners=False)[0]
    assert (resize_image(image, size).float() - exact).abs().max() <= 1.01


def reference_colours(image_B3HW: Tensor, strength: float, draws: Tensor) -> Tensor:
    """One change after the other, as the words go: brightness and white balance, contrast, saturation."""
    out = []
    for image, draw in zip(image_B3HW.double(), draws.double(), strict=True):
        brightness, contrast, saturation, *white = (1 + strength * (2 * draw - 1)).tolist()
        balance = torch.tensor([1 + 0.3 * (w - 1) for w in white], dtype=torch.float64)
        image = image * brightness * balance[:, None, None]
        image = (image - image.mean()) * contrast + image.mean()
        grey = image.mean(dim=0, keepdim=True)
        out.append(((image - grey) * saturation + grey).round().clamp(0, 255))
    return torch.stack(out)


@given(seed=SEEDS, strength=st.floats(0.01, 1.0))
def test_colours_change_as_if_one_after_the_other(seed: int, strength: float) -> None:
    images = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (2, 3, 7, 9), dtype=np.uint8))
    draws = torch.rand(2, 6, generator=torch.Generator().manual_seed(seed))
    changed = photometric(images, strength, torch.Generator().manual_seed(seed))
    assert (changed.double() - reference_colours(images, strength, draws)).abs().max() <= 1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(changed, photometric(images, strength, torch.Generator().manual_seed(seed)))


# -- sizes that a network sees -----------------------------------------------------------------------------------------
@given(height=st.integers(20, 3000), width=st.integers(20, 3000))
def test_a_working_size_keeps_shape_and_area(height: int, width: int) -> None:
    out = working_size((height, width), (288, 384))
    if abs(height / width / 0.75 - 1) < 0.009:
        assert out == (288, 384)
        return
    assert out == (288, 384) or (out[0] % 32 == out[1] % 32 == 0)
    if 0.2 < height / width < 5:
        assert 0.75 < out[0] * out[1] / (288 * 384) < 1.35
        assert abs(np.log((out[0] / out[1]) / (height / width))) < 0.18


def test_the_zoom_range_of_a_configuration_is_checked(make_config: Any, folder_root: Path, tmp_path: Path) -> None:
    changes: Mapping[str, Any] = {"data.augmentation": {"scale": [0.5, 2.0], "crop_max_share": 0.75}}
    assert make_config(folder_root, tmp_path, **changes).data.augmentation.crop_max_share == 0.75
