"""What is noticed while many images are read, and said of them in the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tasktokens.errors import DataError
from tasktokens.utils import console

TURNED = (
    "an EXIF orientation, which is not applied: rotate them first (docs/reference/data.md); the network used "
    "the stored pixels"
)
"""What is said of images that a viewer would turn."""
PAGED = "several pages or frames, of which the first was used (convert a moving picture to mp4 to have all frames)"


class ImageNotes:
    """What was noticed of images, in any thread, until it is said.

    Args:
        images: files by id.
    """

    def __init__(self, images: Mapping[str, Path]) -> None:
        self.images = images
        self._unreadable: dict[str, str] = {}
        self._turned: dict[str, str] = {}
        self._paged: dict[str, str] = {}

    def leave_out(self, id: str, why: str) -> None:
        """An image cannot be read."""
        self._unreadable[id] = why

    def notice(self, id: str, orientation: int, frames: int) -> None:
        """An image may be turned, or one of several."""
        if orientation > 1:
            self._turned[id] = str(self.images[id])
        if frames > 1:
            self._paged[id] = str(self.images[id])

    def noticed(self) -> list[list[str]]:
        """Images that cannot be read, that are turned, and that have pages, each in the order of the images: threads
        read them in any."""
        return [
            [found[id] for id in self.images if id in found] for found in (self._unreadable, self._turned, self._paged)
        ]


def warn_of_notes(noticed: Sequence[Sequence[str]], count: int) -> None:
    """Say which of ``count`` images are turned or have pages; see `ImageNotes.noticed`."""
    for paths, what in zip(noticed[1:3], (TURNED, PAGED), strict=True):
        if paths:
            console.say(f"warning: {len(paths)} of {count} images have {what}, such as {paths[0]}")


def check_all_read(unreadable: Sequence[str], count: int, damaged: Sequence[str] = ()) -> None:
    """Raise `DataError` naming images that could not be read, and what is wrong with videos."""
    left_out = f"{len(unreadable)} of {count} images were left out: {'; '.join(unreadable[:5])}"
    if wrong := [*([left_out] if unreadable else []), *damaged[:5]]:
        raise DataError("; ".join(wrong))
