"""Which of the folders in a data folder holds the images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tasktokens.datasets.files_by_id import list_files
from tasktokens.datasets.index import read_image
from tasktokens.errors import DataError
from tasktokens.inspection.scan import evenly_spread_files, scan_files
from tasktokens.utils.file_kinds import ARRAY_ENDINGS, IMAGE_ENDINGS

IMAGES = IMAGE_ENDINGS + ARRAY_ENDINGS
"""Endings of files that may be images."""


def images_folder(root: Path, folders: Sequence[str]) -> str:
    """``images``, else the folder with the most photographs."""
    if "images" in folders and list_files(root / "images", IMAGES):
        return "images"
    photographs: dict[str, float] = {}
    for folder in folders:
        files = list(list_files(root / folder, IMAGE_ENDINGS).values())
        chosen = evenly_spread_files(files) if files else []
        photographs[folder] = len(files) * sum(map(_is_photograph, chosen)) / max(len(chosen), 1)
    if not any(photographs.values()):
        raise DataError(
            f"no folder of photographs in {root} (folders: {', '.join(folders) or 'none'}); put the images into "
            f"{root / 'images'}, and the labels of each task into a folder of its own"
        )
    return max(photographs, key=lambda folder: photographs[folder])


def _is_photograph(path: Path) -> bool:
    """RGB with many colours that are no unit vectors."""
    try:
        read_image(path)
    except DataError:
        return False
    scan = scan_files([(path, path)], "")
    return scan.channels == 3 and scan.unit < 0.9 and (scan.colours is None or len(scan.colours) > 64)
