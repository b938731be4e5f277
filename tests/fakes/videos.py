"""Video files of a few frames, made with PyAV alone; how a phone turns them, and sound without pictures."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

MILLISECOND = Fraction(1, 1000)


def draw_frames(count: int, height: int = 48, width: int = 64) -> list[NDArray[np.uint8]]:
    """Frames whose quarters are red, green, blue and black, ever brighter."""
    frames = []
    for number in range(count):
        frame = np.zeros((height, width, 3), np.uint8)
        light = 150 + 100 * number // max(1, count)
        frame[: height // 2, : width // 2, 0] = light
        frame[: height // 2, width // 2 :, 1] = light
        frame[height // 2 :, : width // 2, 2] = light
        frames.append(frame)
    return frames


def write_clip(
    path: Path, frames: Sequence[NDArray[np.uint8]], times_ms: Sequence[int] | None = None, **options: str
) -> Path:
    """H.264, ten frames per second or at the given times."""
    with av.open(str(path), "w", options=options) as container:
        stream: Any = container.add_stream("libx264", rate=10, options={"preset": "ultrafast", "crf": "12"})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        stream.codec_context.time_base = MILLISECOND
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = (times_ms or range(0, 100 * len(frames), 100))[number], MILLISECOND
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_sound(path: Path) -> Path:
    """A moment of silence."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=44_100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.int16), format="s16", layout="stereo")
        frame.rate, frame.pts = 44_100, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def turn(path: Path, degrees: int) -> Path:
    """Mark an mp4 as turned clockwise, in the matrix of its track header (ISO/IEC 14496-12, 8.3.2)."""
    cosine, sine = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    data = bytearray(path.read_bytes())
    start = data.find(b"tkhd") + 4
    matrix = start + 4 + (32 if data[start] == 1 else 20) + 16
    parts = (cosine << 16, sine << 16, 0, -sine << 16, cosine << 16, 0, 0, 0, 1 << 30)
    data[matrix : matrix + 36] = struct.pack(">9i", *parts)
    path.write_bytes(data)
    return path


def read_times(path: Path) -> list[float]:
    """The times of all frames in seconds."""
    with av.open(str(path)) as container:
        return [round(float(frame.time or 0), 3) for frame in container.decode(video=0)]
