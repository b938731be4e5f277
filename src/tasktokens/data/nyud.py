"""Nyud."""

from __future__ import annotations

from pathlib import Path

from tasktokens.data.collection import Collection


def open_nyud(root: Path, classes: int = 13) -> Collection:
    raise NotImplementedError
