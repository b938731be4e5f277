"""Tiles: where they lie, their weights, their blended logits beside NumPy's and beside the whole image's, decoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import tasktokens
from tasktokens.errors import ConfigError
from tasktokens.inference import tiles as module
from tasktokens.inference.image_rows import ArrayRows
from tasktokens.inference.predictor import Predictor
from tasktokens.inference.stream import Stopped
from tasktokens.inference.tiles import Blended, RowDecoder, Tiles, choose_tiles, parse_tile, tile_starts, tile_weights
from tasktokens.models.decoding import decode_with_confidence_at
from tasktokens.tasks import build_task

CELL, REACH = 4, 15
"""Pixels per logit of `Convolutional`, and how far away a pixel can be that enters one."""


class Convolutional(nn.Module):
    """Nothing but convolutions: what it says of a pixel depends on those within `REACH` alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 5, 3, 1, 1)
        )

    def forward(self, image_B3HW: Tensor) -> Tensor:
        found: Tensor = self.layers(image_B3HW.float() / 255)
        return found


class Stub:
    """As much of a predictor as blending needs."""

    device, batch_size = torch.device("cpu"), 3

    def __init__(self, network: Callable[[Tensor], Tensor] | None = None) -> None:
        self.network = network or Convolutional()

    @torch.no_grad()
    def logits(self, seen_13hw: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        return [{"task": self.network(image)} for image in seen_13hw]


def draw(height: int, width: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def blended(image: Any, tiles: Tiles, stub: Any = None) -> Any:
    """(K, h, w)."""
    rows = Blended(stub or Stub(), ArrayRows(image), tiles).rows()
    return torch.cat([logits.clone() for _, _, logits in rows], dim=2)[0].numpy()


# -- where they lie ----------------------------------------------------------------------------------------------------
@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 9))
def test_tiles_cover_a_side_and_stay_within_it(side: int, tile: int, step: int) -> None:
    step = min(step, tile)
    starts = tile_starts(side, tile, step)
    length = min(side, tile)
    covered = {place for start in starts for place in range(start, start + length)}
    assert covered == set(range(side))
    assert starts == sorted(set(starts))


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 12))
def test_weights_add_up_to_one_and_fall_off_to_borders_between_tiles(side: int, tile: int, step: int) -> None:
    length = min(side, tile)
    starts = tile_starts(side, tile, min(step, tile))
    total = np.zeros(side)
    for start, weights in zip(starts, tile_weights(starts, length, side), strict=True):
        assert (weights > 0).all()
        total[start : start + length] += weights.numpy()
    np.testing.assert_allclose(total, 1, rtol=1e-6)
    first = tile_weights(starts, length, side)[0]
    if len(starts) == 2 and starts[1] < length:
        assert (first[: starts[1]] == 1).all()  # to the border of the image nothing falls off
        assert (first.diff() <= 0).all()


