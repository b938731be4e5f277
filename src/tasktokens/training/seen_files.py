"""The files that a run learns from: one whose content was changed since the run began is named when it is resumed."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tasktokens.config import Config
from tasktokens.datasets.base import DatasetSource
from tasktokens.datasets.open import Data
from tasktokens.errors import CheckpointError, DataError
from tasktokens.utils.atomic import atomically
from tasktokens.utils.file_state import FileState, crc32, file_state

SEEN_FILES = "files.csv"
"""Of a run: size, times and CRC-32 of each file that it learns from or sets aside."""
_HEADER = ["id", "file", "bytes", "mtime_ns", "ctime_ns", "crc32"]

Key = tuple[str, str]
"""An image's id, and which of its files: ``image``, ``label of semseg``, …"""


class _Seen(NamedTuple):
    """A file as it was; ``checksum`` is empty where it could not be read."""

    state: FileState
    checksum: str


def save_seen_files(run: Path, config: Config, data: Data) -> None:
    """Write `SEEN_FILES` of a run that begins, for which every file is read once.

    A data set that this package renders has none: it is made again from its settings.
    """
    if isinstance(config.data, DatasetSource) and config.data.generated:
        return
    files = dict(_files(data))
    states = {key: state for key, path in files.items() if (state := file_state(path)) is not None}
    sums = _checksums([files[key] for key in states])
    _write(run / SEEN_FILES, {key: _Seen(state, sums[files[key]]) for key, state in states.items()})


def require_unchanged_files(run: Path, data: Data) -> None:
    """Raise `DataError` naming the first file whose content is not what a run began with.

    Only a file of other times is read: a data set that was copied or moved is the same. A run of an earlier version
    did not write its files down, and nothing is compared. `CheckpointError`: `SEEN_FILES` is damaged.
    """
    if not (run / SEEN_FILES).is_file():
        return
    before, files = _read(run / SEEN_FILES), dict(_files(data))
    now = {key: state for key, path in files.items() if key in before and (state := file_state(path)) is not None}
    doubtful = [key for key, state in now.items() if state != before[key].state and before[key].checksum]
    equal = [key for key in doubtful if now[key].size == before[key].state.size]
    sums = _checksums([files[key] for key in equal])
    same = {key for key in equal if sums[files[key]] in ("", before[key].checksum)}
    if changed := [key for key in doubtful if key not in same]:
        (id, what), number = changed[0], len(changed)
        more = f" ({number} such files)" if number > 1 else ""
        raise DataError(
            f"the {what} of '{id}' is not what the run began with: {files[id, what]} has other content now{more}; put "
            f"the old file back, or start the run anew"
        )
    if same:  # read once: the next time their times tell
        _write(run / SEEN_FILES, before | {key: _Seen(now[key], before[key].checksum) for key in same})


def _files(data: Data) -> Iterator[tuple[Key, Path]]:
    """Images and visible labels, those set aside too; then what others discovered."""
    for id, names in (*data.train.items(), *data.held.items()):
        yield (id, "image"), data.collection.images[id].path
        for name in names:
            yield (id, f"label of {name}"), data.collection.labels[name][id].path
    if data.discovered is not None:
        for id, what, path in data.discovered.files():
            yield (id, what), path


def _checksums(paths: Sequence[Path]) -> dict[Path, str]:
    """CRC-32 by path, empty for a file that cannot be read; one of several labels is read once."""

    def checksum(path: Path) -> str:
        try:
            return crc32(path)
        except OSError:
            return ""

    distinct = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 4)) as pool:
        return dict(zip(distinct, pool.map(checksum, distinct), strict=True))


def _write(path: Path, seen: Mapping[Key, _Seen]) -> None:
    with atomically(path) as new, new.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_HEADER)
        writer.writerows([*key, *value.state, value.checksum] for key, value in seen.items())


def _read(path: Path) -> dict[Key, _Seen]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        if header != _HEADER:
            raise ValueError(f"its columns must be {', '.join(_HEADER)}")
        return {(id, what): _Seen(FileState(*map(int, state)), checksum) for id, what, *state, checksum in rows}
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise CheckpointError(f"cannot read {path}, which says what files the run began with ({error})") from error
