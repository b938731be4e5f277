"""What people decided, written so that nothing is lost: a journal first, then label files and the table of origins.

``FOLDER/.review/journal.jsonl`` has one line per decision, undo or import, appended and synced to the disk before
anything else changes; ``.review/files/`` holds the contents of corrected labels and of those that they replaced. Label
files and ``provenance.csv`` follow from the journal: whoever opens the folder for review finishes what a kill
interrupted. A line says what is afterwards, so that carrying it out twice does no harm.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasktokens.datasets.provenance import ProvenanceRow, now, write_provenance
from tasktokens.errors import DataError
from tasktokens.review.folder import Key, ReviewFolder
from tasktokens.utils import strict_json
from tasktokens.utils.atomic import atomically, flush, short_name, write_atomically, writing
from tasktokens.utils.lock import only_writer
from tasktokens.utils.safe_io import load_json

PLACE = ".review"
STAGED = "import-"
"""Beginning of the folders in which an import puts what it checks."""
_JOURNAL, _FILES, _APPLIED = "journal.jsonl", "files", "applied"


@dataclass(frozen=True)
class State:
    """What a label is.

    Attributes:
        row: its origin; None for a given label that the table does not list.
        file: name of its content in ``.review/files``; None: the file that lies there stays.
    """

    row: Mapping[str, Any] | None
    file: str | None = None


@dataclass(frozen=True)
class Change:
    """One label before and after a decision.

    Attributes:
        id: the image's.
        task: the task's name.
        before: what it was.
        after: what it is.
    """

    id: str
    task: str
    before: State
    after: State

    @property
    def key(self) -> Key:
        """Which label."""
        return Key(self.id, self.task)

    def reversed(self) -> Change:
        """The way back."""
        return Change(self.id, self.task, self.after, self.before)


@dataclass(frozen=True)
class Record:
    """A line of the journal.

    Attributes:
        changes: of one decision, or all of an import.
        undoes: the number of the line that it takes back, or None.
    """

    changes: tuple[Change, ...]
    undoes: int | None = None


class Decisions:
    """The journal of a folder, and carrying it out. Made by `open_decisions`, which keeps others out."""

    def __init__(self, folder: ReviewFolder) -> None:
        self.folder = folder
        self.place = folder.root / PLACE
        for left in self.place.glob(f"{STAGED}*"):  # by an import that was killed before it changed anything
            shutil.rmtree(left, ignore_errors=True)
        self.records = _read_journal(self.place / _JOURNAL)
        applied = self.place / _APPLIED
        done = int(applied.read_text(encoding="ascii") or 0) if applied.is_file() else 0
        for record in self.records[done:]:
            self._carry_out(record)
        if done < len(self.records):
            self._mark_applied()

    def decide(self, decisions: Sequence[tuple[Key, ProvenanceRow | None, Path | None]]) -> None:
        """Set labels: key, new origin (None: still given), and a file with the new content, which is moved (or None).

        All of them or none, whenever the process ends.
        """
        changes = []
        for key, row, content in decisions:
            before = self.folder.table.get(key)
            old, new = (None, None) if content is None else (self._keep(self.folder.labels[key].path, move=False),
                                                             self._keep(content, move=True))  # fmt: skip
            changes.append(Change(*key, State(_plain(before), old), State(_plain(row), new)))
        self._do(Record(tuple(changes)))

    def undo(self) -> tuple[Key, ...]:
        """Take back the last decision or import that still stands: its labels, or none where nothing is left."""
        standing = self._standing()
        if not standing:
            return ()
        number = standing[-1]
        record = Record(tuple(change.reversed() for change in self.records[number].changes), number)
        self._do(record)
        return tuple(change.key for change in record.changes)

    def _standing(self) -> list[int]:
        """Numbers of the lines that were not taken back."""
        standing: list[int] = []
        for number, record in enumerate(self.records):
            if record.undoes is None:
                standing.append(number)
            else:
                standing.remove(record.undoes)
        return standing

    def _do(self, record: Record) -> None:
        if not record.changes:
            return
        line = strict_json.dumps(asdict(record), ensure_ascii=False) + "\n"
        self.place.mkdir(exist_ok=True)
        path = self.place / _JOURNAL
        with writing(path), path.open("ab") as file:
            begin = file.tell()
            try:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                os.ftruncate(file.fileno(), begin)  # a full disk must not leave half a line before the next
                raise
        self.records.append(record)
        self._carry_out(record)
        self._mark_applied()

    def _carry_out(self, record: Record) -> None:
        """Make label files and the table what a line says."""
        for change in record.changes:
            if change.after.file is not None:
                self._place_file(change.key, change.after.file)
            if change.after.row is None:
                self.folder.table.pop(change.key, None)
            else:
                self.folder.table[change.key] = ProvenanceRow(**change.after.row)
        write_provenance(self.folder.root, self.folder.table.values())

    def _place_file(self, key: Key, name: str) -> None:
        label = self.folder.labels.get(key)
        if label is None:
            raise DataError(f"the label of task '{key.task}' for '{key.id}' is gone; put its file back")
        target = label.path.with_suffix(Path(name).suffix)
        for left in target.parent.glob(f".{glob.escape(short_name(target.stem))}.*.partial*"):  # by a kill
            left.unlink(missing_ok=True)
        with atomically(target) as new:
            shutil.copyfile(self.place / _FILES / name, new)
        if target != label.path:
            label.path.unlink(missing_ok=True)
            self.folder.labels[key] = label._replace(path=target)

    def _keep(self, path: Path, move: bool) -> str:
        """Put a file's content into ``.review/files`` under its hash, and return that name."""
        name = hashlib.sha256(path.read_bytes()).hexdigest() + path.suffix
        target = self.place / _FILES / name
        if not target.exists():
            with atomically(target) as new:
                shutil.move(path, new) if move else shutil.copyfile(path, new)
                flush(new)
            flush(target.parent)
        return name

    def _mark_applied(self) -> None:
        write_atomically(self.place / _APPLIED, str(len(self.records)).encode())


@contextlib.contextmanager
def open_decisions(root: Path) -> Iterator[Decisions]:
    """The decisions on a folder, for one process at a time.

    Raises:
        RunExistsError: another process reviews the folder.
        DataError, ConfigError: it is no data folder.
    """
    ReviewFolder(root)  # before anything is locked: what is no data folder gets no lock
    with only_writer(root):
        yield Decisions(ReviewFolder(root))


def decided_row(folder: ReviewFolder, key: Key, source: Any, coverage: float | None) -> ProvenanceRow | None:
    """The origin of a label after a decision; a given one stays given."""
    row = folder.table.get(key)
    if row is None or row.source == "given":
        return row
    return row.decided(source, coverage, now())


def _plain(row: ProvenanceRow | None) -> dict[str, Any] | None:
    return None if row is None else asdict(row)


def _read_journal(path: Path) -> list[Record]:
    """The whole lines; half a line at the end, which a kill left, is cut off."""
    if not path.is_file():
        return []
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
    try:
        return [_record(load_json(line)) for line in content[:whole].decode("utf-8").split("\n")[:-1]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"the journal {path} is damaged ({error}); move {path.parent} away to begin anew") from error


def _record(values: Mapping[str, Any]) -> Record:
    changes = tuple(
        Change(each["id"], each["task"], State(**each["before"]), State(**each["after"])) for each in values["changes"]
    )
    return Record(changes, values["undoes"])
