"""One process at a time writes into a folder."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from tasktokens.errors import RunExistsError
from tasktokens.utils.atomic import writing

LOCK = ".tasktokens.lock"
"""The file that is locked. The system releases the lock when the process ends, so a leftover file blocks nobody."""


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Keep other processes that write into a folder out of it; it is made where missing, and goes if left empty.

    Raises `RunExistsError` while another process is in the block for this folder, or where a file has its name.
    """
    if folder.exists() and not folder.is_dir():
        raise RunExistsError(f"{folder} is a file; give a folder to write to")
    made = not folder.exists()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(folder / LOCK, folder):
            yield
    finally:
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()  # only where nothing was written


@contextlib.contextmanager
def only_writer_of_new(folder: Path) -> Iterator[None]:
    """`only_writer` for a folder that is not there before it is whole: the lock lies beside it."""
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.parent / f".{folder.name}{LOCK}", folder):
        yield


@contextlib.contextmanager
def _locked(path: Path, folder: Path) -> Iterator[None]:
    lock = FileLock(path)
    with writing(path):
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise RunExistsError(
                f"another process is writing into {folder}; wait for it to end, or choose another folder"
            ) from error
        except NotImplementedError:  # a file system without locks
            pass
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
                raise
    try:
        yield
    finally:
        # Removed while it is held: whoever has opened it meanwhile sees that it is gone and makes another.
        with contextlib.suppress(OSError):
            path.unlink()
        lock.release()


def is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing but, perhaps, its lock."""
    return not any(path.name != LOCK for path in folder.iterdir())
