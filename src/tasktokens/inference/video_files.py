"""The files that `predict` writes for a video: labels per frame, a table of their times, and a video of pictures."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

from tasktokens.errors import DataError
from tasktokens.inference.filled_folder import write_prediction
from tasktokens.inference.label_pictures import Kept
from tasktokens.inference.predictor import Predictor
from tasktokens.inference.stream import LARGEST, Logits, Read, Stopped
from tasktokens.inference.video_pictures import PictureVideo
from tasktokens.inference.videos import Clip, Frame, next_frames, open_clip, require_av
from tasktokens.tasks.base import Array
from tasktokens.utils import console
from tasktokens.utils.atomic import atomically

FRAMES = "frames"
"""The folder of the tables: for each frame its number, its time in seconds, and the id of its labels."""


class VideoWriter:
    """Predicts and writes one video at a time.

    Args:
        out: the folder.
        pictures: write ``pictures/{id}.mp4``.
        labels: write ``{task}/{id}/{frame}.png`` and ``confidence/{task}/{id}/{frame}.png``.
        every: only every N-th frame.

    Attributes:
        damaged: what is wrong with videos that could not be predicted to their end, by key.
        drawn: the keys of those that have a video of pictures; none counts as reduced.
        stopped: asked before each batch of frames; see `tasktokens.inference.resumable.Interruptible`.
    """

    def __init__(
        self, predictor: Predictor, videos: Mapping[str, Path], out: Path, pictures: bool, labels: bool, every: int
    ) -> None:
        self.predictor, self.videos, self.out = predictor, videos, out
        self.pictures, self.labels, self.every = pictures, labels, every
        self.damaged: dict[str, str] = {}
        self.drawn: dict[str, bool] = {}
        self.stopped: Callable[[], bool] = lambda: False

    def read(self, key: str) -> Read:
        """Nothing yet; the pixels say that nothing else is finished meanwhile."""
        return Read(None, LARGEST)

    def write(self, key: str) -> bool | None:
        """Predict and write a video; None for one that is damaged: what is whole of it is written."""
        try:
            with open_clip(self.videos[key]) as clip:
                self._write(key, clip)
        except DataError as error:
            self.damaged[key] = str(error)
            return None
        return True

    def _write(self, key: str, clip: Clip) -> None:
        """All frames until the end or to where it is damaged, which is raised after what there is was written."""
        id = stem_of(key)
        with ExitStack() as held:
            pictures: PictureVideo | None = None
            rows: list[tuple[int, str, str]] = []
            frames = clip.frames(self.every)
            while True:
                some, damage = next_frames(frames, self.predictor.batch_size)
                if self.stopped():
                    raise Stopped
                for frame, colours in self._predict(id, some):
                    if self.pictures:
                        pictures = pictures or self._begin(id, clip, held)
                        pictures.add(frame.pts, frame.image, colours)
                    rows.append((frame.number, f"{frame.time:.6f}", _frame_id(id, frame)))
                if damage is not None or not some:
                    break
            if rows:
                self._write_table(id, rows)
            _say(clip)
        if pictures is not None:
            self.drawn[key] = False
        if damage is not None:
            raise damage

    def _begin(self, id: str, clip: Clip, held: ExitStack) -> PictureVideo:
        path = held.enter_context(atomically(self.out / "pictures" / f"{id}.mp4"))
        rate = (clip.rate or Fraction(25)) / self.every
        pictures = PictureVideo(require_av(), path, self.predictor.tasks, clip.time_base, rate)
        held.callback(pictures.close)
        return pictures

    def _predict(self, id: str, some: list[Frame]) -> Iterator[tuple[Frame, list[Array]]]:
        """Frames with the colours of their tasks; their labels are written."""
        logits = self.predictor.logits([self.predictor.prepare(frame.image) for frame in some])
        for frame, each in zip(some, logits, strict=True):
            size = (frame.image.shape[0], frame.image.shape[1])
            yield frame, [self._task(_frame_id(id, frame), name, each, size) for name in self.predictor.tasks]

    def _task(self, id: str, name: str, logits: Logits, size: tuple[int, int]) -> Array:
        task, drawn = self.predictor.tasks[name], Kept(self.predictor.tasks[name], size, confidence=False)
        bands = self.predictor.decode_bands(name, logits[name], size)
        if self.labels:
            write_prediction(self.out, task, id, bands, size, drawn=drawn)
        else:
            top = 0
            for band in bands:
                drawn.add(top, band.value_CHW, None, None)
                top += len(band.confidence)
        return drawn.shown().colours

    def _write_table(self, id: str, rows: list[tuple[int, str, str]]) -> None:
        with atomically(self.out / FRAMES / f"{id}.csv") as new, new.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["frame", "seconds", "id"])
            writer.writerows(rows)


def stem_of(key: str) -> str:
    """The id of a video's files, from the key of its own: a path with its ending, since a photo may have its name."""
    return Path(key).with_suffix("").as_posix()


def _frame_id(id: str, frame: Frame) -> str:
    return f"{id}/{frame.number:06d}"


def _say(clip: Clip) -> None:
    """What a user would not expect."""
    if clip.is_variable and clip.intervals is not None:
        slow, fast = (1 / interval for interval in reversed(clip.intervals))
        console.say(
            f"{clip.path} has a variable frame rate, {slow:.3g} to {fast:.3g} per second: the pictures keep the time "
            f"of each frame ({FRAMES}/)"
        )
    if clip.turned:
        console.say(f"{clip.path} is marked as turned: its frames were turned upright, as players show them")
