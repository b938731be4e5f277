"""The splits of a folder: lists of ids in text files, or folders below the images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tasktokens.errors import DataError
from tasktokens.utils.safe_io import MAX_YAML_BYTES

WORDS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
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


def read_list(path: Path) -> list[str]:
    """The lines of a list without blanks. Raises `DataError` where it cannot be read."""
    try:
        with path.open("rb") as file:
            text = file.read(64 * MAX_YAML_BYTES).decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror or error})") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


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
    """
    declared: dict[str, str] = {}
    members: dict[str, tuple[str, ...]] = {}
    unused: dict[str, str] = {}
    for split, file in find_lists(root).items():
        lines = read_list(root / file)
        found = [line if line in ids else other_names.get(line, "") for line in lines]
        wrong = [line for line, id in zip(lines, found, strict=True) if not id]
        if wrong:
            unused[file] = f"it lists '{wrong[0]}' ({len(wrong)} such), which is not the id of an image"
        elif lines:
            declared[split], members[split] = file, tuple(found)
    if declared:
        return declared, members, unused
    above = {id.split("/")[0] for id in ids if "/" in id}
    declared = {split: f"{word}/" for split, words in WORDS.items() for word in words if word in above}
    if "train" not in declared:
        return {}, {}, unused
    members = {split: tuple(id for id in ids if id.startswith(folder)) for split, folder in declared.items()}
    return declared, members, unused
