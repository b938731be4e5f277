"""The exported model that users load: as `tasktokens.Model`, without torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tasktokens.errors import ConfigError, DataError
from tasktokens.exported.predictor import ExportedPredictor
from tasktokens.exported.task import ExportedTask
from tasktokens.inference.results import Prediction, Result
from tasktokens.utils.orientation import picture_array
from tasktokens.utils.pixels import as_rgb
from tasktokens.utils.safe_io import open_picture

Array = npt.NDArray[Any]


class ExportedModel:
    """A file that `tasktokens.export` wrote; `tasktokens.load` gives one for ``.onnx`` and ``.xml``.

    Needs NumPy, Pillow and ONNX Runtime (``.xml``: OpenVINO), and predicts what the run itself predicts.

    Args:
        path: the file.
        threads: of the library; default: ``OMP_NUM_THREADS``, else its own choice.

    Attributes:
        info: what the file says of itself: size, precision, version.
    """

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        self._path = Path(path)
        self._predictor = ExportedPredictor(self._path, threads)
        self.info = self._predictor.info

    @property
    def tasks(self) -> Mapping[str, ExportedTask]:
        """The tasks that the model predicts, by name."""
        return self.info.tasks

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images that it was trained on; others are resized to about as many pixels."""
        return self.info.size

    def predict(self, images: Any, batch_size: int = 1) -> Any:
        """Predict all tasks of one image or of many.

        Args:
            images: one image: a path, a PIL image, or an array (H, W, 3) uint8 RGB. Or several, of any sizes: a list
                or tuple, an array (B, H, W, 3), or another iterable.
            batch_size: how many images of one size go through the network together.

        Returns:
            A `Result` of one image; a list for a list, tuple or batched array; an iterator for another iterable.

        Raises:
            DataError: an image that is missing, cannot be read, or of the wrong dtype or shape.
            ConfigError: a batch size below 1.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size must be 1 or more, found {batch_size}")
        if isinstance(images, list | tuple) or (isinstance(images, np.ndarray) and images.ndim == 4):
            return list(self._each(images, batch_size))
        if isinstance(images, str | Path | Image.Image | np.ndarray) or not isinstance(images, Iterable):
            return next(self._each([images], 1))
        return self._each(images, batch_size)

    def _each(self, images: Iterable[object], batch_size: int) -> Iterator[Result]:
        waiting = iter(images)
        while some := list(islice(waiting, batch_size)):
            arrays = [as_pixels(image) for image in some]
            for image, array, maps in zip(some, arrays, self._predictor.batch(arrays), strict=True):
                found = {name: Prediction(self.tasks[name], *value) for name, value in maps.items()}
                yield Result(array, found, Path(image) if isinstance(image, str | Path) else None)

    def __repr__(self) -> str:
        height, width = self.size
        tasks = ", ".join(f"{name} ({task.kind})" for name, task in self.tasks.items())
        return f"ExportedModel({self._path}, {tasks}, trained at {height}x{width}, {self.info.precision})"


def as_pixels(image: object) -> Array:
    """One image as (H, W, 3) uint8 RGB; an EXIF orientation is not applied.

    Raises `DataError` for a file that is missing or no picture, and for another type, dtype or shape.

    Examples:
        >>> as_pixels(np.zeros((4, 6), np.uint8)).shape
        (4, 6, 3)
    """
    if isinstance(image, str | Path):
        return as_rgb(_read(Path(image)), f"image {image}")
    if isinstance(image, Image.Image):
        return as_rgb(np.asarray(image if image.mode[0] in "IF" else image.convert("RGB")), "the PIL image")
    if not isinstance(image, np.ndarray):
        raise DataError(f"an image must be a path, a PIL image or an array (H, W, 3), found {type(image).__name__}")
    if image.dtype.kind == "f":
        raise DataError(
            f"the array holds {image.dtype} of shape {image.shape}, expected uint8: if it is in [0, 1], give "
            f"(255 * x).round().astype('uint8')"
        )
    if 0 in image.shape:
        raise DataError(f"the array has no pixels: its shape is {image.shape}")
    return as_rgb(image, "the array")


def _read(path: Path) -> Array:
    try:
        with open_picture(path) as image:
            return picture_array(image, None if image.mode[0] in "IF" else "RGB")
    except FileNotFoundError as error:
        raise DataError(f"image {path} does not exist") from error
    except Exception as error:  # whatever a file does to a decoder, it is the file that is named
        raise DataError(f"image {path} cannot be read ({error}); replace it or remove it") from error
