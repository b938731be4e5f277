"""Side-by-side pictures of a video's frames and predictions, with captions and legends, as a video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tasktokens.tasks import Task
from tasktokens.tasks.base import Array
from tasktokens.utils.pictures import Picture, Strip, draw_strips

WIDEST = 3840
"""Pixels of a picture's width: more is beyond what most players decode."""

_ENCODERS = {"libx264": {"crf": "20", "preset": "veryfast"}, "libopenh264": {}, "mpeg4": {"qscale": "3"}}
"""By preference; what there is depends on how FFmpeg was built."""


class PictureVideo:
    """An mp4 whose pictures are a frame beside each task in colours, above their legends.

    Args:
        path: to write.
        tasks: of the pictures.
        time_base: the unit of the times, in seconds; they are kept as they are, so that a variable rate stays one.
        rate: frames per second, on average.
    """

    def __init__(self, av: Any, path: Path, tasks: Mapping[str, Task], time_base: Fraction, rate: Fraction) -> None:
        self.av, self.tasks, self.time_base, self.rate = av, tasks, time_base, rate
        self.container = av.open(str(path), "w", format="mp4")
        self.stream: Any = None

    def add(self, pts: int, image_HW3: Array, colours: Sequence[Array]) -> None:
        """The next frame with the pictures of the tasks, at its time."""
        pixels = self._drawn(image_HW3, colours)
        if self.stream is None:
            self.stream = self._begin(pixels.shape[0], pixels.shape[1])
        frame = self.av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = pts, self.time_base
        self.container.mux(self.stream.encode(frame))

    def close(self) -> None:
        """Write what is left; the file is then whole."""
        if self.stream is not None:
            self.container.mux(self.stream.encode(None))
        self.container.close()

    def _begin(self, height: int, width: int) -> Any:
        name = next(name for name in _ENCODERS if name in self.av.codecs_available)
        stream = self.container.add_stream(name, rate=self.rate, options=_ENCODERS[name])
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.codec_context.time_base = self.time_base
        return stream

    def _drawn(self, image_HW3: Array, colours: Sequence[Array]) -> Array:
        captions = ["image", *self.tasks]
        most = WIDEST // len(captions) - 24
        panels = [_reduced(picture, most) for picture in (image_HW3, *colours)]
        strip = Strip("", tuple(Picture(*each) for each in zip(captions, panels, strict=True)))
        # Of all classes, so that the picture keeps its size whatever is in it.
        legends = [task.legend() for task in self.tasks.values()]
        scale = 2 if 2 * panels[0].shape[1] <= most else 1
        pixels = np.asarray(draw_strips([strip], scale, legends))
        even = [(0, side % 2) for side in pixels.shape[:2]]  # as the codecs want it
        return np.pad(pixels, (*even, (0, 0)), mode="edge")


def _reduced(picture_HW3: Array, most: int) -> Array:
    """At most so many pixels per side; of a larger one the nearest pixels, so that colours keep."""
    height, width = picture_HW3.shape[:2]
    share = most / max(height, width)
    if share >= 1:
        return picture_HW3
    size = max(1, round(width * share)), max(1, round(height * share))
    reduced: Array = np.asarray(Image.fromarray(picture_HW3).resize(size, Image.Resampling.NEAREST))
    return reduced
