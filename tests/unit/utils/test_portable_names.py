"""Which names Windows and macOS cannot keep apart or have at all."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasktokens.utils.portable_names import fault, first_fault


@pytest.mark.parametrize(
    "name",
    [
        "con",
        "CON.png",
        "Aux.tar.gz",
        "nul",
        "com1.png",
        "LPT9",
        "com¹",
        "a.",
        "a ",
        "b/a./c.png",
        "a:b",
        "a\\b",
        "a?",
        "a\tb",
    ],
)
def test_such_names_are_refused(name: str) -> None:
    assert fault(name)
    assert first_fault(["ok.png", name]) == f"{name}: {fault(name)}"


@pytest.mark.parametrize(
    "name", ["console.png", "com.png", "com10.png", "a.b.c", ".hidden", "Küche/椅子.png", "a b.png"]
)
def test_such_names_are_fine(name: str) -> None:
    assert fault(name) is None


@given(st.lists(st.text(string.ascii_lowercase + string.digits, min_size=5, max_size=9), unique=True, min_size=1))
def test_names_that_differ_in_capitals_only_are_found(names: list[str]) -> None:
    assert first_fault(names) is None
    other = names[0].upper()
    expected = f"{other}: where capitals do not count it is '{names[0]}'" if other != names[0] else None
    assert first_fault([*names, other]) == expected
