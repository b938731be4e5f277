"""Images with an EXIF orientation: which pixels their labels lie on, and what to say about it.

Viewers and most annotation tools show such an image turned; cameras and most libraries store and read it unturned. A
label of the shown size was drawn on the shown picture. A label of the stored size lies on the stored pixels where the
two sizes differ; where they do not (square images, half turns, mirrored ones), its size does not tell.
"""

from __future__ import annotations

from tasktokens.utils.orientation import MEANING, swaps_sides

Size = tuple[int, int]
"""(height, width)."""

UPRIGHT = "`tasktokens prepare --upright`"
"""What turns images and labels upright, for messages."""

REMOVE_TAG = "`exiftool -Orientation= FILE`"
"""What removes the tag, for messages."""


def describe_orientation(orientation: int) -> str:
    """``the EXIF orientation 6 (shown turned by 90 degrees clockwise), which is not applied``."""
    return f"the EXIF orientation {orientation} (shown {MEANING[orientation]}), which is not applied"


def same_shape(a: Size, b: Size) -> bool:
    """Whether one is the other in another size; sizes are rounded, up to a pixel of either."""
    return abs(a[0] * b[1] - a[1] * b[0]) <= max(*map(sum, (a, b)))


def is_turned(orientation: int, label: Size, image: Size) -> bool:
    """Whether a label has the shape that its image of stored size ``image`` is shown in, and not the stored one."""
    shown = image[::-1]
    return (
        swaps_sides(orientation)
        and label != image
        and (label == shown or (same_shape(label, shown) and not same_shape(label, image)))
    )


def turned_label(orientation: int, label: Size, image: Size) -> str | None:
    """What is wrong with a label because of its image's orientation; None where nothing is, or where that is not why.

    Args:
        orientation: of the image, 1..8.
        label, image: their sizes, the image's as stored.
    """
    if orientation == 1:
        return None
    has = f"its image has {describe_orientation(orientation)}"
    if is_turned(orientation, label, image):
        return (
            f"the label fits the picture as it is shown, not the stored pixels: {has}; turn the images with {UPRIGHT}"
        )
    if label == image and (not swaps_sides(orientation) or image[0] == image[1]):
        return (
            f"{has}, and the size does not tell whether the label was drawn on the picture as it is shown; if it was, "
            f"turn the images with {UPRIGHT}, and if it lies on the stored pixels, remove the tag ({REMOVE_TAG})"
        )
    return None
