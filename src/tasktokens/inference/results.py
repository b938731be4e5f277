"""What a model predicts for an image: per task a map and its confidence, which can be shown and saved."""

from __future__ import annotations

import base64
import html
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tasktokens.errors import ConfigError, DataError, did_you_mean
from tasktokens.utils.pictures import Picture, Strip, draw_strips, png

if TYPE_CHECKING:  # an exported model's predictions are made where there is no torch
    from tasktokens.exported.task import ExportedTask
    from tasktokens.tasks import Task

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """One task of one image.

    Attributes:
        task: the task, which says what the values mean.
        value_CHW: the prediction (C, H, W) as tasks and metrics take it; see `value`.
        confidence: (H, W) float32 in [0, 1]; what it means per kind of task is in docs/concepts/discovery.md.

    Examples:
        >>> import tasktokens
        >>> depth = tasktokens.load("runs/mine", device="cpu").predict("photos/one.jpg")["depth"]
        >>> depth.value.shape, depth.valid(0.9).dtype, depth.picture().size
        ((48, 64), dtype('bool'), (64, 48))
        >>> depth.save("depth/one").name
        'one.png'
    """

    task: Task | ExportedTask
    value_CHW: Array
    confidence: Array

    @property
    def value(self) -> Array:
        """The prediction at the image's own size, (H, W), or (H, W, C) for tasks of more than one channel.

        Classes: the class number, uint8, an index into ``task.class_names()``. Depth: metres, or the unit of the
        labels for inverse depth. Normals: unit vectors, x right, y down, z forward (below 0 where a surface faces the
        camera). Edges, saliency and yes-or-no kinds: a probability in [0, 1]. Regression and directions: the unit of
        the labels.
        """
        return self.value_CHW[0] if len(self.value_CHW) == 1 else np.moveaxis(self.value_CHW, 0, -1)

    def valid(self, threshold: float | None = None) -> Array:
        """Pixels (H, W) bool whose confidence exceeds ``threshold`` in [0, 1]; default: the task's own.

        Raises `ConfigError` for a threshold outside [0, 1].
        """
        least = self.task.threshold if threshold is None else threshold
        if not 0 <= least <= 1:
            raise ConfigError(f"a threshold of confidence must be from 0 to 1, found {least}")
        above: Array = self.confidence > least
        return above

    def picture(self, valid: Array | None = None) -> Image.Image:
        """The prediction in colours, as a PIL image; pixels that are not ``valid`` (H, W) are void."""
        return Image.fromarray(np.ascontiguousarray(self.task.colourise(self.value_CHW, valid)))

    def save(self, path: str | Path, valid: Array | None = None) -> Path:
        """Write a label file in the format of the own-folder layout (docs/reference/data.md), which is read back.

        Args:
            path: file to write; its folder is made. Without an ending it gets that of the task's files.
            valid: (H, W) bool, such as ``prediction.valid()``: other pixels are void; default: none is.

        Returns:
            The path with its ending, ``.png``, or ``.npy`` for numbers.

        Raises:
            ConfigError: the ending is another. DataError: ``valid`` has another shape.
        """
        path = Path(path)
        written = self._write(path.parent, valid)
        try:
            if path.suffix.lower() not in ("", written.suffix):
                raise ConfigError(
                    f"labels of task '{self.task.name}' are {written.suffix} files, found '{path.name}'; "
                    f"give {path.with_suffix(written.suffix).name}"
                )
            return written.replace(path if path.suffix else path.with_suffix(written.suffix))
        finally:
            written.unlink(missing_ok=True)

    def _write(self, folder: Path, valid: Array | None = None) -> Path:
        """The label file under a temporary name in ``folder``, with the ending that the task's files have."""
        if valid is not None and (valid.dtype != np.bool_ or valid.shape != self.confidence.shape):
            expected = self.confidence.shape
            raise DataError(f"valid must be bool of shape {expected}, found {valid.dtype} of shape {valid.shape}")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as temporary:
            self.task.write(Path(temporary) / "label.png", self.value_CHW, valid)
            (written,) = Path(temporary).iterdir()
            self._check_range_kept(written)
            return written.replace(folder / f"{Path(temporary).name}{written.suffix}")

    def _check_range_kept(self, written: Path) -> None:
        """16-bit files of a scale hold no more than 65535 times that; larger values would be clipped silently."""
        stored, valid = self.task.read_back(written)
        if stored is not None and not np.allclose(stored[:, valid], self.value_CHW[:, valid], rtol=0.01, atol=0.01):
            raise DataError(
                f"the label file of task '{self.task.name}' cannot hold the largest values; take a larger scale for "
                f"the task, or keep prediction.value as .npy"
            )

    def _repr_png_(self) -> bytes:
        return png(_reduced(self.picture()))

    def __repr__(self) -> str:
        height, width = self.confidence.shape
        return (
            f"Prediction({self.task.name}: {self.task.kind}, {height}x{width}, "
            f"mean confidence {self.confidence.mean():.2f}, {self.valid().mean():.0%} valid)"
        )


