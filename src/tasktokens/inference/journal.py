"""Which images of an output folder are done, so that the same command resumes after an interruption.

The first rank's journal, ``NAME.jsonl``, begins with the settings; then comes a line per image that is done, by rank N
in a ``NAME.N.jsonl`` of its own. The folder is complete when it has no journal.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tasktokens.errors import RunExistsError, WriteError
from tasktokens.utils import strict_json
from tasktokens.utils.atomic import atomically, writing
from tasktokens.utils.lock import LOCK, is_empty
from tasktokens.utils.safe_io import load_json, load_yaml, read_text

_BINARY = getattr(os, "O_BINARY", 0)
"""Windows would write two characters at the end of a line."""


class Journal:
    """The journals of one piece of work in the folder ``out``.

    Args:
        name: of the files, such as ``discovering``; ``work``: what a user calls it, such as ``discovery``.
    """

    def __init__(self, out: Path, name: str, work: str) -> None:
        self.out, self.name, self.work = out, name, work

    @property
    def begun(self) -> bool:
        """Whether such work was begun in the folder and has not ended."""
        return self._path(0).is_file()

    def begin(self, settings: Mapping[str, Any], overwrite: bool, clear: bool) -> None:
        """Begin in an empty folder, or resume: the journals of all ranks are then merged into the first rank's.

        Args:
            settings: what decides the result, by a name that a user understands.
            overwrite: begin anew in a folder that holds something; ``clear``: and delete that first.

        Raises:
            RunExistsError: the folder holds something else, or the work was begun with other settings.
        """
        path = self._path(0)
        if overwrite or not self.begun:
            require_empty(self.out, overwrite, clear)
            for other in self._paths():
                other.unlink()
            _write_lines(path, [settings])
        found, *_ = [*_read_lines(path), None]
        if found != settings:
            before = found if isinstance(found, dict) else {}
            different = ", ".join(key for key in settings if before.get(key) != settings[key])
            raise RunExistsError(
                f"another {self.work} was begun in {self.out} and did not end: it had another {different or 'form'}; "
                f"choose another folder, or give --overwrite"
            )
        for half in list(self.out.rglob(".*.partial*")):  # of a killed process
            half.unlink()
        # Written anew, or the next line would be joined to a half one.
        _write_lines(path, [settings, *([id, facts] for id, facts in self.done().items())])
        for other in self._paths():
            if other != path:
                other.unlink()

    def done(self) -> dict[str, Any]:
        """What was noted of the images that are done, by any rank."""
        lines = (line for path in self._paths() for line in _read_lines(path))
        return {line[0]: line[1] for line in lines if isinstance(line, list)}

    @contextlib.contextmanager
    def appending(self, rank: int) -> Iterator[_Appender]:
        """To note in the block what this rank has done."""
        path = self._path(rank)
        with writing(path):
            handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _BINARY, 0o666)
        try:
            yield _Appender(path, handle)
        finally:
            os.close(handle)

    def end(self) -> None:
        """The folder is whole."""
        for path in self._paths():
            path.unlink()

    def _path(self, rank: int) -> Path:
        return self.out / (f"{self.name}.jsonl" if rank == 0 else f"{self.name}.{rank}.jsonl")

    def _paths(self) -> list[Path]:
        return sorted(self.out.glob(f"{self.name}*.jsonl"))


class _Appender:
    """An open journal; unbuffered, so that what was noted is there whatever comes next."""

    def __init__(self, path: Path, handle: int) -> None:
        self._path, self._handle = path, handle

    def note(self, id: str, facts: Any) -> None:
        """An image is done."""
        line = f"{strict_json.dumps([id, facts])}\n".encode()
        with writing(self._path):
            if os.write(self._handle, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextlib.contextmanager
def hint_resume() -> Iterator[None]:
    """Add to an error of a full disk that the same command resumes afterwards."""
    try:
        yield
    except WriteError as error:
        raise WriteError(f"{error}, then run the same command to resume") from error


def check_no_source(out: Path, files: Iterable[Path]) -> None:
    """Raise `RunExistsError` where writing into ``out`` could replace what is read, whatever ``--overwrite`` says.

    That is where one of ``files`` lies in it, and where it is a run, or a data set, or a folder of one, that this
    package did not write.
    """
    real = os.path.join(os.path.realpath(out), "")
    for folder in {path.absolute().parent for path in files}:
        if os.path.join(os.path.realpath(folder), "").startswith(real):
            raise RunExistsError(f"{out} holds {folder}, which is read for it; give another folder to write to")
    inside = next((folder for folder in Path(real).parents if _has_description(folder)), None)
    if inside and out.is_dir() and not is_empty(out) and not _is_written(out):
        raise RunExistsError(
            f"{out} is a folder of the data set {inside}, which is not overwritten; give another folder"
        )
    if (out / "config.yaml").is_file() or (_has_description(out) and not _is_written(out)):
        what = "a run" if (out / "config.yaml").is_file() else "a data set"
        raise RunExistsError(f"{out} is {what}, which is not overwritten; give another folder, or delete it yourself")


def _has_description(out: Path) -> bool:
    return (out / "dataset.yaml").is_file()


def _is_written(out: Path) -> bool:
    """Whether a folder with a description is one that ``discover`` or ``predict`` wrote, or began to."""
    if (out / "summary.json").is_file() or any(out.glob("discovering*.jsonl")) or any(out.glob("predicting*.jsonl")):
        return True
    with contextlib.suppress(OSError, ValueError):
        values = load_yaml(read_text(out / "dataset.yaml"))
        return isinstance(values, dict) and values.get("name") == PREDICTIONS
    return False


PREDICTIONS = "predictions"
"""The name in the description of predicted labels."""


def require_empty(out: Path, overwrite: bool, clear: bool = False) -> None:
    """Raise `RunExistsError` if ``out`` holds anything; with ``overwrite`` allow it, emptied first if ``clear``."""
    if out.exists() and not out.is_dir():
        raise RunExistsError(f"{out} is a file; give a folder to write to")
    if out.is_dir() and not is_empty(out):
        if not overwrite:
            raise RunExistsError(f"{out} is not empty; choose another folder, or give --overwrite")
        for path in out.iterdir() if clear else ():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()
    out.mkdir(parents=True, exist_ok=True)


def _write_lines(path: Path, lines: list[Any]) -> None:
    with atomically(path) as new:
        new.write_text("".join(f"{strict_json.dumps(line)}\n" for line in lines), encoding="utf-8", newline="\n")


def _read_lines(path: Path) -> list[Any]:
    """The lines of a journal; half a line, from a kill or a full disk, is left out."""
    items = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            items.append(load_json(line))
    return items
