"""Reading a file of annotations that somebody else made: a zip, a folder or a single file; nothing is unpacked to disk.

What a zip claims is checked before any of it is read: names that lead out of it, links, encryption, and members that
would inflate to more than a limit are refused.
"""

from __future__ import annotations

import contextlib
import stat
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from tasktokens.errors import DataError
from tasktokens.utils.listing import walk_files
from tasktokens.utils.safe_io import MAX_PIXELS, limit, require_regular_file

MAX_MEMBERS = 2_000_000
"""Files in a zip; more are refused."""
MAX_RATIO = 1100
"""How much larger than its compressed bytes a member may be: deflate reaches 1032."""


class Archive(ABC):
    """Named files that are read one by one.

    Attributes:
        path: the zip, folder or file, for messages.
        names: relative paths with ``/``, sorted.
    """

    path: Path
    names: Sequence[str]

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The content of a file. Raises `DataError` where it cannot be read or is larger than any annotation."""

    def reader(self, name: str) -> Callable[[], bytes]:
        """`read` of one file, for later."""
        return partial(self.read, name)

    def where(self, name: str) -> str:
        """A file of the archive, for messages."""
        return f"{name} in {self.path}"

    def find(self, ending: str, folder: str = "") -> list[str]:
        """Names with an ending, in any folder or below one."""
        return [name for name in self.names if name.lower().endswith(ending) and name.startswith(folder)]


class _Zip(Archive):
    def __init__(self, path: Path, file: zipfile.ZipFile) -> None:
        self.path, self._file = path, file
        members = file.infolist()
        if len(members) > MAX_MEMBERS:
            raise DataError(f"{path} has {len(members)} files, more than {MAX_MEMBERS}; split it")
        for member in members:
            _check_member(path, member)
        self._members = {member.filename: member for member in members if not member.is_dir()}
        if len(self._members) < sum(not member.is_dir() for member in members):
            raise DataError(f"{path} holds two files of the same name; pack it again")
        self.names = sorted(self._members)

    def read(self, name: str) -> bytes:
        member = self._members[name]
        try:
            with self._file.open(member) as file:
                content = file.read(member.file_size + 1)
        except Exception as error:  # a damaged deflate stream raises whatever the decoder does
            raise DataError(f"{self.where(name)} cannot be read ({error}); export or download it again") from error
        if len(content) != member.file_size:
            raise DataError(f"{self.where(name)} has another size than the zip says; export or download it again")
        return content


class _Folder(Archive):
    def __init__(self, path: Path) -> None:
        self.path = path
        self.names = ["/".join(parts) for parts in walk_files(path)]

    def read(self, name: str) -> bytes:
        return _read_file(self.path / name)

    def reader(self, name: str) -> Callable[[], bytes]:
        return partial(_read_file, self.path / name)  # can be sent to loader processes

    def where(self, name: str) -> str:
        return str(self.path / name)


class _File(Archive):
    def __init__(self, path: Path) -> None:
        self.path, self.names = path, [path.name]

    def read(self, name: str) -> bytes:
        return _read_file(self.path)

    def where(self, name: str) -> str:
        return str(self.path)


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """A zip, a folder, or a single file as an `Archive`.

    Raises `DataError` where it does not exist, is no whole zip, or holds what no annotation tool writes.
    """
    if path.is_dir():
        yield _Folder(path)
        return
    if not path.exists():
        raise DataError(f"the annotations {path} do not exist")
    if path.suffix.lower() != ".zip" and not zipfile.is_zipfile(path):
        yield _File(path)
        return
    try:
        file = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise DataError(f"{path} is no whole zip file ({error}); export or download it again") from error
    with file:
        yield _Zip(path, file)


def _check_member(path: Path, member: zipfile.ZipInfo) -> None:
    """Raise `DataError` for a member that no annotation tool writes."""
    name = member.filename
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\0" in name:
        raise DataError(f"{path} holds the file name {name!r}, which leads out of it; it is not read")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise DataError(f"{path} holds the link {name!r}; pack the file itself")
    if member.flag_bits & 1:
        raise DataError(f"{path} is encrypted; pack it without a password")
    most = _most_bytes()
    if member.file_size > most or member.file_size > MAX_RATIO * member.compress_size + 1024:
        raise DataError(
            f"{path} holds {name!r}, which would inflate from {member.compress_size} to {member.file_size} bytes; "
            f"no annotation needs that (limit: {most} bytes; {MAX_PIXELS} raises it)"
        )


def _most_bytes() -> int:
    """A file of annotations: as many bytes as one map of the largest image, 32 bits deep (512 MB)."""
    return 4 * limit(MAX_PIXELS)


def _read_file(path: Path) -> bytes:
    try:
        require_regular_file(path)
        if path.stat().st_size > _most_bytes():
            raise ValueError(f"it is larger than {_most_bytes()} bytes; {MAX_PIXELS} raises the limit")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error})") from error
