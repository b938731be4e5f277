"""The files that `predict` writes for an image: read, predicted and written whole, or in tiles and row by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from tasktokens.errors import DataError
from tasktokens.inference.filled_folder import write_prediction
from tasktokens.inference.image_files import ImageReader
from tasktokens.inference.image_rows import ImageRows, open_rows
from tasktokens.inference.label_pictures import Kept, Shown, is_reduced, save_label_picture
from tasktokens.inference.label_rows import LabelRows
from tasktokens.inference.predictor import Predictor
from tasktokens.inference.stream import LARGEST, Logits, Read
from tasktokens.inference.tiled import tiled_bands
from tasktokens.inference.tiles import Tiles
from tasktokens.tasks.base import Array
from tasktokens.utils.pictures import nearest_pixels, reduced


class _Seen(NamedTuple):
    """What is needed of an image beside its logits: (height, width), and the image itself, small, for a picture."""

    size: tuple[int, int]
    picture: Array


class ImageWriter:
    """Reads the images and writes their files, in several threads."""

    def __init__(self, predictor: Predictor, reader: ImageReader, out: Path, pictures: bool) -> None:
        self.predictor, self.reader, self.out, self.pictures = predictor, reader, out, pictures
        self.drawn: dict[str, bool] = {}
        """Whether the picture of an image is smaller than itself."""

    def read(self, id: str) -> Read:
        """What the network gets of an image; nothing of one that cannot be read."""
        image = self.reader.read(id)
        if image is None:
            return Read(None)
        height, width = image.shape[:2]
        return Read(self.predictor.prepare(image), height * width, _Seen((height, width), reduced(image)))

    def ask(self, seen_13hw: Sequence[Tensor]) -> Sequence[Logits]:
        """The logits of images of one size."""
        return self.predictor.logits(seen_13hw)

    def write(self, id: str, seen: _Seen | None, logits: Logits | None) -> bool | None:
        """Write the files of an image; None where there are none."""
        if seen is None or logits is None:
            return None
        shown = [self._write_task(id, name, logits[name], seen.size) for name in self.predictor.tasks]
        if self.pictures:
            drawn = [one for one in shown if one is not None]
            save_label_picture(self.out / "pictures" / f"{id}.png", id, seen.picture, drawn)
            self.drawn[id] = is_reduced(*seen.size)
        return True

    def _write_task(self, id: str, name: str, logits: Tensor, size: tuple[int, int]) -> Shown | None:
        task = self.predictor.tasks[name]
        drawn = Kept(task, size, confidence=False) if self.pictures else None
        write_prediction(self.out, task, id, self.predictor.decode_bands(name, logits, size), size, drawn=drawn)
        return None if drawn is None else drawn.shown()


class TiledWriter(ImageWriter):
    """Images in tiles, one at a time, in memory of some rows.

    Args:
        stopped: see `Blended`; may be set later.
    """

    def __init__(self, predictor: Predictor, reader: ImageReader, out: Path, pictures: bool, tiles: Tiles) -> None:
        super().__init__(predictor, reader, out, pictures)
        self.tiles = tiles
        self.stopped: Callable[[], bool] = lambda: False

    def read(self, id: str) -> Read:
        """Nothing yet; the pixels say that no other image is finished meanwhile."""
        return Read(None, LARGEST)

    def write(self, id: str, seen: object, logits: Logits | None) -> bool | None:
        """Read, predict and write an image; None for one that cannot be read."""
        try:
            with open_rows(self.reader.images[id]) as image:
                self.reader.notice(id, image.orientation, image.frames)
                self._write_rows(id, _Watched(image) if self.pictures else image)
        except DataError as error:
            self.reader.leave_out(id, str(error))
            return None
        return True

    def _write_rows(self, id: str, image: ImageRows) -> None:
        size, tasks = (image.height, image.width), self.predictor.tasks
        drawn = {name: Kept(task, size, confidence=False) for name, task in tasks.items()} if self.pictures else {}
        with ExitStack() as held:
            files = {name: LabelRows(self.out, task, id, size, held, drawn.get(name)) for name, task in tasks.items()}
            for name, band in tiled_bands(self.predictor, image, self.tiles, self.stopped):
                files[name].add(band)
            for file in files.values():
                file.close()
        if isinstance(image, _Watched):
            shown = [kept.shown() for kept in drawn.values()]
            save_label_picture(self.out / "pictures" / f"{id}.png", id, image.picture(), shown)
            self.drawn[id] = is_reduced(*size)


class _Watched(ImageRows):
    """An image by rows, of which the pixels that a small picture shows are kept."""

    def __init__(self, image: ImageRows) -> None:
        self.image, self.height, self.width = image, image.height, image.width
        rows, self.columns = nearest_pixels(self.height, self.width)
        self.kept_rows: Array = rows[:, 0]
        self.kept: list[Array] = []

    def rows(self, top: int, bottom: int) -> Array:
        """Rows in order, each once."""
        found = self.image.rows(top, bottom)
        places = self.kept_rows[(self.kept_rows >= top) & (self.kept_rows < bottom)] - top
        self.kept.append(found[places[:, None], self.columns])
        return found

    def picture(self) -> Array:
        """The image, small."""
        return np.concatenate(self.kept)
