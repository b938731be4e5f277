"""Uploads: good ones, and everything else that people and attackers send."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image


def picture(height: int = 40, width: int = 56, seed: int = 0, format: str = "PNG", **options: Any) -> bytes:
    """An image of large blocks."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (-(-height // 8), -(-width // 8), 3), np.uint8).repeat(8, 0).repeat(8, 1)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(blocks[:height, :width])).save(buffer, format, **options)
    return buffer.getvalue()


def bomb(height: int = 50_000, width: int = 50_000) -> bytes:
    """A PNG of a few hundred kB that would unpack to gigabytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(bytes(20_000_000), 9)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A small picture whose comment would unpack to 200 MB."""
    whole = picture()
    data = b"comment\0\0" + zlib.compress(bytes(200_000_000), 9)
    chunk = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    return whole[:33] + chunk + whole[33:]


def rotated() -> bytes:
    """A JPEG that viewers turn by 90 degrees."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return picture(format="JPEG", exif=exif.tobytes())


def animated() -> bytes:
    """A GIF of two frames."""
    frames = [Image.new("RGB", (56, 40), colour) for colour in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def floats() -> bytes:
    """A TIFF of 32-bit floats, whose range nobody knows."""
    buffer = io.BytesIO()
    Image.fromarray(np.linspace(-1, 1, 40 * 56, dtype=np.float32).reshape(40, 56)).save(buffer, "TIFF")
    return buffer.getvalue()
