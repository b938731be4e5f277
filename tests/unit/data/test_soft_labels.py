"""Soft labels move with their image: truth by NumPy, from maps whose channels say where in the image they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from any_input import examples
from tasktokens.config import Augmentation
from tasktokens.data.sample import Sample, collate
from tasktokens.data.soft_labels import SoftLabel, Window, stack_soft
from tasktokens.data.transforms import augment, flip
from tasktokens.tasks import Depth, Edge, Normals, Segmentation, Task

COORDINATES = Segmentation("where", classes=("down", "across"))
SIDES = st.integers(24, 90)
CELLS = st.integers(3, 12)


def sample_of(height: int, width: int, soft: Mapping[str, SoftLabel]) -> Sample:
    """An image whose red is the row and whose green is the column of each pixel, in 250ths of the image."""
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    image = torch.stack([rows / height * 250, columns / width * 250, torch.zeros_like(rows)]).round().to(torch.uint8)
    return Sample("s", image, torch.ones(1, height, width, dtype=torch.bool), {}, discovered=soft)


def where(height: int, width: int) -> SoftLabel:
    """A map whose two channels are the cells' row and column in shares of the image."""
    down, across = (np.arange(n, dtype=np.float32) + 0.5 for n in (height, width))
    grid = np.stack(np.meshgrid(down / height, across / width, indexing="ij"))
    return SoftLabel(torch.from_numpy(grid))


