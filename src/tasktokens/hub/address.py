"""Addresses of the Hub, as its own file system writes them: ``hf://[datasets/]user/name[@revision][/folder]``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import unquote

from tasktokens.errors import HubError

Kind = Literal["model", "dataset"]

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_REPOSITORY = re.compile(rf"{_NAME}/{_NAME}")
_PULL_REQUEST = re.compile(r"(refs/(?:pr|convert)/[\w.-]+)(?:/|$)")
_FORM = "hf://user/name, hf://user/name@revision/folder, or hf://datasets/user/name for a data set"


@dataclass(frozen=True)
class HubAddress:
    """A repository, or a folder in it.

    Attributes:
        repository: ``user/name``.
        kind: ``model`` or ``dataset``.
        revision: a branch, tag or commit; None: the default branch.
        folder: below the repository's top, with slashes; empty: the top itself.
    """

    repository: str
    kind: Kind = "model"
    revision: str | None = None
    folder: str = ""

    def __str__(self) -> str:
        kind = "datasets/" if self.kind == "dataset" else ""
        revision = f"@{self.revision}" if self.revision else ""
        return f"hf://{kind}{self.repository}{revision}" + (f"/{self.folder}" if self.folder else "")


def is_address(path: str | Path) -> bool:
    """Whether a path is an address of the Hub; a `Path` made of one, which has lost a slash, is one too.

    Examples:
        >>> is_address("hf://user/name"), is_address(Path("hf://user/name")), is_address("user/name")
        (True, True, False)
    """
    return _posix(path).startswith("hf:/")


def parse_address(path: str | Path) -> HubAddress:
    """The parts of an address. Raises `HubError` for a malformed one.

    Examples:
        >>> parse_address("hf://datasets/user/rooms@v1/part")
        HubAddress(repository='user/rooms', kind='dataset', revision='v1', folder='part')
        >>> str(parse_address("hf://user/name@refs/pr/3/best"))
        'hf://user/name@refs/pr/3/best'
    """
    text = _posix(path)
    rest = text.removeprefix("hf:").lstrip("/")
    kind: Kind = "model"
    first, _, below = rest.partition("/")
    if first == "spaces":
        raise HubError(f"{text} is a space, which holds a program; expected a model or a data set: {_FORM}")
    if first in ("models", "datasets"):
        rest, kind = below, "dataset" if first == "datasets" else "model"
    parts = rest.split("/", 1)
    name, at, tail = (parts[1] if len(parts) == 2 else "").partition("@")
    if at:
        pull_request = _PULL_REQUEST.match(tail)
        revision = pull_request[1] if pull_request else tail.partition("/")[0]
        folder = tail[len(revision) :]
    else:
        (name, _, folder), revision = name.partition("/"), ""
    repository, folder = f"{parts[0]}/{name}", folder.strip("/")
    check_repository(repository, text)
    if at and not revision:
        raise HubError(f"{text} names no revision behind '@'; expected {_FORM}")
    if ".." in PurePosixPath(folder).parts:
        raise HubError(f"{text} leads out of the repository by '..'; expected {_FORM}")
    return HubAddress(repository, kind, unquote(revision) or None, folder)


def check_repository(name: str, where: str | None = None) -> str:
    """The name of a repository as it is. Raises `HubError` where it is none."""
    if not _REPOSITORY.fullmatch(name) or "--" in name or ".." in name:
        raise HubError(
            f"{where or repr(name)} is no name of a repository on the Hugging Face Hub (letters, digits, '-', '_' and "
            f"'.'): expected {_FORM if where else 'user/name'}"
        )
    return name


def could_be_repository(text: str) -> bool:
    """Whether a text without ``hf://`` could name a repository, alone or with a revision and a folder."""
    return not text.startswith((".", "/", "~")) and bool(re.match(rf"{_NAME}/{_NAME}(?:[@/]|$)", text))


def _posix(path: str | Path) -> str:
    return path.as_posix() if isinstance(path, Path) else path
