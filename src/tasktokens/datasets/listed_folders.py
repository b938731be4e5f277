"""Folders that are listed for images and labels: what a verb wrote there would be images and labels the next time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tasktokens.errors import RunExistsError
from tasktokens.utils.safe_io import load_yaml, read_text


def check_not_listed(out: Path, folders: Iterable[Path] = ()) -> None:
    """Raise `RunExistsError` for a folder to write to that lies in one of images or labels.

    Args:
        out: the folder; it may not exist yet.
        folders: further ones that are listed, beside those of a data set that ``out`` lies in.
    """
    real = Path(os.path.realpath(out))
    for folder in (*folders, *_described(real)):
        if Path(os.path.realpath(folder)) in real.parents:
            raise RunExistsError(
                f"{out} lies in {folder}, whose files are read as images or labels: what is written there would be "
                f"read too; give a folder beside it"
            )


def _described(path: Path) -> Iterator[Path]:
    """The folders of images and labels of the data sets that a path lies in."""
    for root in path.parents:
        try:
            values = load_yaml(read_text(root / "dataset.yaml"))
        except (OSError, ValueError):
            continue
        if not isinstance(values, Mapping) or "manifest" in values or not isinstance(values.get("tasks"), Mapping):
            continue
        specs = values["tasks"].items()
        named = [spec.get("folder", name) if isinstance(spec, Mapping) else name for name, spec in specs]
        yield from (root / str(name) for name in (values.get("images", "images"), *named))