@examples(120)
@given(
    sides=st.tuples(SIDES, SIDES), size=st.sampled_from([(64, 96), (48, 48), (32, 80)]), cells=st.tuples(CELLS, CELLS),
    scale=st.floats(0.5, 2.0), mirrored=st.booleans(), seed=st.integers(0, 10**6),
)  # fmt: skip
def test_a_map_of_coordinates_says_what_the_picture_s_colours_say(
    sides: tuple[int, int], size: tuple[int, int], cells: tuple[int, int], scale: float, mirrored: bool, seed: int
) -> None:
    """Whatever is cropped, padded, zoomed and mirrored: each cell of the head's map has the place of its pixels."""
    tasks = {"where": COORDINATES}
    changes = Augmentation(scale=(scale, scale), flip=mirrored)
    out = augment(sample_of(*sides, {"where": where(*cells)}), tasks, size, changes, np.random.default_rng(seed))
    head = (size[0] // 4, size[1] // 4)
    found = out.discovered["where"].at(COORDINATES, head).logits.float().numpy()
    picture = out.image[:2].float().numpy() / 250
    inside = out.pixels[0].numpy().reshape(head[0], 4, head[1], 4).all((1, 3))
    seen = picture.reshape(2, head[0], 4, head[1], 4).mean((2, 4))
    # Beyond the centres of the outermost cells a map knows no slope.
    for axis in (0, 1):
        expected = seen[axis].clip(0.5 / cells[axis], 1 - 0.5 / cells[axis])
        stretched = sides[axis] / (size[axis] * min(sides[0] / size[0], sides[1] / size[1]) / scale)
        tolerance = 0.01 + 2.5 / sides[axis] + 0.5 / (size[axis] * min(1.0, stretched))
        assert np.abs(found[axis] - expected)[inside].max(initial=0) < tolerance


def test_a_window_is_cut_out_by_linear_interpolation() -> None:
    """Against NumPy's own interpolation, one axis after the other."""
    rng = np.random.default_rng(0)
    stored = rng.normal(size=(3, 7, 9)).astype(np.float32)
    window = Window(0.13, 0.21, 0.55, 0.7)
    found = SoftLabel(torch.from_numpy(stored), window).at(Segmentation("s", classes=("a", "b", "c")), (5, 8)).logits
    down = (window.top + window.height * (np.arange(5) + 0.5) / 5) * 7 - 0.5
    across = (window.left + window.width * (np.arange(8) + 0.5) / 8) * 9 - 0.5
    rows = np.stack([[np.interp(down, np.arange(7), stored[k, :, x]) for x in range(9)] for k in range(3)])
    expected = np.stack([[np.interp(across, np.arange(9), rows[k, :, y]) for y in range(5)] for k in range(3)])
    np.testing.assert_allclose(found.float().numpy(), expected, atol=3e-3)  # float16


@given(height=st.integers(2, 40), width=st.integers(2, 40), seed=st.integers(0, 99))
def test_what_is_not_moved_stays_as_it_is_bit_for_bit(height: int, width: int, seed: int) -> None:
    logits = torch.randn(4, height, width, generator=torch.Generator().manual_seed(seed)).half()
    tasks: dict[str, Task] = {"s": Segmentation("s", classes=("a", "b", "c", "d"))}
    size = (4 * height, 4 * width)
    sample = sample_of(*size, {"s": SoftLabel(logits)})
    out = augment(sample, tasks, size, Augmentation(scale=(1, 1), flip=False), np.random.default_rng(seed))
    assert torch.equal(out.discovered["s"].at(tasks["s"], (height, width)).logits, logits)
    twice = flip(flip(sample, tasks), tasks).discovered["s"]
    assert torch.equal(twice.at(tasks["s"], (height, width)).logits, logits)


def test_a_mirrored_map_is_what_the_task_makes_of_it() -> None:
    """Paired classes and mirrored directions change places; a crop after the mirror is one of the mirrored sample."""
    tasks: dict[str, Task] = {
        "parts": Segmentation("parts", classes=("left", "right", "none"), mirror=((0, 1),)),
        "normals": Normals("normals"),
        "edge": Edge("edge"),
    }
    for name, task in tasks.items():
        logits = torch.randn(task.num_tokens, 6, 8).half()
        once = flip(sample_of(24, 32, {name: SoftLabel(logits)}), tasks).discovered[name]
        assert torch.equal(once.at(task, (6, 8)).logits, task.flip_logits(logits[None])[0])
        cut = once.crop(4, 8, 12, 16, (24, 32)).at(task, (3, 4)).logits
        assert torch.equal(cut, task.flip_logits(logits[None])[0][:, 1:4, 2:6])


@examples(30)
@given(scale=st.floats(0.7, 1.5), seed=st.integers(0, 99))
def test_a_magnified_image_is_nearer(scale: float, seed: int) -> None:
    task = Depth("depth", minimum=0.5, maximum=20.0, bins=64)
    metres = 3.0
    nearest = (task.centres() - metres).abs().argmin()
    logits = torch.full((64, 6, 8), -20.0)
    logits[nearest] = 0
    changes = Augmentation(scale=(scale, scale))
    sample = sample_of(24, 32, {"depth": SoftLabel(logits)})
    out = augment(sample, {"depth": task}, (24, 32), changes, np.random.default_rng(seed))
    decoded = task.decode(out.discovered["depth"].at(task, (6, 8)).logits.float()[None])
    np.testing.assert_allclose(decoded.numpy(), metres / scale, rtol=0.07)


def test_labels_of_a_batch_keep_their_rows_and_nothing_has_their_shape() -> None:
    a, b = SoftLabel(torch.ones(2, 3, 4).half()), SoftLabel(torch.zeros(2, 3, 4).half())
    stacked = stack_soft([None, a, None, b], (2, 3, 4))
    assert stacked.rows.tolist() == [1, 3]
    assert torch.equal(stacked.logits, torch.stack([a.logits, b.logits]))
    empty: Any = stack_soft([None], (2, 3, 4))
    assert (empty.rows.shape, empty.logits.shape, empty.logits.dtype) == ((0,), (0, 2, 3, 4), torch.float16)
    batch = collate(
        [sample_of(12, 16, {}), sample_of(12, 16, {"s": a})], {"s": 1, "t": 1}, {"s": (2, 3, 4), "t": (5, 3, 4)}
    )
    assert batch.discovered["s"].rows.tolist() == [1]
    assert batch.discovered["t"].logits.shape == (0, 5, 3, 4)
    doubled = batch.map(lambda x: x * 2)
    assert torch.equal(doubled.discovered["s"].logits, a.logits[None] * 2)
    assert collate([sample_of(12, 16, {})], {"s": 1}).discovered == {}
