"""Tests import no benchmark and benchmarks import no test: each may be changed without the other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {name: sorted((ROOT / name).rglob("*.py")) for name in ("tests", "benchmarks")}


def imported(path: Path) -> set[str]:
    """The first part of every module that a file imports, inside of functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize(("folder", "other"), [("tests", "benchmarks"), ("benchmarks", "tests")])
def test_neither_imports_the_other(folder: str, other: str) -> None:
    theirs = {other, *(path.stem for path in FOLDERS[other])} - {path.stem for path in FOLDERS[folder]}
    assert len(FOLDERS[folder]) > 5
    assert {str(path): names for path in FOLDERS[folder] if (names := imported(path) & theirs)} == {}
