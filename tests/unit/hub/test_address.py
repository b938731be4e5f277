"""Addresses of the Hub: every form is read, and whatever is none is refused in a sentence."""

from __future__ import annotations

import re
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasktokens.errors import HubError
from tasktokens.hub.address import HubAddress, could_be_repository, is_address, parse_address

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.]{0,20}[A-Za-z0-9_]", fullmatch=True).filter(
    lambda name: ".." not in name
)
FOLDERS = st.lists(NAMES, max_size=3).map("/".join)
REVISIONS = st.none() | NAMES | st.integers(1, 99).map(lambda number: f"refs/pr/{number}")


@given(NAMES, NAMES, st.sampled_from(["model", "dataset"]), REVISIONS, FOLDERS)
def test_an_address_is_read_back_as_it_was_written(
    user: str, name: str, kind: str, revision: str | None, folder: str
) -> None:
    if kind == "model" and user in ("datasets", "models", "spaces"):
        return
    address = HubAddress(f"{user}/{name}", kind, revision, folder)  # type: ignore[arg-type]
    assert parse_address(str(address)) == address
    assert parse_address(Path(str(address))) == address, "a Path has one slash less"
    assert is_address(PureWindowsPath(str(address)).as_posix())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hf://", "no name of a repository"),
        ("hf://name", "no name of a repository"),
        ("hf://user/", "no name of a repository"),
        ("hf://user/na me", "no name of a repository"),
        ("hf://../../etc/passwd", "no name of a repository"),
        ("hf://user/name@", "no revision behind '@'"),
        ("hf://user/name@v1/../../x", "leads out of the repository"),
        ("hf://user/name/../x", "leads out of the repository"),
        ("hf://spaces/user/name", "is a space"),
        ("hf://datasets/user", "no name of a repository"),
        ("hf://user/name?x=1", "no name of a repository"),
        ("hf://user/-name", "no name of a repository"),
    ],
)
def test_what_is_no_address_is_refused(text: str, says: str) -> None:
    with pytest.raises(HubError, match=re.escape(says)):
        parse_address(text)


@pytest.mark.parametrize("text", ["runs/mine", "user/name", "C:/models/x", "/tmp/hf", "hf", "hfx://user/name"])
def test_a_path_is_no_address(text: str) -> None:
    assert not is_address(text)
    assert not is_address(Path(text))


@pytest.mark.parametrize(
    ("text", "could"),
    [("user/name", True), ("user/name@v1/best", True), ("./user/name", False), ("/a/b", False), ("model", False)],
)
def test_which_names_may_be_of_the_hub(text: str, could: bool) -> None:
    assert could_be_repository(text) is could
