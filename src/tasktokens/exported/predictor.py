"""An exported model applied to images of any size, by the rules of `tasktokens.inference.predictor` in NumPy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasktokens.exported.metadata import ExportInfo, parse_info
from tasktokens.exported.runtimes import Runtime, open_runtime
from tasktokens.exported.task import ExportedTask
from tasktokens.utils.resizing import columns_between, resize_pixels, rows_between, working_size

Array = npt.NDArray[Any]
Size = tuple[int, int]

_FINE = 4
"""Pixels per head pixel and side, up to which logits are enlarged rather than values (`tasktokens.models.decoding`)."""
_STRIP = 500_000
"""Numbers that are enlarged and decoded at a time."""


class ExportedPredictor:
    """A loaded file.

    Args:
        path: an ``.onnx`` or ``.xml`` that ``tasktokens export`` wrote.
        threads: of the library; default: ``OMP_NUM_THREADS``, else its own choice.

    Raises:
        CheckpointError: no such file, not ours, of a later format or damaged. ConfigError: the library is missing.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        self.runtime: Runtime = open_runtime(path, threads)
        self.info: ExportInfo = parse_info(self.runtime.metadata(), path)
        self._decoders = {name: self.runtime.decoder(task.decoder) for name, task in self.info.tasks.items()}

    def prepare(self, image_HW3: Array) -> Array:
        """What the network gets to see of an image: (1, h, w, 3) uint8 at the working size."""
        return prepared(image_HW3, self.info.size)

    def logits(self, seen_BhwC: Array) -> dict[str, Array]:
        """Logits (B, K, h, w) of every task, of images that were prepared."""
        names = list(self.info.tasks)
        return dict(zip(names, self.runtime.run({"image": seen_BhwC}, [f"{n}.logits" for n in names]), strict=True))

    def batch(self, images_HW3: Sequence[Array]) -> list[dict[str, tuple[Array, Array]]]:
        """Of each image and task the values (C, H, W) and confidences (H, W) at the image's own size."""
        seen = [self.prepare(image) for image in images_HW3]
        found: dict[int, dict[str, tuple[Array, Array]]] = {}
        for size in dict.fromkeys(image.shape for image in seen):
            rows = [row for row, image in enumerate(seen) if image.shape == size]
            logits = self.logits(np.concatenate([seen[row] for row in rows]))
            for number, row in enumerate(rows):
                height, width = images_HW3[row].shape[:2]
                found[row] = {
                    name: self.decode(task, logits[name][number], (height, width))
                    for name, task in self.info.tasks.items()
                }
        return [found[row] for row in range(len(seen))]

    def decode(self, task: ExportedTask, logits_Khw: Array, size: Size) -> tuple[Array, Array]:
        """Values (C, H, W) and confidences (H, W) at (height, width), as `tasktokens.models.decoding` does it."""
        coarse = logits_Khw.shape[1:]
        fine = min(size[0], _FINE * coarse[0]), min(size[1], _FINE * coarse[1])
        if fine == size or not task.continuous:
            return self._decoded(task, logits_Khw, size)
        value, confidence = self._decoded(task, logits_Khw, fine)
        enlarged = _enlarged(value, size)
        if task.unit_length:
            enlarged /= np.sqrt(np.square(enlarged).sum(axis=0, keepdims=True).clip(1e-12))
        return enlarged, _enlarged(confidence[None], size)[0].clip(0, 1)

    def _decoded(self, task: ExportedTask, logits_Khw: Array, size: Size) -> tuple[Array, Array]:
        """Logits enlarged to (height, width), then decoded."""
        value: Array | None = None
        confidence = np.empty(size, np.float32)
        for top, bottom in _bands(size, len(logits_Khw)):
            lines = columns_between(rows_between(logits_Khw, size[0], top, bottom), size[1])
            ready = np.ascontiguousarray(lines, np.float32)[None]
            band, sure = self._decoders[task.name].run({"logits": ready}, ["value", "confidence"])
            if value is None:
                value = np.empty((band.shape[1], *size), band.dtype)
            value[:, top:bottom], confidence[top:bottom] = band[0], sure[0, 0]
        assert value is not None
        return value, confidence


def prepared(image_HW3: Array, trained: Size) -> Array:
    """An image (H, W, 3) as a network gets it that was trained at a size: (1, h, w, 3) uint8."""
    size = working_size((image_HW3.shape[0], image_HW3.shape[1]), trained)
    return np.ascontiguousarray(resize_pixels(image_HW3, size))[None]


def _enlarged(map_CHW: Array, size: Size) -> Array:
    """A map at a larger (height, width), bilinear."""
    whole = np.empty((len(map_CHW), *size), np.float32)
    for top, bottom in _bands(size, len(map_CHW)):
        whole[:, top:bottom] = columns_between(rows_between(map_CHW, size[0], top, bottom), size[1])
    return whole


def _bands(size: Size, channels: int) -> Iterator[Size]:
    """From one row to another, so that a band of the map at (height, width) is no larger than `_STRIP`."""
    count = max(1, _STRIP // (channels * size[1]))
    for top in range(0, size[0], count):
        yield top, min(top + count, size[0])
