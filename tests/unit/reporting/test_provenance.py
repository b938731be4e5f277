"""Result files say how they were made, wherever the command was given."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import tasktokens
from tasktokens.reporting.provenance import describe

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("program", ["/env/bin/tasktokens", str(Path(tasktokens.__file__).parent / "__main__.py")])
def test_a_verb_is_given_as_it_is_typed(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [program, "compare", "quick", "data.root=/home/me/data"])
    assert describe("", [0])["command"] == "tasktokens compare quick data.root=data"


def test_a_script_is_given_with_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks/speed.py", "--out", "a b.json"])
    assert describe("", [0])["command"] == "python benchmarks/speed.py --out 'a b.json'"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout")
def test_the_commit_is_that_of_the_package_whatever_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = describe("", [0], measured=("no-such-folder",))["commit"]
    monkeypatch.chdir(tmp_path)
    assert describe("", [0], measured=("no-such-folder",))["commit"] == here
    assert len(str(here)) == 40


def test_the_machine_is_a_list_without_gaps() -> None:
    for how in ("", "one thread"):
        machine = str(describe(how, [0])["machine"])
        assert not machine.endswith(",")
        assert ", ," not in machine
        assert machine.endswith(how)
