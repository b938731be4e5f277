"""Video files: which they are, and their frames, upright and with their times (extra ``video``: PyAV)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tasktokens.errors import ConfigError, DataError
from tasktokens.utils.file_kinds import ARRAY_ENDINGS, IMAGE_ENDINGS, VIDEO_ENDINGS
from tasktokens.utils.safe_io import FORMATS, check_pixels, open_picture, require_regular_file

Array = npt.NDArray[Any]

_CONTAINERS = (
    "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,av1,obu,ivf,flv,ogg,asf,gif,apng,mxf,nut,dv,mjpeg,rm,"
    "yuv4mpegpipe,mp3,aac,wav,flac,amr,ac3"
)
"""What FFmpeg may open: containers of pictures and sound, no playlists, which would lead to other files and servers."""

_LEAST_MISSING = 0.5
"""Seconds of a video that may be missing at its end before it counts as cut off."""


class Frame(NamedTuple):
    """One frame of a video.

    Attributes:
        number: from 0.
        pts: its time in units of `Clip.time_base`, increasing.
        time: the same in seconds.
        image: (H, W, 3) uint8 RGB, upright.
    """

    number: int
    pts: int
    time: float
    image: Array


class DamagedVideo(DataError):
    """A video ended before its end; the frames until then are whole."""


def require_av() -> Any:
    """The module ``av``. Raises `ConfigError` where it is not installed."""
    try:
        import av
    except ImportError as error:
        raise ConfigError(f"videos need PyAV ({error}): pip install 'tasktokens[video]'") from error
    return av


def is_video(path: Path) -> bool:
    """Whether a file is meant as a video: by its ending, and by its content where that is no image's either."""
    ending = path.suffix.lower()
    if ending in VIDEO_ENDINGS or ending in (*IMAGE_ENDINGS, *ARRAY_ENDINGS):
        return ending in VIDEO_ENDINGS
    if ending.lstrip(".").upper() in FORMATS:
        return False
    try:
        with open_picture(path):
            return False
    except (OSError, ValueError, SyntaxError):
        return _can_open(path)


def _can_open(path: Path) -> bool:
    try:
        av = require_av()
        with _opened(av, path):
            return True
    except (ConfigError, DataError):
        return False


@contextmanager
def _opened(av: Any, path: Path) -> Iterator[Any]:
    """The container. Raises `DataError`."""
    try:
        require_regular_file(path)
        options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
        # "file:" so that a name such as concat:a|b is no address.
        container = av.open(f"file:{path.absolute()}", container_options=options, metadata_errors="replace")
    except FileNotFoundError as error:
        raise DataError(f"video {path} does not exist") from error
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"video {path} cannot be opened ({reason}); replace it or leave it out") from error
    with container:
        yield container


@contextmanager
def open_clip(path: Path) -> Iterator[Clip]:
    """Open a video.

    Raises:
        ConfigError: PyAV is not installed.
        DataError: it cannot be opened, has no pictures, or pictures larger than ``TASKTOKENS_MAX_PIXELS``.
    """
    av = require_av()
    with _opened(av, path) as container:
        streams = [stream for stream in container.streams.video if not _is_cover(av, stream)]
        if not streams:
            what = "sound but no pictures" if container.streams.audio else "no pictures"
            raise DataError(f"{path} has {what}; give a video, or leave the file out")
        yield Clip(av, path, container, streams[0])


def _is_cover(av: Any, stream: Any) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