@pytest.mark.parametrize("size", [(96, 128), (70, 101), (64, 64), (33, 200), (20, 20)])
@pytest.mark.parametrize(("tile", "overlap"), [((64, 64), 32), ((32, 96), 0), ((96, 64), 32)])
def test_blending_is_that_of_numpy(size: tuple[int, int], tile: tuple[int, int], overlap: int) -> None:
    image, stub = draw(*size), Stub()
    tiles = Tiles(tile, (tile[0] - overlap, tile[1] - overlap), 32)
    padded = np.pad(image, ((0, -size[0] % 32), (0, -size[1] % 32), (0, 0)), mode="edge")
    height, width = padded.shape[:2]
    sums, weights = np.zeros((5, height // CELL, width // CELL)), np.zeros((height // CELL, width // CELL))
    high, wide = min(tile[0], height), min(tile[1], width)
    for top in tile_starts(height, high, tiles.step[0]):
        for left in tile_starts(width, wide, tiles.step[1]):
            part = torch.from_numpy(padded[top : top + high, left : left + wide].copy()).permute(2, 0, 1)[None]
            logits = stub.logits([part])[0]["task"][0].numpy()
            weight = np.outer(ramp(top, high, height, tiles.step[0]), ramp(left, wide, width, tiles.step[1]))
            place = (slice(top // CELL, (top + high) // CELL), slice(left // CELL, (left + wide) // CELL))
            sums[:, *place] += logits * weight
            weights[place] += weight
    np.testing.assert_allclose(blended(image, tiles, stub), sums / weights, atol=2e-6)


def ramp(start: int, length: int, side: int, step: int) -> Any:
    """Weights of a tile's cells along a side: linear over what it shares with the tile before and with the next."""
    starts = tile_starts(side, length, step)
    number, weight = starts.index(start), np.ones(length // CELL)
    for cell in range(length // CELL):
        middle = (cell + 0.5) * CELL
        if number > 0 and (shared := starts[number - 1] + length - start) > 0:
            weight[cell] = min(weight[cell], middle / shared)
        if number + 1 < len(starts) and (shared := start + length - starts[number + 1]) > 0:
            weight[cell] = min(weight[cell], (length - middle) / shared)
    return weight


# -- beside the whole image --------------------------------------------------------------------------------------------
def test_away_from_seams_logits_are_those_of_the_whole_image() -> None:
    image, tiles = draw(192, 256), Tiles((96, 96), (64, 64), 32)
    whole = Stub().logits([torch.from_numpy(image).permute(2, 0, 1)[None]])[0]["task"][0].numpy()
    found = blended(image, tiles)
    far = np.outer(away_from_borders(192, 96, 64), away_from_borders(256, 96, 64))
    assert 0.05 < far.mean() < 0.6
    np.testing.assert_allclose(found[:, far], whole[:, far], atol=1e-5)
    assert np.abs(found - whole)[:, ~far].max() > 1e-3  # a seam is one: the test sees a difference


def away_from_borders(side: int, tile: int, step: int) -> Any:
    """Cells whose surroundings lie within each tile that they are in, or beyond the image."""
    far = np.ones(side // CELL, bool)
    for cell in range(side // CELL):
        first, last = cell * CELL - REACH, cell * CELL + CELL - 1 + REACH
        for start in tile_starts(side, tile, step):
            if start <= cell * CELL < start + tile:
                within = (start == 0 or first >= start) and (start + tile == side or last < start + tile)
                far[cell] &= within
    return far


@pytest.mark.parametrize("name", ["semseg", "depth", "normals", "edge", "saliency"])
def test_one_tile_of_the_whole_image_gives_what_the_network_says_of_it(untrained: Path, name: str) -> None:
    predictor, image = Predictor(untrained, "cpu"), draw(64, 96)
    seen = torch.from_numpy(image).permute(2, 0, 1)[None]
    whole = predictor.decode(predictor.logits([seen])[0], (64, 96))[name]
    tiled = tasktokens.load(untrained, "cpu").predict(image, tile=128)[name]
    np.testing.assert_allclose(tiled.value, whole.value, atol=1e-5)
    np.testing.assert_allclose(tiled.confidence, whole.confidence, atol=1e-5)


def test_rows_are_read_once_and_batches_change_nothing() -> None:
    class Counted(ArrayRows):
        read: list[int] = []  # noqa: RUF012

        def rows(self, top: int, bottom: int) -> Any:
            self.read += range(top, bottom)
            return super().rows(top, bottom)

    image, tiles = Counted(draw(150, 70)), Tiles((64, 64), (32, 32), 32)
    several = torch.cat([logits.clone() for *_, logits in Blended(Stub(), image, tiles).rows()], dim=2)  # type: ignore[arg-type]
    assert Counted.read == list(range(150))
    one_by_one = Stub()
    one_by_one.batch_size = 1
    np.testing.assert_array_equal(several[0].numpy(), blended(image.image, tiles, one_by_one))


def test_work_ends_when_it_is_told_to() -> None:
    told = iter([False, True])
    rows = Blended(Stub(), ArrayRows(draw(200, 64)), Tiles((64, 64), (64, 64), 32), lambda: next(told)).rows()  # type: ignore[arg-type]
    next(rows)
    with pytest.raises(Stopped):
        next(rows)


def test_a_network_whose_map_does_not_fit_the_grid_is_refused() -> None:
    stub = Stub(lambda image: torch.zeros(1, 2, 5, 5))
    with pytest.raises(ConfigError, match="cannot be applied in tiles: of 64x64 pixels it makes a map of 5x5"):
        blended(draw(64, 64), Tiles((64, 64), (32, 32), 32), stub)


# -- decoding ----------------------------------------------------------------------------------------------------------
SPECS: dict[str, dict[str, Any]] = {
    "classes": {"kind": "classes", "classes": ["a", "b", "c"]},
    "depth": {"kind": "depth", "range": [0.5, 10]},
    "normals": {"kind": "normals", "centres": 40},
    "edge": {"kind": "edge"},
    "regression": {"kind": "regression", "range": [-40, 60]},
}


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("cell", [1, 4, 16])
@pytest.mark.parametrize("sizes", [(1, 2, 6, 4), (13,), (1,) * 13])
def test_decoding_row_by_row_is_decoding_the_whole(
    kind: str, cell: int, sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROWS", 3)
    monkeypatch.setattr(module, "_COLUMNS", 2)
    task = build_task("some", SPECS[kind])
    logits = torch.randn(1, task.num_tokens, 13, 7, generator=torch.Generator().manual_seed(0)) * 3
    height, width = 13 * cell - min(3, cell - 1), 7 * cell - min(2, cell - 1)
    value, confidence = decode_with_confidence_at(task, logits, (13 * cell, 7 * cell))
    decoder = RowDecoder(task, (height, width), cell)
    bands = [band for part in torch.split(logits, list(sizes), dim=2) for band in decoder.add(part)]
    np.testing.assert_allclose(
        np.concatenate([band for band, _ in bands], axis=1), value[:, :height, :width], atol=1e-4
    )
    np.testing.assert_allclose(np.concatenate([band for _, band in bands]), confidence[:height, :width], atol=1e-4)


# -- what may be given -------------------------------------------------------------------------------------------------
NETWORK: Any = SimpleNamespace(modules=list)  # without a backbone: a stride of 32


def test_tiles_are_of_the_training_size_unless_told() -> None:
    assert choose_tiles(NETWORK, (288, 384), True) == Tiles((288, 384), (192, 288), 32)
    assert choose_tiles(NETWORK, (40, 60), True) == Tiles((128, 128), (96, 96), 32)
    assert choose_tiles(NETWORK, (288, 384), 512) == Tiles((512, 512), (384, 384), 32)
    assert choose_tiles(NETWORK, (288, 384), (64, 96), 20) == Tiles((64, 96), (32, 64), 32)
    assert choose_tiles(NETWORK, (288, 384), 32) == Tiles((32, 32), (32, 32), 32)


@pytest.mark.parametrize(
    ("tile", "overlap", "words"),
    [
        (16, None, "at least 32 pixels per side, the network's stride; found 16"),
        (0, None, "at least 32"),
        (-64, None, "at least 32"),
        ((64, 8), None, "found 8"),
        (500, None, "multiples of 32, the network's stride; found 500: give 480 or 512"),
        (100_000, None, "at most 8192"),
        (64, 64, "from 0 to 32 pixels for tiles of 64"),
        (64, 33, "from 0 to 32"),
        (64, -1, "from 0 to 32"),
    ],
)
def test_tiles_that_do_not_suit_are_refused(tile: Any, overlap: int | None, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        choose_tiles(NETWORK, (288, 384), tile, overlap)


@pytest.mark.parametrize("text", ["", "x", "12x", "-5", "1e3", "64x64x64", "64,64", "9999999"])
def test_texts_that_are_no_size_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="HEIGHTxWIDTH"):
        parse_tile(text)


@pytest.mark.parametrize(("backbone", "stride"), [("test_resnet", 32), ("test_vit", 16), ("segnet", 32)])
def test_the_stride_is_that_of_the_coarsest_map(backbone: str, stride: int) -> None:
    task = {"semseg": build_task("semseg", SPECS["classes"])}
    network = tasktokens.create_model("mtl", task, backbone=backbone, width=16)
    assert module.network_stride(network) == stride


def test_an_overlap_without_tiles_is_refused(untrained: Path) -> None:
    with pytest.raises(ConfigError, match="give a tile too"):
        tasktokens.load(untrained, "cpu").predict(draw(64, 64), overlap=32)
