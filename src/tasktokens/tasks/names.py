"""Names that a task can have: they become folders, columns of tables and modules of a network."""

from __future__ import annotations

import re

from torch import nn

from tasktokens.errors import ConfigError

RESERVED = (
    "images", "image", "id", "split", "splits", "labels", "confidence", "pictures", "samples", "classes", "dataset",
    "discovered", "discovering", "predicting", "summary", "train", "val", "test", "holdout",
)  # fmt: skip
"""Files, folders and columns that lie beside those of the tasks in what is read and written."""


def check_task_name(name: object) -> None:
    """Raise `ConfigError` where a task cannot be called so, with what to do."""
    text = "null" if name is None else str(name)
    if text.lower() in RESERVED:  # folders of some systems do not tell Images from images
        raise ConfigError(
            f"'{text}' cannot be a task's name: files or columns of that name lie beside those of the tasks; call it "
            f"something else and leave its files where they are, such as 'my_{text}: {{kind: ..., folder: {text}}}' in "
            f"dataset.yaml, or rename the manifest's column (reserved: {', '.join(RESERVED)})"
        )
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z]\w*", text) or hasattr(nn.ModuleDict, text):
        raise ConfigError(f"'{text}' cannot be a task's name; use letters, digits and _, beginning with a letter")
