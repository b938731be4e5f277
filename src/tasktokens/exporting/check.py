"""A file that was just written, compared with the network that it is of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tasktokens.exported.predictor import ExportedPredictor
from tasktokens.exporting.graph import ExportGraph, output_names
from tasktokens.models import Network
from tasktokens.utils.resizing import working_size

Array = np.ndarray[Any, Any]
Size = tuple[int, int]

TOLERANCE = 1e-4
"""Largest difference of an fp32 file: of logits and values relative to the largest, of confidences as it is, of classes
as the share of pixels."""


def compared_sizes(trained: Size, least: int = 32) -> list[Size]:
    """Three at which files are compared: that of the training, a wide and a tall one, with sides of ``least`` or more.

    Examples:
        >>> compared_sizes((96, 128))
        [(96, 128), (64, 192), (128, 96)]
    """
    height, width = trained
    wide, tall = working_size((height, 2 * width), trained), working_size((2 * height, width), trained)
    sizes = [wide, tall, working_size((3 * height, width), trained), (tall[0] + 32, tall[1])]
    return list(dict.fromkeys([trained, *((max(least, a), max(least, b)) for a, b in sizes)]))[:3]


def differences(
    network: Network, run: Callable[[Array], Mapping[str, Array]], trained: Size, least: int = 32
) -> dict[Size, float]:
    """By size the largest difference of any output between the network and a file, on two images of noise.

    Args:
        network: in evaluation mode, on the CPU.
        run: the file: images (2, h, w, 3) to outputs by name.
        trained: size of the training images.
        least: the shortest side that the file takes.
    """
    graph, names = ExportGraph(network).eval(), output_names(network)
    random = np.random.default_rng(0)
    found: dict[Size, float] = {}
    for size in compared_sizes(trained, least):
        image = random.integers(0, 256, (2, *size, 3), dtype=np.uint8)
        with torch.no_grad():
            expected = dict(zip(names, (each.numpy() for each in graph(torch.from_numpy(image))), strict=True))
        given = run(image)
        found[size] = max(_apart(given[name], expected[name]) for name in names)
    return found


def runner(path: Path, network: Network) -> Callable[[Array], Mapping[str, Array]]:
    """The file, computed by what will compute it."""
    names = output_names(network)
    if path.suffix == ".pt2":
        module = torch.export.load(path).module()

        def run_program(image: Array) -> Mapping[str, Array]:
            with torch.no_grad():
                return dict(zip(names, (each.numpy() for each in module(torch.from_numpy(image))), strict=True))

        return run_program
    predictor = ExportedPredictor(path)
    return lambda image: dict(zip(names, predictor.runtime.run({"image": image}, names), strict=True))


def _apart(given: Array, expected: Array) -> float:
    if given.shape != expected.shape or given.dtype != expected.dtype or not np.isfinite(given).all():
        return float("inf")
    if expected.dtype.kind in "iu":
        return float(np.mean(given != expected))
    scale = max(1.0, float(np.abs(expected).max()))
    return float(np.abs(given.astype(np.float64) - expected).max()) / scale


def sizes_text(found: Sequence[Size]) -> str:
    """Sizes as text."""
    return ", ".join(f"{height}x{width}" for height, width in found)
