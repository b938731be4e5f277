"""Files that are there whole or not at all, and the user's cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomically(path: Path) -> Iterator[Path]:
    """A path to write to, with the same ending; it becomes ``path`` when all went well, and is gone otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{_short(path.stem)}.{os.getpid()}.partial{path.suffix}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _short(stem: str) -> str:
    """A name that leaves room for what is added to it: file systems take 255 bytes."""
    written = os.fsencode(stem)
    return stem if len(written) <= 200 else hashlib.blake2b(written, digest_size=16).hexdigest()


def write_atomically(path: Path, content: bytes) -> Path:
    """Write a file in one piece; its folder is made where missing."""
    with atomically(path) as new:
        new.write_bytes(content)
    return path


def cache_folder(name: str) -> Path:
    """``tasktokens/{name}`` under ``$TASKTOKENS_CACHE``, ``$XDG_CACHE_HOME`` or ``~/.cache``; it may not exist yet."""
    base = os.environ.get("TASKTOKENS_CACHE") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "tasktokens" / name
