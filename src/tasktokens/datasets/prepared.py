"""A prepared folder: what marks it as whole, what lets an interrupted preparation go on, how it is verified.

preparing.jsonl     while it is being written: the settings, then one line per finished image
checksums.sha256    SHA-256 of every file, for ``sha256sum -c checksums.sha256``
prepared.json       written last: settings, counts, rounding, what was left out
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tasktokens.errors import DataError, RunExistsError
from tasktokens.utils import strict_json
from tasktokens.utils.atomic import atomically, writing
from tasktokens.utils.listing import composed, walk_files
from tasktokens.utils.lock import LOCK
from tasktokens.utils.safe_io import load_json, read_json

FORMAT = 1
"""Changes whenever the same source and settings would be written as other files."""

MANIFEST, CHECKSUMS, JOURNAL = "prepared.json", "checksums.sha256", "preparing.jsonl"
_UNFINISHED = ".*.partial*"


@dataclass(frozen=True)
class Record:
    """What was done for an image.

    Attributes:
        id: of the image.
        files: SHA-256 by path relative to the folder, the image's first; empty when the image was left out.
        rounding: by task, the largest difference between a value read from the source and from the written file.
        left_out: what could not be read: ``task`` (None for the image), ``file``, ``reason``.
    """

    id: str
    files: Mapping[str, str]
    rounding: Mapping[str, float] = field(default_factory=dict)
    left_out: tuple[Mapping[str, str | None], ...] = ()


class Journal:
    """The images that are done, in a folder that is being prepared; appended to as the work goes on.

    Attributes:
        records: by id, those whose files all have their checksums.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        self.path = out / JOURNAL
        for path in list(out.rglob(_UNFINISHED)):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        if not self.path.exists():
            with atomically(self.path) as new:
                new.write_text(strict_json.dumps(settings) + "\n", encoding="utf-8", newline="\n")
        self.records = {record.id: record for record in _read_records(self.path) if _whole(out, record)}
        # Written anew, since a kill may have left half a line at the end.
        lines = [strict_json.dumps(settings), *(strict_json.dumps(asdict(record)) for record in self.records.values())]
        with atomically(self.path) as new:
            new.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")

    def add(self, record: Record) -> None:
        """Remember an image as done."""
        self.records[record.id] = record
        with writing(self.path), self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(strict_json.dumps(asdict(record)) + "\n")


def check_settings(out: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a folder is finished; it may also be new, or begun with the same settings.

    Raises:
        RunExistsError: it holds files that no preparation wrote.
        DataError: it was begun by another version or with another source or other settings.
    """
    marker = next((out / name for name in (MANIFEST, JOURNAL) if (out / name).is_file()), None)
    if marker is None:
        if out.is_dir() and not any(
            path for path in out.iterdir() if not path.match(_UNFINISHED) and path.name != LOCK
        ):
            return False
        raise RunExistsError(f"{out} is no empty folder and no preparation was begun there; choose another --out")
    text = marker.read_text(encoding="utf-8")
    try:
        found = load_json(text)["settings"] if marker.name == MANIFEST else load_json(text.splitlines()[0])
        different = [key for key in {**found, **settings} if found.get(key) != settings.get(key)]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{marker} is damaged; delete {out} and prepare it again") from error
    if different:
        was = "; ".join(f"{key} was {found.get(key)}, now {settings.get(key)}" for key in different)
        raise DataError(f"{out} was begun with other settings ({was}); choose another --out, or delete that folder")
    return marker.name == MANIFEST


@contextlib.contextmanager
def unfinished_folder(parent: Path) -> Iterator[Path]:
    """A new folder in ``parent`` to write to and to move things out of; gone afterwards."""
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", suffix=".partial", dir=parent) as folder:
        yield Path(folder)


def sha256(path: Path) -> str:
    """The file's checksum."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def finish(out: Path, settings: Mapping[str, Any], records: list[Record], others: list[str], facts: Any) -> None:
    """Write the checksums of the records' files and of ``others``, then ``prepared.json`` with ``facts``."""
    sums = {path: sum for record in records for path, sum in record.files.items()}
    sums |= {name: sha256(out / name) for name in others}
    with atomically(out / CHECKSUMS) as new:
        new.write_text("".join(f"{sums[path]}  {path}\n" for path in sorted(sums)), encoding="utf-8", newline="\n")
    rounding: dict[str, float] = {}
    for record in records:
        for task, value in record.rounding.items():
            rounding[task] = max(value, rounding.get(task, 0.0))
    manifest = {
        "settings": settings,
        **facts,
        "files": len(sums),
        "rounding": dict(sorted(rounding.items())),
        "left_out": [{"id": record.id, **what} for record in records for what in record.left_out],
        "checksums": sha256(out / CHECKSUMS),
    }
    with atomically(out / MANIFEST) as new:
        new.write_text(strict_json.dumps(manifest, indent=1) + "\n", encoding="utf-8", newline="\n")
    (out / JOURNAL).unlink(missing_ok=True)


def read_manifest(out: Path) -> dict[str, Any]:
    """What ``prepared.json`` says. Raises `DataError` when the folder is not finished or the file is damaged."""
    path = out / MANIFEST
    if not path.is_file():
        hint = (
            "the preparation did not end: start it again" if (out / JOURNAL).is_file() else "nothing was prepared here"
        )
        raise DataError(f"{out} has no {MANIFEST}: {hint}")
    try:
        manifest = read_json(path)
        if not isinstance(manifest["checksums"], str):
            raise TypeError
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f"{path} is damaged; delete {out} and prepare it again") from error
    return dict(manifest)


def listed_files(out: Path) -> dict[str, str]:
    """SHA-256 by relative path, from ``checksums.sha256``. Raises `DataError` when it is not what was written."""
    manifest, path = read_manifest(out), out / CHECKSUMS
    if not path.is_file() or sha256(path) != manifest["checksums"]:
        raise DataError(f"{path} is missing or was changed since it was written; delete {out} and prepare it again")
    lines = path.read_text(encoding="utf-8").splitlines()
    return {name: sum for sum, _, name in (line.partition("  ") for line in lines)}


def file_fault(out: Path, name: str, sum: str) -> str | None:
    """What is wrong with a listed file."""
    path = out / name
    if not path.is_file():
        return f"{name}: missing"
    return None if sha256(path) == sum else f"{name}: changed since it was written"


def unlisted_files(out: Path, listed: Mapping[str, str]) -> list[str]:
    """Files that a reader of the folder would take for data and that no preparation wrote."""
    folders = {name.split("/")[0] for name in listed if "/" in name}
    found = ("/".join((folder, *parts)) for folder in folders for parts in walk_files(out / folder))
    known = set(map(composed, listed))
    return [f"{name}: not among the prepared files" for name in sorted(found) if composed(name) not in known]


def _read_records(path: Path) -> Iterator[Record]:
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        try:
            values = load_json(line)
            yield Record(values["id"], values["files"], values["rounding"], tuple(values["left_out"]))
        except (ValueError, LookupError, TypeError):
            continue  # half a line, from a kill


def _whole(out: Path, record: Record) -> bool:
    """Whether an image is finished; one with files left out is tried again, since they may have been repaired."""
    return not record.left_out and all(file_fault(out, name, sum) is None for name, sum in record.files.items())