class Clip:
    """An open video.

    Attributes:
        path: its file.
        time_base: the unit of `Frame.pts` in seconds.
        rate: frames per second, on average, or None where the file does not say.
        turned: by how many degrees its frames were turned to be upright; known from the first frame on.
        intervals: the shortest and the longest time between two frames so far, in seconds.
    """

    def __init__(self, av: Any, path: Path, container: Any, stream: Any) -> None:
        self.av, self.path, self.container, self.stream = av, path, container, stream
        self.time_base: Fraction = stream.time_base or Fraction(1, 90_000)
        self.rate: Fraction | None = stream.average_rate or stream.guessed_rate
        self.turned = 0
        self.intervals: tuple[float, float] | None = None
        self._check_size(stream.codec_context)
        stream.thread_type = "AUTO"
        # Or a frame whose predecessors are lost would be made up of what there is.
        stream.codec_context.options = {"err_detect": "explode"}

    @property
    def is_variable(self) -> bool:
        """Whether frames differed in how long they are shown, by more than a container rounds."""
        if self.intervals is None:
            return False
        shortest, longest = self.intervals
        return longest - shortest > max(0.2 * shortest, 2.5 * float(self.time_base), 0.002)

    def frames(self, every: int = 1) -> Iterator[Frame]:
        """Every N-th frame, from the first on.

        Raises:
            DamagedVideo: the file is damaged or cut off; frames until then were whole, and were given.
        """
        last: int | None = None
        count = 0
        for decoded in self._decoded():
            pts = self._pts(decoded, count, last)
            if last is not None:
                self._notice(float((pts - last) * self.time_base))
            if count % every == 0:
                yield Frame(count, pts, float(pts * self.time_base), self._upright(decoded))
            last, count = pts, count + 1
        self._check_end(count, last)

    def _decoded(self) -> Iterator[Any]:
        count = 0
        try:
            for packet in self.container.demux(self.stream):
                if packet.is_corrupt:
                    raise ValueError("a part of it is damaged")
                for frame in packet.decode():
                    if frame.is_corrupt:
                        raise ValueError("a frame is damaged")
                    self._check_size(frame)
                    yield frame
                    count += 1
        except (self.av.error.FFmpegError, OSError, ValueError) as error:
            raise self._damaged(str(getattr(error, "strerror", None) or error), count) from error

    def _pts(self, frame: Any, count: int, last: int | None) -> int:
        """The frame's time; one after the last where it has none, or none that is later."""
        step = max(1, round(1 / (self.rate * self.time_base))) if self.rate else 1
        if frame.pts is None:
            return count * step if last is None else last + step
        scaled = frame.pts if frame.time_base in (None, self.time_base) else round(frame.time / self.time_base)
        return int(scaled) if last is None or scaled > last else last + 1

    def _notice(self, interval: float) -> None:
        shortest, longest = self.intervals or (interval, interval)
        self.intervals = min(shortest, interval), max(longest, interval)

    def _upright(self, frame: Any) -> Array:
        degrees = round(getattr(frame, "rotation", 0) or 0)
        self.turned = degrees % 360 if degrees % 90 == 0 else 0
        image: Array = frame.to_ndarray(format="rgb24")
        # PyAV gives degrees counterclockwise, as `rot90` takes them.
        return np.ascontiguousarray(np.rot90(image, self.turned // 90)) if self.turned else image

    def _check_size(self, picture: Any) -> None:
        try:
            check_pixels(picture.height, picture.width)
        except ValueError as error:
            raise DataError(f"video {self.path} cannot be read ({error})") from error

    def _check_end(self, count: int, last: int | None) -> None:
        if last is None:
            raise DataError(f"video {self.path} has no frame that can be decoded; replace it or leave it out")
        end, declared = float(last * self.time_base), self._declared_end()
        longest = self.intervals[1] if self.intervals else 0.0
        if declared is not None and declared - end > max(_LEAST_MISSING, 3 * longest):
            raise self._damaged(f"it says that it lasts {declared:.1f} s", count, end)

    def _declared_end(self) -> float | None:
        """When its pictures end, in seconds, where the file says so."""
        start = (self.stream.start_time or 0) * self.time_base
        if self.stream.duration:
            return float(start + self.stream.duration * self.time_base)
        try:  # Matroska
            hours, minutes, seconds = str(self.stream.metadata["DURATION"]).split(":")
            return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        except (KeyError, ValueError):
            return None

    def _damaged(self, why: str, count: int, end: float | None = None) -> DamagedVideo:
        where = f"after {count} frames" + ("" if end is None else f" ({end:.1f} s)")
        kept = "; those are kept" if count else ""
        return DamagedVideo(f"video {self.path} is damaged or cut off {where}: {why}{kept}")


def next_frames(frames: Iterator[Frame], count: int) -> tuple[list[Frame], DataError | None]:
    """The next frames, and what is wrong with those after them."""
    found: list[Frame] = []
    try:
        for frame in islice(frames, count):
            found.append(frame)  # not `extend`: those before an error are kept
    except DataError as error:
        return found, error
    return found, None
