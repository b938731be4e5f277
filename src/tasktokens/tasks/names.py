"""Names that a task can have: they become folders, columns of tables and modules of a network."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn

from tasktokens.errors import ConfigError

RESERVED = (
    "images", "image", "id", "split", "splits", "labels", "confidence", "pictures", "samples", "classes", "dataset",
    "discovered", "discovering", "predicting", "summary", "train", "val", "test", "holdout", "completed", "labelled",
    "provenance", "review", "frames",
)  # fmt: skip
"""Files, folders and columns that lie beside those of the tasks in what is read and written."""


_DEVICES = re.compile(r"con|prn|aux|nul|com\d|lpt\d", re.IGNORECASE)
_LONGEST = 100


def check_task_name(name: object) -> None:
    """Raise `ConfigError` where a task cannot be called so, with what to do."""
    text = "null" if name is None else str(name)
    if text.lower() in RESERVED:  # folders of some systems do not tell Images from images
        raise ConfigError(
            f"'{text}' cannot be a task's name: files or columns of that name lie beside those of the tasks; call it "
            f"something else and leave its files where they are, such as 'my_{text}: {{kind: ..., folder: {text}}}' in "
            f"dataset.yaml, or rename the manifest's column (reserved: {', '.join(RESERVED)})"
        )
    if _DEVICES.fullmatch(text) or len(text) > _LONGEST:
        reason = f"is longer than {_LONGEST} characters" if len(text) > _LONGEST else "names a device under Windows"
        raise ConfigError(f"'{text[:_LONGEST]}' cannot be a task's name: it becomes a folder, and it {reason}")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z]\w*", text) or hasattr(nn.ModuleDict, text):
        raise ConfigError(f"'{text}' cannot be a task's name; use letters, digits and _, beginning with a letter")


def check_distinct(names: Iterable[str]) -> None:
    """Raise `ConfigError` where two tasks would share a folder on systems that do not tell ``Depth`` from ``depth``."""
    taken: dict[str, str] = {}
    for name in names:
        other = taken.setdefault(name.casefold(), name)
        if other != name:
            raise ConfigError(
                f"the tasks '{other}' and '{name}' differ in case only, and so would share a folder on some systems; "
                f"rename one, with folder: {name}, so that its files can stay"
            )
