"""Atomic writing, errors of full disks, and the user's cache folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tasktokens.errors import ConfigError, WriteError
from tasktokens.utils import console

_REASONS = {
    errno.ENOSPC: "no space is left on the disk",
    errno.EDQUOT: "your quota is used up on the disk",
    errno.EROFS: "nothing can be written to the disk",
    errno.EFBIG: "the file would be too large for the disk",
    errno.EIO: "there is a fault in the disk",
}


@contextlib.contextmanager
def atomically(path: Path) -> Iterator[Path]:
    """A path to write to, with the same ending; it becomes ``path`` when all went well, and is gone otherwise.

    Raises `WriteError` naming ``path`` where the disk is full or refuses.
    """
    unfinished = path.with_name(f".{short_name(path.stem)}.{os.getpid()}.partial{path.suffix}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield unfinished
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)


def short_name(stem: str) -> str:
    """How `atomically` calls a file until it is whole: file systems take 255 bytes, and more is added to the name."""
    written = os.fsencode(stem)
    return stem if len(written) <= 200 else hashlib.blake2b(written, digest_size=16).hexdigest()


def flush(path: Path) -> None:
    """Write a file or folder through to the disk, so that a later rename cannot outrun its content."""
    # Windows opens no folder, and flushes no file that is open for reading alone.
    how = os.O_RDONLY if path.is_dir() else os.O_RDWR
    try:
        descriptor = os.open(path, how)
    except PermissionError:
        if path.is_dir():
            return
        raise
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: bytes) -> Path:
    """Write a file in one piece; its folder is made where missing."""
    with atomically(path) as new:
        new.write_bytes(content)
    return path


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """In the block ``path`` is written: a full disk is then a `WriteError` that names this file and the disk.

    The system names no file, or the file that was read while copying.
    """
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        # NumPy says how much it wrote, and gives no number.
        reason = _REASONS.get(error.errno or 0) or (_REASONS[errno.ENOSPC] if " written" in str(error) else None)
        if reason is None:
            raise
        disk = disk_of(path)
        with contextlib.suppress(OSError):
            reason += f" at {disk} ({shutil.disk_usage(disk).free / 2**20:.1f} MB are free)"
        raise WriteError(f"{path} cannot be written: {reason}; make room") from error


def disk_of(path: Path) -> Path:
    """Where the disk is mounted that a path lies on."""
    place = path.absolute()
    while not os.path.ismount(place) and place != place.parent:
        place = place.parent
    return place


def cache_folder(name: str) -> Path:
    """``tasktokens/{name}`` under ``$TASKTOKENS_CACHE``, ``$XDG_CACHE_HOME`` or ``~/.cache``; it may not exist yet.

    A user without a home, as in many containers, gets a folder of their own among the temporary files, and a message
    once. Raises `ConfigError` where somebody else's lies there.
    """
    base = os.environ.get("TASKTOKENS_CACHE") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(base).expanduser() / "tasktokens" / name
    except RuntimeError:  # neither HOME nor an entry in the list of users
        return _fallback_cache_folder() / name


@cache
def _fallback_cache_folder() -> Path:
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"tasktokens-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or (user != "user" and found.st_uid != user):
        raise ConfigError(f"{folder} belongs to another user; set TASKTOKENS_CACHE to a folder of your own")
    console.say(f"this user has no home folder: what is cached lies in {folder} (TASKTOKENS_CACHE changes that)")
    return folder
