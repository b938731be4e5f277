"""Cityscapes."""

from __future__ import annotations

from pathlib import Path

from tasktokens.data.collection import Collection


def open_cityscapes(root: Path, classes: int = 7, depth: str = "inverse") -> Collection:
    raise NotImplementedError
