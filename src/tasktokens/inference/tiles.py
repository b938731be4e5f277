"""Large images in overlapping tiles: where they lie, how they are weighted, and their blended logits, row by row.

The network sees a tile at the image's own resolution. Logits are what is blended, before anything is decoded: the mean
of two depths or of two class numbers would be neither. The weights of the tiles at a pixel add up to 1 and fall off
linearly to each border that another tile overlaps.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from tasktokens.errors import ConfigError
from tasktokens.inference.image_rows import ImageRows
from tasktokens.inference.predictor import Predictor
from tasktokens.inference.stream import Stopped
from tasktokens.models.backbones import Backbone
from tasktokens.models.decoding import decode_with_confidence_at
from tasktokens.models.outputs import Network
from tasktokens.tasks import Task
from tasktokens.tasks.base import Array

TileSize: TypeAlias = int | tuple[int, int] | bool
"""The side of a square tile, its (height, width), or True for the size of the training images."""

_LEAST = 4
"""Strides per side of the tile that is chosen for True, so that there is room for an overlap."""
_LARGEST = 8192


@dataclass(frozen=True)
class Tiles:
    """How images are cut; all numbers are pixels, multiples of the network's stride.

    Attributes:
        size: (height, width) of a tile.
        step: how far the next one is below, and to the right.
        stride: of the coarsest map of the network.
    """

    size: tuple[int, int]
    step: tuple[int, int]
    stride: int

    def facts(self) -> list[int]:
        """As plain values."""
        return [*self.size, *self.step]


def parse_tile(text: str) -> TileSize:
    """``auto``, ``512`` or ``384x512`` (height x width). Raises `ConfigError`.

    Examples:
        >>> parse_tile("384x512")
        (384, 512)
    """
    if text == "auto":
        return True
    found = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", text)
    if found is None:
        raise ConfigError(f"a tile is a number of pixels such as 512, or HEIGHTxWIDTH such as 384x512, found {text}")
    return int(found[1]) if found[2] is None else (int(found[1]), int(found[2]))


def choose_tiles(network: Network, trained: tuple[int, int], tile: TileSize, overlap: int | None = None) -> Tiles:
    """Tiles for a network that was trained on images of (height, width).

    Args:
        tile: see `TileSize`.
        overlap: of neighbours, at least so many pixels; it is rounded up so that tiles lie on the network's grid.
            Default: a quarter of a tile.

    Raises:
        ConfigError: a tile that is smaller than the network's stride or no multiple of it, or an overlap that leaves
            no step to the next tile.
    """
    stride = network_stride(network)
    if tile is True:
        height, width = (max(_LEAST, math.ceil(side / stride)) * stride for side in trained)
    else:
        height, width = tile if isinstance(tile, tuple) else (int(tile), int(tile))
    for side in (height, width):
        _check_side(side, stride)
    steps = [_step(side, stride, overlap) for side in (height, width)]
    return Tiles((height, width), (steps[0], steps[1]), stride)


def network_stride(network: Network) -> int:
    """Pixels per cell of the network's coarsest map, on whose grid tiles have to lie; 32 where it has no backbone."""
    backbones = [module for module in network.modules() if isinstance(module, Backbone)]
    return math.lcm(*(backbone.stride for backbone in backbones)) if backbones else 32


def _check_side(side: int, stride: int) -> None:
    if side < stride:
        raise ConfigError(f"a tile must have at least {stride} pixels per side, the network's stride; found {side}")
    if side > _LARGEST:
        raise ConfigError(f"a tile must have at most {_LARGEST} pixels per side, found {side}")
    if side % stride:
        below = side // stride * stride
        raise ConfigError(
            f"the sides of a tile must be multiples of {stride}, the network's stride; found {side}: "
            f"give {below} or {below + stride}"
        )


