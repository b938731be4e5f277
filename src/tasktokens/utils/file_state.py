"""Whether a file is still what it was: by size and times without reading it, by a checksum of its content."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import NamedTuple


class FileState(NamedTuple):
    """What changes with a file's content, and can be asked without reading it.

    Attributes:
        size: in bytes.
        mtime_ns: time of the last change of content.
        ctime_ns: time of the last change of status too: rsync and ``cp -p`` give a changed file the time of the old.
    """

    size: int
    mtime_ns: int
    ctime_ns: int


def file_state(path: Path) -> FileState | None:
    """Of a file, or of what a link leads to; None where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return FileState(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def crc32(path: Path) -> str:
    """CRC-32 of a file's content, as hex; several GB per second, and sufficient against accidents.

    Raises `OSError` where it cannot be read, and for a pipe or a device, whose content may never end.
    """
    if not path.is_file():
        raise OSError(f"no ordinary file: {path}")
    value = 0
    with path.open("rb") as file:
        while block := file.read(2**22):
            value = zlib.crc32(block, value)
    return f"{value:08x}"
