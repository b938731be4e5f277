"""The image files that a command line names: which they are, and what is noticed while they are read."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from accelerate import Accelerator

from tasktokens.datasets.files_by_id import IMAGE_ENDINGS, list_paths
from tasktokens.datasets.index import check_id, picture_facts, read_image
from tasktokens.errors import DataError
from tasktokens.inference.videos import VIDEO_ENDINGS, is_video
from tasktokens.tasks.base import Array
from tasktokens.utils import console
from tasktokens.utils.distributed import all_gather, raise_on_all_ranks, signals
from tasktokens.utils.listing import composed, matches, walk_files
from tasktokens.utils.progress import track


class ImageReader:
    """Reads images by id, in any thread, and keeps what was noticed until `report`."""

    def __init__(self, images: Mapping[str, Path]) -> None:
        self.images = images
        self._unreadable: dict[str, str] = {}
        self._turned: dict[str, str] = {}
        self._paged: dict[str, str] = {}

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

    def leave_out(self, id: str, why: str) -> None:
        """An image cannot be read."""
        self._unreadable[id] = why

    def notice(self, id: str, orientation: int, frames: int) -> None:
        """An image may be turned, or one of several."""
        if orientation > 1:
            self._turned[id] = str(self.images[id])
        if frames > 1:
            self._paged[id] = str(self.images[id])

    def report(self, accelerator: Accelerator | None = None, others: Mapping[str, str] | None = None) -> None:
        """Warn of turned images and of several pages; `DataError` names images that could not be read.

        With an accelerator what all its ranks noticed, and all fail alike. ``others``: what is wrong with videos.
        """
        # In the order of the images: threads read them in any.
        noticed = [
            [found[id] for id in self.images if id in found] for found in (self._unreadable, self._turned, self._paged)
        ]
        noticed.append([*(others or {}).values()])
        if accelerator is not None:
            noticed = [[text for texts in all_gather(accelerator, of_rank) for text in texts] for of_rank in noticed]
        unreadable, turned, paged, damaged = noticed
        for paths, what in ((turned, TURNED), (paged, PAGED)):
            if paths and (accelerator is None or accelerator.is_main_process):
                console.say(f"warning: {len(paths)} of {len(self.images)} images have {what}, such as {paths[0]}")
        with raise_on_all_ranks(accelerator) if accelerator is not None else nullcontext():
            left_out = f"{len(unreadable)} of {len(self.images)} images were left out: {'; '.join(unreadable[:5])}"
            if wrong := [*([left_out] if unreadable else []), *damaged[:5]]:
                raise DataError("; ".join(wrong))


TURNED = (
    "an EXIF orientation, which is not applied: rotate them first (docs/reference/data.md); the network used "
    "the stored pixels"
)
"""What is said of images that a viewer would turn."""
PAGED = "several pages or frames, of which the first was used (convert a moving picture to mp4 to have all frames)"


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


def find_images(inputs: str | Path | Sequence[str | Path]) -> dict[str, Path]:
    """Image files by id: the path below the given folder without its ending.

    Folders are listed as data folders are: linked folders are followed, and what begins with a dot is passed over. A
    file that is named itself is taken in any case. Raises `DataError`.
    """
    return _by_id(_listed(inputs, IMAGE_ENDINGS))


def find_images_and_videos(inputs: str | Path | Sequence[str | Path]) -> tuple[dict[str, Path], dict[str, Path]]:
    """`find_images`, and video files by their ids too. Raises `DataError` also where files of both would collide."""
    listed = _listed(inputs, IMAGE_ENDINGS + VIDEO_ENDINGS)
    are_videos = [is_video(file) for _, file in listed]
    images, videos = (
        _by_id([each for each, is_one in zip(listed, are_videos, strict=True) if is_one == wanted])
        for wanted in (False, True)
    )
    for id in images:
        folder = next((above.as_posix() for above in Path(id).parents if above.as_posix() in videos), None)
        if folder is not None:
            raise DataError(
                f"{images[id]} would be written into the folder of the frames of {videos[folder]}; give them to two "
                f"commands with an --out each"
            )
    return images, videos


def _listed(inputs: str | Path | Sequence[str | Path], endings: Sequence[str]) -> list[tuple[str, Path]]:
    """Ids and files; those of folders have one of the endings."""
    found: list[tuple[str, Path]] = []
    for item in map(str, [inputs] if isinstance(inputs, str | Path) else inputs):
        path = Path(item)
        if path.is_dir():
            listed = list(list_paths(path, endings))
        elif path.is_file():
            listed = [(composed(path.stem), path)]
        else:
            listed = _matching(item)
        if not listed:
            raise DataError(f"no images in folder {path} ({', '.join(endings)})")
        for id, _ in listed:
            check_id(id, path)
        found += listed
    return found


def _by_id(listed: Sequence[tuple[str, Path]]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for id, file in listed:
        if found.setdefault(id, file) != file:
            raise DataError(
                f"{found[id]} and {file} would both be written as '{id}'; name them apart, or give them to two "
                f"commands with an --out each ('{found[id].parent}/*{found[id].suffix}' takes one kind of files)"
            )
    return found


def folders_of(inputs: str | Path | Sequence[str | Path]) -> list[Path]:
    """Those of the inputs that are folders, which `find_images` lists."""
    return [path for path in map(Path, [inputs] if isinstance(inputs, str | Path) else inputs) if path.is_dir()]


def _matching(pattern: str) -> list[tuple[str, Path]]:
    """Ids and files that a pattern matches: the path below its part without wildcards."""
    parts = Path(pattern).parts
    start = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    root = Path(*parts[:start])
    if "**" in parts:  # not by glob, which goes through a loop of links forty times
        files = [root.joinpath(*file) for file in walk_files(root) if matches(file, parts[start:])]
    else:
        files = [Path(file) for file in sorted(glob.glob(pattern)) if os.path.isfile(file)]
    if not files:
        raise DataError(f"no image at '{pattern}': it is no file, no folder and no pattern that matches a file")
    return [(composed(file.relative_to(root).with_suffix("").as_posix()), file) for file in files]
