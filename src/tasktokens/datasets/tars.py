"""Samples in tar files, by the naming of WebDataset, read and written with constant memory.

    kitchen/0001.jpg                      the image
    kitchen/0001.semseg.png               a label of the task ``semseg``, as in a folder ``semseg/kitchen/0001.png``
    kitchen/0001.semseg.confidence.png    what each pixel of a discovered label is worth, 0..255 for 0..1
    kitchen/0001.provenance.json          where the labels come from, by task; without it they were given
    kitchen/0001.json                     whatever else: kept as it is

A key is the path up to the first dot of the file's name; files of one key are one sample and lie next to each other.
The standard library reads and writes the files; what it passes over in silence is an error here: an archive without its
end, a damaged header, a key that comes again.
"""

from __future__ import annotations

import contextlib
import glob
import io
import os
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tasktokens.data import ids
from tasktokens.errors import DataError
from tasktokens.utils.listing import check_id

TAR = ".tar"
"""The ending of the files."""
_BLOCK = 512


class Member(NamedTuple):
    """A file of a sample.

    Attributes:
        name: in the tar file.
        ending: what follows the key and a dot, in small letters, such as ``semseg.png``.
        path: where its content lies now.
    """

    name: str
    ending: str
    path: Path


class TarSample(NamedTuple):
    """The files of one key.

    Attributes:
        key: such as ``kitchen/0001``.
        members: in the order of the tar file.
    """

    key: str
    members: tuple[Member, ...]


def find_tars(source: str | Path) -> list[Path]:
    """The tar files that are meant: one, those that a pattern matches, or those of a folder; none for other folders.

    Raises `DataError` for tar files that are compressed, two of one name, and folders that also hold other files.
    """
    path = Path(source)
    if path.is_dir():
        found, other = _tars_of(path)
        if found and other:
            raise DataError(f"{path} holds tar files and others, such as {other}; give a folder of one of them")
    elif path.is_file() or not glob.has_magic(str(source)):
        found = [path] if path.name.endswith(TAR) else []
    else:
        found = [Path(each) for each in sorted(glob.glob(str(source))) if each.endswith(TAR)]
    names = [each.stem for each in found]
    for each in found:
        _check_key(each.stem, each)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"two tar files are called {twice}{TAR}, and what is written would have one name; rename one")
    return found


def _tars_of(folder: Path) -> tuple[list[Path], str | None]:
    """The tar files of a folder, and another file that does not describe them; of a million images no list is made."""
    found, other = [], None
    with os.scandir(folder) as entries:
        for name in (entry.name for entry in entries if not entry.name.startswith(".")):
            if name.endswith(TAR):
                found.append(folder / name)
            elif not name.endswith((".yaml", ".csv", ".json", ".txt", ".md")):
                other = name
    return sorted(found), other


def split_name(name: str) -> tuple[str, str] | None:
    """Key and ending of a file; None for one that belongs to no sample: without an ending, or hidden.

    Examples:
        >>> split_name("./v1.0/0001.Depth.PNG"), split_name("kitchen/.0001.jpg"), split_name("README")
        (('v1.0/0001', 'depth.png'), None, None)
    """
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, dot, ending = base.partition(".")
    return (f"{folder}{slash}{stem}", ending.lower()) if stem and dot else None


def read_samples(path: Path, work: Path) -> Iterator[TarSample]:
    """The samples of a tar file; the content of each is written below ``work``, where the caller deletes it.

    Raises:
        DataError: the archive is damaged, cut off, or not there, or a key or a file of a key comes twice.
    """
    keys: set[str] = set()
    key, members = "", list[Member]()
    for number, (info, archive) in enumerate(_files(path)):
        named = split_name(info.name)
        if named is None:
            continue
        if named[0] != key:
            if members:
                yield TarSample(key, tuple(members))
            key, members = named[0], []
            _check_key(key, path)
            if key in keys:
                raise DataError(
                    f"{path} has the key '{key}' in two places; the files of a sample must lie next to each other, and "
                    f"each key comes once: pack it again, sorted by name"
                )
            keys.add(key)
        if any(member.ending == named[1] for member in members):
            raise DataError(f"{path} holds the file '{key}.{named[1]}' twice; pack it again with one of them")
        members.append(
            Member(
                info.name,
                named[1],
                _extract(path, archive, info, work / f"{number}.{named[1].rpartition('.')[2][:20]}"),
            )
        )
    if members:
        yield TarSample(key, tuple(members))


def _check_key(key: str, path: Path) -> None:
    check_id(key, path)
    ids.check_id(key, path)


def _files(path: Path) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    """The files of an archive, until its end, which must be there."""
    with _damage_named(path), path.open("rb") as raw, tarfile.open(fileobj=raw, mode="r:") as archive:
        while (info := archive.next()) is not None:
            _forget(archive)
            if info.isfile():
                yield info, archive
            elif not info.isdir():
                raise DataError(f"{path} holds a link or a device, '{info.name}', where only files are read; remove it")
        raw.seek(archive.offset)
        end = raw.read(_BLOCK)
    if end != bytes(_BLOCK):
        what = "ends without the mark of its end" if len(end) < _BLOCK else f"is damaged at byte {archive.offset}"
        raise DataError(f"the tar file {path} {what}: it was cut off or changed; copy or pack it again")


def _extract(path: Path, archive: tarfile.TarFile, info: tarfile.TarInfo, target: Path) -> Path:
    with _damage_named(path):
        source = archive.extractfile(info)
    assert source is not None  # it is a file
    with source, target.open("wb") as file:
        with _damage_named(path):
            shutil.copyfileobj(source, file)
        if file.tell() != info.size:
            raise DataError(f"the tar file {path} is cut off within '{info.name}'; copy or pack it again")
    return target


@contextlib.contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"the tar file {path} does not exist") from error
    except (tarfile.TarError, EOFError, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"the tar file {path} cannot be read ({error}); copy or pack it again") from error


def _forget(archive: tarfile.TarFile) -> None:
    """An archive keeps what it knows of each file, which nobody asks for."""
    archive.members = []  # type: ignore[attr-defined]


class TarWriter:
    """Writes a tar file whose bytes depend on names and contents alone. A context manager.

    Examples:
        >>> file = io.BytesIO()
        >>> with TarWriter(file) as tar:
        ...     tar.add("0001.json", b"{}")
        >>> file.tell()
        10240
    """

    def __init__(self, file: io.BufferedIOBase) -> None:
        self._archive = tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115

    def add(self, name: str, content: Path | bytes) -> None:
        """A file: the content of another, or bytes."""
        info = tarfile.TarInfo(name)
        info.size = len(content) if isinstance(content, bytes) else content.stat().st_size
        if isinstance(content, bytes):
            self._archive.addfile(info, io.BytesIO(content))
        else:
            with content.open("rb") as file:
                self._archive.addfile(info, file)
        _forget(self._archive)

    def __enter__(self) -> TarWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._archive.close()


def image_of(sample: TarSample, path: Path, endings: Sequence[str]) -> Member:
    """The image of a sample. Raises `DataError` unless there is one."""
    found = [member for member in sample.members if f".{member.ending}" in endings]
    if len(found) != 1:
        names = ", ".join(member.ending for member in found or sample.members)
        advice = (
            "its labels are called KEY.TASK.png" if found else "a key ends at the first dot of a file's name, which "
            "must not have others before its ending"
        )  # fmt: skip
        raise DataError(
            f"the sample '{sample.key}' of {path} must have one image ({', '.join(endings)}), found "
            f"{len(found) or 'none'} among: {names}; {advice}"
        )
    return found[0]
