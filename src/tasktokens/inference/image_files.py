"""Image files that are read in threads, and what is noticed meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path

from accelerate import Accelerator

from tasktokens.datasets.index import picture_facts, read_image
from tasktokens.errors import DataError
from tasktokens.inference.image_notes import ImageNotes, check_all_read, warn_of_notes
from tasktokens.tasks.base import Array
from tasktokens.utils.distributed import all_gather, raise_on_all_ranks, signals
from tasktokens.utils.progress import track


class ImageReader(ImageNotes):
    """Reads images by id, in any thread, and keeps what was noticed until `report`."""

    def read(self, id: str) -> Array | None:
        """An image (H, W, 3) uint8; None for one that cannot be read."""
        path = self.images[id]
        try:
            image = read_image(path)
        except DataError as error:
            self.leave_out(id, str(error))
            return None
        facts = picture_facts(path)
        self.notice(id, facts.orientation, facts.frames)
        return image

    def report(self, accelerator: Accelerator | None = None, others: Mapping[str, str] | None = None) -> None:
        """Warn of turned images and of several pages; `DataError` names images that could not be read.

        With an accelerator what all its ranks noticed, and all fail alike. ``others``: what is wrong with videos.
        """
        noticed = [*self.noticed(), [*(others or {}).values()]]
        if accelerator is not None:
            noticed = [[text for texts in all_gather(accelerator, of_rank) for text in texts] for of_rank in noticed]
        if accelerator is None or accelerator.is_main_process:
            warn_of_notes(noticed, len(self.images))
        with raise_on_all_ranks(accelerator) if accelerator is not None else nullcontext():
            check_all_read(noticed[0], len(self.images), noticed[3])


def readable(images: Mapping[str, Path], doing: str, quiet: bool) -> Iterator[tuple[str, Array]]:
    """Images (H, W, 3) uint8 by id, with progress; `DataError` at the end names those that cannot be read.

    SIGINT and SIGTERM end it between two images, by `SystemExit`.
    """
    reader = ImageReader(images)
    with signals(1) as stop:
        for number, id in enumerate(track(images, doing, shown=not quiet)):
            if stop.received:
                stop.exit(f"{number} of {len(images)} images are done; --overwrite starts again")
            image = reader.read(id)
            if image is not None:
                yield id, image
        if stop.received:
            stop.exit("all images are done")
    reader.report()
