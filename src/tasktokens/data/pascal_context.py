"""Pascal Context."""

from __future__ import annotations

from pathlib import Path

from tasktokens.data.collection import Collection


def open_pascal_context(root: Path) -> Collection:
    raise NotImplementedError
