"""The image and video files that a command line names, by id."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from tasktokens.errors import DataError
from tasktokens.inference.videos import is_video
from tasktokens.utils.file_kinds import IMAGE_ENDINGS, VIDEO_ENDINGS
from tasktokens.utils.listing import check_id, composed, list_paths, matches, walk_files


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
