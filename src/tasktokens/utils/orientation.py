"""The EXIF orientation of pictures: how a viewer turns the stored pixels to show them.

| tag | shown as stored pixels that are | sides |
|---|---|---|
| 1 | left as they are | kept |
| 2 | mirrored left to right | kept |
| 3 | turned by 180 degrees | kept |
| 4 | mirrored top to bottom | kept |
| 5 | transposed | swapped |
| 6 | turned by 90 degrees clockwise | swapped |
| 7 | transposed along the other diagonal | swapped |
| 8 | turned by 90 degrees counterclockwise | swapped |

Source: EXIF 2.32, tag 0x0112. Everything here reads *stored* pixels. Pillow applies the tag to TIFF files, and to no
other format, when it decodes them; `picture_array` undoes that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

ORIENTATION = 0x0112
"""Number of the EXIF tag."""

MEANING = {
    2: "mirrored left to right",
    3: "turned by 180 degrees",
    4: "mirrored top to bottom",
    5: "transposed",
    6: "turned by 90 degrees clockwise",
    7: "transposed along the other diagonal",
    8: "turned by 90 degrees counterclockwise",
}
"""How a stored picture differs from the shown one, by the value of the tag."""


def swaps_sides(orientation: int) -> bool:
    """Whether height and width of the shown picture are those of the stored one, swapped."""
    return orientation >= 5


def picture_orientation(image: Image.Image) -> int:
    """The tag, 1..8, of a picture that was opened and not yet decoded; 1 where it has none, or none that is defined."""
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # a damaged EXIF block is passed over by viewers too
        return 1
    return found if isinstance(found, int) and found in MEANING else 1


def turn_upright(array: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Stored pixels (H, W, ...) as a viewer shows them, (W, H, ...) where the sides are swapped.

    Examples:
        >>> turn_upright(np.array([[1, 2], [3, 4]]), 6).tolist()
        [[3, 1], [4, 2]]
    """
    if swaps_sides(orientation):
        array = array.swapaxes(0, 1)
    rows, columns = _REVERSED.get(orientation, (False, False))
    return array[:: -1 if rows else 1, :: -1 if columns else 1]


_REVERSED = {2: (False, True), 3: (True, True), 4: (True, False), 6: (False, True), 7: (True, True), 8: (True, False)}
"""Whether rows and columns are reversed, after the sides were swapped."""

_INVERSE = {6: 8, 8: 6}
"""All others undo themselves."""


def picture_array(image: Image.Image, mode: str | None = None) -> npt.NDArray[Any]:
    """Decode a picture that was opened: its stored pixels, (H, W) or (H, W, channels), converted to ``mode``."""
    # Before decoding, which removes the tag of a TIFF.
    turned = picture_orientation(image) if image.format == "TIFF" else 1
    array = np.asarray(image if mode is None else image.convert(mode))
    return turn_upright(array, _INVERSE.get(turned, turned))


def stored_size(image: Image.Image) -> tuple[int, int]:
    """(height, width) of the stored pixels of a picture that was opened and not yet decoded."""
    if image.format == "TIFF":
        tags: Any = getattr(image, "tag_v2", {})
        height, width = tags.get(257), tags.get(256)  # what Pillow itself gives depends on its version
        if isinstance(height, int) and isinstance(width, int):
            return height, width
    return image.height, image.width
