"""One process at a time writes into a folder, or several that work as one."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from tasktokens.errors import RunExistsError
from tasktokens.utils.atomic import writing

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

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
            if error.errno not in _NO_LOCKS:
                raise
    try:
        yield
    finally:
        # Removed while it is held: whoever has opened it meanwhile sees that it is gone and makes another.
        with contextlib.suppress(OSError):
            path.unlink()
        lock.release()


@contextlib.contextmanager
def one_of_writers(folder: Path) -> Iterator[None]:
    """Write into a folder beside others in this block, which keeps `only_writer` out, and is kept out by it.

    Raises `RunExistsError` while a process is in `only_writer` for the folder. File systems without locks, and Windows,
    keep nobody out.
    """
    handle = _share(folder / LOCK, folder)
    try:
        yield
    finally:
        if handle is not None:
            with contextlib.suppress(OSError):  # the last one takes the file away
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (folder / LOCK).unlink()
            os.close(handle)


def _share(path: Path, folder: Path) -> int | None:
    while fcntl is not None:
        with writing(path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if os.fstat(handle).st_nlink:  # else taken away since it was opened
                return handle
        except BlockingIOError as error:
            os.close(handle)
            raise RunExistsError(
                f"another process is writing into {folder}; wait for it to end, or choose another folder"
            ) from error
        except OSError as error:
            os.close(handle)
            if error.errno in _NO_LOCKS:
                return None
            raise
        os.close(handle)
    return None


@contextlib.contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Whether this process alone is in the block for the file; where it is not, another one is.

    The file goes when the block ends, and stays where the process is killed in it. Without locks all are let in.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    except NotImplementedError:
        yield True
        return
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        yield True
        return
    try:
        yield True
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        lock.release()


@contextlib.contextmanager
def waiting_lock(path: Path, waited: Callable[[], None] = lambda: None, every: float = 0.2) -> Iterator[None]:
    """`try_lock` again and again, until it is this process's turn; ``waited`` is called in between."""
    while True:
        with try_lock(path) as mine:
            if mine:
                yield
                return
        waited()
        time.sleep(every)


_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


def is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing but, perhaps, its lock."""
    return not any(path.name != LOCK for path in folder.iterdir())
