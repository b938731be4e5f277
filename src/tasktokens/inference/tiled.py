"""A network applied to an image in tiles: predictions of all tasks, from top to bottom, in memory of a few rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from tasktokens.inference.image_rows import ArrayRows, ImageRows
from tasktokens.inference.predictor import Predictor
from tasktokens.inference.results import Prediction
from tasktokens.inference.tiles import Blended, RowDecoder, Tiles
from tasktokens.tasks.base import Array


def tiled_bands(
    predictor: Predictor, image: ImageRows, tiles: Tiles, stopped: Callable[[], bool] = lambda: False
) -> Iterator[tuple[str, Prediction]]:
    """Bands of predictions with the name of their task; those of one task come from top to bottom.

    Raises:
        DataError: rows of the image cannot be read. ConfigError: the network cannot be applied in tiles.
        Stopped: ``stopped`` said so.
    """
    size, decoders = (image.height, image.width), dict[str, RowDecoder]()
    for name, cell, logits in Blended(predictor, image, tiles, stopped).rows():
        if name not in decoders:
            decoders[name] = RowDecoder(predictor.tasks[name], size, cell)
        for value, confidence in decoders[name].add(logits):
            yield name, Prediction(predictor.tasks[name], value, confidence)


def predict_tiled(predictor: Predictor, image_HW3: Array, tiles: Tiles) -> dict[str, Prediction]:
    """All tasks of an image that is in memory."""
    bands: dict[str, list[Prediction]] = {name: [] for name in predictor.tasks}
    for name, band in tiled_bands(predictor, ArrayRows(image_HW3), tiles):
        bands[name].append(band)
    return {name: _joined(parts) for name, parts in bands.items()}


def _joined(parts: list[Prediction]) -> Prediction:
    value = np.concatenate([part.value_CHW for part in parts], axis=1)
    return Prediction(parts[0].task, value, np.concatenate([part.confidence for part in parts]))