class Result(Mapping[str, Prediction]):
    """All tasks of one image: ``result["depth"].value``; iterating gives the tasks' names.

    Attributes:
        image: (H, W, 3) uint8, as the model was given it.
        path: the file that it was read from, or None.

    Examples:
        >>> import tasktokens
        >>> result = tasktokens.load("runs/mine", device="cpu").predict("photos/one.jpg")
        >>> list(result), result.image.shape
        (['semseg', 'depth'], (48, 64, 3))
    """

    def __init__(self, image: Array, predictions: Mapping[str, Prediction], path: Path | None = None) -> None:
        self.image, self.path = image, path
        self._predictions = dict(predictions)

    @property
    def tasks(self) -> dict[str, Task | ExportedTask]:
        """The tasks by name."""
        return {name: prediction.task for name, prediction in self._predictions.items()}

    def __getitem__(self, name: str) -> Prediction:
        if name not in self._predictions:
            known = ", ".join(self._predictions)
            raise KeyError(f"no task '{name}'{did_you_mean(name, self._predictions)}; found: {known}")
        return self._predictions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._predictions)

    def __len__(self) -> int:
        return len(self._predictions)

    def strip(self, title: str = "") -> Strip:
        """The image and every task's picture, in a row with captions."""
        pictures = [Picture(name, np.asarray(prediction.picture())) for name, prediction in self.items()]
        return Strip(title, (Picture("image", self.image), *pictures))

    def picture(self) -> Image.Image:
        """The image beside every task in colours, as one PIL image."""
        return draw_strips([self.strip()])

    def save(self, folder: str | Path, name: str | None = None) -> list[Path]:
        """Write every task's label file ``{folder}/{task}/{name}`` and return them; the layout of an own folder.

        Args:
            folder: made where it is missing.
            name: without ending; default: that of the image's file, or ``image``.
        """
        stem = name or (self.path.stem if self.path else "image")
        paths = []
        for task, prediction in self.items():
            written = prediction._write(Path(folder) / task)
            paths.append(written.replace(written.with_name(f"{stem}{written.suffix}")))
        return paths

    def _repr_png_(self) -> bytes:
        return png(
            draw_strips([Strip("", tuple(Picture(name, np.asarray(picture)) for name, picture in self._shown()))])
        )

    def _repr_html_(self) -> str:
        """For notebooks: the pictures, each with its task and confidence below."""
        captions = [self.path.name if self.path else "image"]
        for name, prediction in self.items():
            trust = f"confidence {prediction.confidence.mean():.2f}, {prediction.valid().mean():.0%} valid"
            captions.append(f"{name}: {trust}")
        cells = [_figure(picture, text) for text, (_, picture) in zip(captions, self._shown(), strict=True)]
        return f'<div style="display:flex;flex-wrap:wrap;gap:8px">{"".join(cells)}</div>'

    def _shown(self) -> list[tuple[str, Image.Image]]:
        """The image and every task by caption, no larger than a page can show."""
        image = _reduced(Image.fromarray(np.ascontiguousarray(self.image)), Image.Resampling.LANCZOS)
        return [("image", image), *((name, _reduced(prediction.picture())) for name, prediction in self.items())]

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        return f"Result({self.path or 'image'}, {height}x{width}: {', '.join(self)})"


_SHOWN = 480
"""Width in a notebook, in pixels, to which larger pictures are reduced."""


def _reduced(picture: Image.Image, how: Image.Resampling = Image.Resampling.NEAREST) -> Image.Image:
    """A copy at most `_SHOWN` pixels wide; by default no colours are mixed, for those of classes mean something."""
    shown = picture.copy()
    shown.thumbnail((_SHOWN, 4 * _SHOWN), how)
    return shown


def _figure(picture: Image.Image, caption: str) -> str:
    data = base64.b64encode(png(picture)).decode()
    return (
        f'<figure style="margin:0"><img src="data:image/png;base64,{data}" alt="{html.escape(caption)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )
