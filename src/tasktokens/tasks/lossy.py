"""Whether the compression of a picture file changes its values: judged by its content, since endings prove nothing."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from PIL import Image

_TIFF_COMPRESSION, _TIFF_STRIPS, _TIFF_TILES = 259, 273, 324
_TIFF_LOSSY = {6: "JPEG", 7: "JPEG", 33003: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000", 34892: "JPEG",
               50002: "JPEG XL"}  # fmt: skip
_TIFF_WEBP = 50001


def lossy_compression(path: Path, image: Image.Image) -> str | None:
    """The name of the lossy compression of an open picture file, such as ``JPEG``; None where values are kept.

    JPEG (also in TIFF), WebP with a VP8 chunk and JPEG 2000 with the irreversible wavelet are lossy; JPEG 2000
    with the reversible one may be.
    """
    if image.format in ("JPEG", "MPO"):
        return "JPEG"
    with path.open("rb") as file:
        if image.format == "WEBP":
            return "lossy WebP" if _webp_is_lossy(file) else None
        if image.format == "JPEG2000":
            # Also of the reversible wavelet bits may have been left out, which the file does not say.
            return "lossy JPEG 2000" if _jpeg2000_is_lossy(file.read(2**20)) else "possibly lossy JPEG 2000"
        if image.format == "TIFF":
            return _of_tiff(file, image)
    return None


def _of_tiff(file: IO[bytes], image: Image.Image) -> str | None:
    tags = getattr(image, "tag_v2", {})
    compression = tags.get(_TIFF_COMPRESSION, 1)
    if compression in _TIFF_LOSSY:
        return f"TIFF with {_TIFF_LOSSY[compression]} compression"
    if compression == _TIFF_WEBP:
        offsets = tags.get(_TIFF_STRIPS) or tags.get(_TIFF_TILES) or (0,)
        file.seek(offsets[0])
        return "TIFF with lossy WebP compression" if _webp_is_lossy(file) else None
    return None


def _webp_is_lossy(file: IO[bytes]) -> bool:
    """Whether the picture's chunk is VP8, not VP8L; in an animation, that of its first frame."""
    if file.read(12)[8:] != b"WEBP":
        return True
    while len(head := file.read(8)) == 8:
        kind, size = head[:4], int.from_bytes(head[4:], "little")
        if kind in (b"VP8 ", b"VP8L"):
            return kind == b"VP8 "
        file.seek(16 if kind == b"ANMF" else size + size % 2, 1)
    return True


def _jpeg2000_is_lossy(data: bytes) -> bool:
    """Whether the first coding style (marker COD) names the 9-7 wavelet, which rounds; 5-3 is reversible."""
    at = data.find(b"\xff\x4f\xff\x51") + 2
    while at > 1 and data[at : at + 1] == b"\xff" and data[at : at + 2] != b"\xff\x90":
        if data[at : at + 2] == b"\xff\x52":
            return data[at + 13 : at + 14] != b"\x01"
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return True
