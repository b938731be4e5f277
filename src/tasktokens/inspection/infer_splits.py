"""The splits of a folder: lists of ids in text files, or folders below the images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tasktokens.data.ids import read_ids
from tasktokens.errors import DataError

WORDS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
"""Names of lists and folders by split."""

FOLDERS = ("", "splits", "ImageSets/Segmentation", "ImageSets/Main", "ImageSets")
"""Where lists lie; the last three as PASCAL VOC and what exports its layout have them."""


def find_lists(root: Path) -> dict[str, str]:
    """List files by split: the first of each, with its path below the root."""
    lists: dict[str, str] = {}
    for folder in FOLDERS:
        if not (root / folder).is_dir():
            continue
        files = {path.stem.lower(): path for path in sorted((root / folder).glob("*.[tT][xX][tT]")) if path.is_file()}
        for split, words in WORDS.items():
            for word in words:
                if word in files:
                    lists.setdefault(split, files[word].relative_to(root).as_posix())
    return lists


def infer_splits(
    root: Path, ids: Mapping[str, Path], other_names: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, tuple[str, ...]], dict[str, str]]:
    """Splits of the images.

    Args:
        root: the folder.
        ids: images by id.
        other_names: ids by other names that a list may use, where the ids are written out by split anyway.

    Returns:
        The value of ``splits`` in a ``dataset.yaml``, the ids by split, and by list why it is not used.

    Raises:
        DataError: there are lists of splits, and none that says what to train on: all images, those to be measured on
            among them, would be trained on.
    """
    declared: dict[str, str] = {}
    members: dict[str, tuple[str, ...]] = {}
    unused: dict[str, str] = {}
    for split, file in find_lists(root).items():
        try:
            found = _read(root / file, ids, other_names)
        except DataError as error:
            unused[file] = str(error)
            continue
        if found:
            declared[split], members[split] = file, found
    if unused and "train" not in declared:
        raise DataError(f"{next(iter(unused.values()))}; correct it, or rename it if it is no list of a split")
    if declared:
        return declared, members, unused
    above = {id.split("/")[0] for id in ids if "/" in id}
    declared = {split: f"{word}/" for split, words in WORDS.items() for word in words if word in above}
    if "train" not in declared:
        return {}, {}, unused
    members = {split: tuple(id for id in ids if id.startswith(folder)) for split, folder in declared.items()}
    return declared, members, unused


def _read(path: Path, ids: Mapping[str, Path], other_names: Mapping[str, str]) -> tuple[str, ...]:
    try:
        return read_ids(path, ids)
    except DataError:
        if not other_names:
            raise
        return tuple(other_names[name] for name in read_ids(path, other_names))