def _step(side: int, stride: int, overlap: int | None) -> int:
    if overlap is None:
        return max(stride, (side - side // 4) // stride * stride)
    if not 0 <= overlap <= side - stride:
        raise ConfigError(
            f"the overlap must be from 0 to {side - stride} pixels for tiles of {side} (a tile less the network's "
            f"stride of {stride}), found {overlap}"
        )
    return (side - overlap) // stride * stride


# -- where tiles lie ---------------------------------------------------------------------------------------------------
def tile_starts(side: int, tile: int, step: int) -> list[int]:
    """Where tiles begin along a side; the last one ends with it.

    Examples:
        >>> tile_starts(1000, 400, 300)
        [0, 300, 600]
        >>> tile_starts(900, 400, 300), tile_starts(300, 400, 300)
        ([0, 300, 500], [0])
    """
    return [0] if side <= tile else [*range(0, side - tile, step), side - tile]


def tile_weights(starts: Sequence[int], length: int, side: int) -> list[Tensor]:
    """For each tile of ``length`` cells along a ``side``, the weights (length,) of its cells.

    At every cell of the side the weights of its tiles add up to 1.

    Examples:
        >>> [weights.tolist() for weights in tile_weights([0, 2], 4, 6)]
        [[1.0, 1.0, 0.75, 0.25], [0.25, 0.75, 1.0, 1.0]]
    """
    cells = np.arange(length) + 0.5
    all_weights = [np.ones(length) for _ in starts]
    for number, (start, following) in enumerate(pairwise(starts)):
        shared = start + length - following
        if shared > 0:
            all_weights[number] = np.minimum(all_weights[number], (length - cells) / shared)
            all_weights[number + 1] = np.minimum(all_weights[number + 1], cells / shared)
    total = np.zeros(side)
    for start, weights in zip(starts, all_weights, strict=True):
        total[start : start + length] += weights
    pairs = zip(starts, all_weights, strict=True)
    return [torch.from_numpy((weights / total[start : start + length]).astype(np.float32)) for start, weights in pairs]


class _Grid:
    """The tiles of one image, which is continued at the right and below to whole strides."""

    def __init__(self, image: ImageRows, tiles: Tiles) -> None:
        self.padded = [-(-side // tiles.stride) * tiles.stride for side in (image.height, image.width)]
        self.size = [min(side, tile) for side, tile in zip(self.padded, tiles.size, strict=True)]
        self.tops, self.lefts = (
            tile_starts(side, tile, step) for side, tile, step in zip(self.padded, self.size, tiles.step, strict=True)
        )

    def weights(self, cell: int) -> tuple[list[Tensor], list[Tensor]]:
        """`tile_weights` of rows and of columns of a map of one value per ``cell`` pixels."""
        rows, columns = (
            tile_weights([start // cell for start in starts], length // cell, side // cell)
            for starts, length, side in zip((self.tops, self.lefts), self.size, self.padded, strict=True)
        )
        return rows, columns


class _Window:
    """The rows of an image that a row of tiles covers; each is read once."""

    def __init__(self, image: ImageRows, grid: _Grid) -> None:
        self.image, self.grid = image, grid
        self.top, self.held = 0, np.empty((0, grid.padded[1], 3), np.uint8)

    def rows(self, top: int, bottom: int) -> Array:
        """Rows from ``top`` to ``bottom`` (n, padded width, 3); neither ever decreases."""
        self.held, self.top = self.held[top - self.top :], top
        first, last = top + len(self.held), min(bottom, self.image.height)
        if first < last:
            new = self.image.rows(first, last)
            new = np.pad(new, ((0, 0), (0, self.grid.padded[1] - new.shape[1]), (0, 0)), mode="edge")
            self.held = np.concatenate([self.held, new])
        missing = bottom - top - len(self.held)
        return np.pad(self.held, ((0, missing), (0, 0), (0, 0)), mode="edge") if missing else self.held


# -- blending ----------------------------------------------------------------------------------------------------------
class Blended:
    """The logits of one image as the weighted mean of its tiles', from top to bottom.

    Args:
        stopped: asked before each row of tiles; once it says True, `rows` ends by raising `Stopped`.
    """

    def __init__(
        self, predictor: Predictor, image: ImageRows, tiles: Tiles, stopped: Callable[[], bool] = lambda: False
    ) -> None:
        self.predictor, self.image, self.tiles, self.stopped = predictor, image, tiles, stopped
        self.grid = _Grid(image, tiles)
        self.sums: dict[str, _Sum] = {}

    def rows(self) -> Iterator[tuple[str, int, Tensor]]:
        """For each row of tiles and each task its name, the pixels per cell, and some rows (1, K, n, w) that are final.

        On the CPU: they are as wide as the image, which may be too much for a GPU. They hold until the next ones come.
        """
        window, tops = _Window(self.image, self.grid), self.grid.tops
        for number, (top, following) in enumerate(pairwise([*tops, self.grid.padded[0]])):
            if self.stopped():
                raise Stopped
            band = torch.from_numpy(window.rows(top, top + self.grid.size[0])).permute(2, 0, 1)[None]
            places, count = list(enumerate(self.grid.lefts)), self.predictor.batch_size
            for first in range(0, len(places), count):
                self._add(band, number, places[first : first + count])
            for name, each in self.sums.items():
                count = (following - top) // each.cell
                for first in range(0, count, _ROWS):
                    yield name, each.cell, each.sum[:, :, first : min(first + _ROWS, count)]
                each.move(count)

    def _add(self, band_13hw: Tensor, row: int, some: Sequence[tuple[int, int]]) -> None:
        """Several tiles of a row go through the network, and into the sums."""
        width, device = self.grid.size[1], self.predictor.device
        seen = [band_13hw[..., left : left + width].contiguous().to(device) for _, left in some]
        for (column, left), logits in zip(some, self.predictor.logits(seen), strict=True):
            for name, each in logits.items():
                if name not in self.sums:
                    self.sums[name] = _Sum(each, self.grid, self.tiles.stride)
                self.sums[name].add(each, row, column, left)


class _Sum:
    """The weighted sum of the logits of one task over a row of tiles, and what reaches into the next one."""

    def __init__(self, logits_1Khw: Tensor, grid: _Grid, stride: int) -> None:
        rows, columns = logits_1Khw.shape[-2:]
        self.cell = grid.size[0] // rows
        if (rows * self.cell, columns * self.cell) != tuple(grid.size) or stride % self.cell:
            raise ConfigError(
                f"this network cannot be applied in tiles: of {grid.size[0]}x{grid.size[1]} pixels it makes a map of "
                f"{rows}x{columns}, which has no whole number of pixels per cell; predict without tiles"
            )
        self.weights = grid.weights(self.cell)
        self.sum = torch.zeros(1, logits_1Khw.shape[1], rows, grid.padded[1] // self.cell)

    def add(self, logits_1Khw: Tensor, row: int, column: int, left: int) -> None:
        rows, columns = self.weights[0][row], self.weights[1][column]
        start = left // self.cell
        self.sum[..., start : start + len(columns)] += logits_1Khw.float().cpu() * (rows[:, None] * columns)

    def move(self, count: int) -> None:
        """Drop the first rows, which no later tile reaches."""
        rest = self.sum[:, :, count:].clone()
        self.sum[:, :, : rest.shape[2]] = rest
        self.sum[:, :, rest.shape[2] :] = 0


# -- decoding ----------------------------------------------------------------------------------------------------------
_ROWS, _COLUMNS = 16, 512
"""Rows and columns of logits that are decoded at a time; enlarged they take tens of MB, whatever the image's width."""


class RowDecoder:
    """Predictions of one task at the image's size, from rows of logits: those that decoding the whole would give.

    Args:
        size: (height, width) of the image.
        cell: pixels per logit and side.
    """

    def __init__(self, task: Task, size: tuple[int, int], cell: int) -> None:
        self.task, self.size, self.cell = task, size, cell
        self.kept: Tensor | None = None
        self.before, self.done = 0, 0  # rows of ``kept`` that are decoded already; rows of cells that are, in all

    def add(self, logits_1Knw: Tensor) -> Iterator[tuple[Array, Array]]:
        """Values (C, n, W) and confidences (n, W) of what can be decoded by now, from top to bottom."""
        kept = logits_1Knw if self.kept is None else torch.cat([self.kept, logits_1Knw], dim=2)
        rows, all_rows = kept.shape[2], -(-self.size[0] // self.cell)
        is_last = self.done - self.before + rows >= all_rows
        # A row is enlarged between both its neighbours; the last ones are padding.
        end = all_rows - self.done + self.before if is_last else rows - 1
        for top in range(self.before, end, _ROWS):
            yield self._decode(kept, top, min(top + _ROWS, end))
        self.done += end - self.before
        self.before = min(1, end)
        self.kept = kept[:, :, end - self.before :].clone()

    @torch.no_grad()
    def _decode(self, kept: Tensor, top: int, bottom: int) -> tuple[Array, Array]:
        """Rows of cells, of which the last may reach beyond the image, from blocks with a margin of one cell."""
        above, below = max(0, top - 1), min(bottom + 1, kept.shape[2])
        first = self.done + top - self.before
        height = min((bottom - top) * self.cell, self.size[0] - first * self.cell)
        rows = slice((top - above) * self.cell, (top - above) * self.cell + height)
        values, confidences = [], []
        for left in range(0, kept.shape[3], _COLUMNS):
            right = min(left + _COLUMNS, kept.shape[3])
            start, end = max(0, left - 1), min(right + 1, kept.shape[3])
            size = (below - above) * self.cell, (end - start) * self.cell
            value, confidence = decode_with_confidence_at(self.task, kept[:, :, above:below, start:end], size)
            columns = slice((left - start) * self.cell, (right - start) * self.cell)
            values.append(value[:, rows, columns].numpy())
            confidences.append(confidence[rows, columns].numpy())
        width = self.size[1]
        return np.concatenate(values, axis=2)[..., :width], np.concatenate(confidences, axis=1)[:, :width]
