"""What a TIFF says in its tags: the value that means "no data", and how many bands it has."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path

from PIL import Image, TiffImagePlugin

_BITS, _SAMPLES, _GDAL_NODATA = 258, 277, 42113


def nodata_value(image: Image.Image) -> float | None:
    """What the tag GDAL_NODATA of an open TIFF names; None for other files, and for NaN, which is void anyway."""
    if image.format != "TIFF":
        return None
    with suppress(ValueError):
        value = float(str(getattr(image, "tag_v2", {}).get(_GDAL_NODATA, "")).strip().strip("\0"))
        return value if math.isfinite(value) else None
    return None


def describe_bands(path: Path) -> str | None:
    """Bands and bits of a TIFF that Pillow cannot open, such as ``a TIFF of 5 bands of 16 bits``; None: no TIFF."""
    with suppress(Exception), path.open("rb") as file:  # a damaged file has no description
        header = file.read(8)
        if header[:4] not in (b"II*\0", b"MM\0*"):
            return None
        tags = TiffImagePlugin.ImageFileDirectory_v2(header)
        file.seek(tags.next)
        tags.load(file)
        bits = tags.get(_BITS, (1,))
        return f"a TIFF of {tags.get(_SAMPLES, 1)} bands of {bits[0] if isinstance(bits, tuple) else bits} bits"
    return None
