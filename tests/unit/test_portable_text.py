"""Text is opened alike on every system: an encoding always, and line ends when it is written."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import tasktokens

SOURCE = Path(tasktokens.__file__).parent
OPENERS = {"open", "fdopen", "NamedTemporaryFile", "TemporaryFile", "TextIOWrapper", "Popen", "run"}
OTHER_OPENS = ("Image", "archive", "_file", "layout", "os", "tokenize", "webbrowser", "zipfile", "tarfile", "av")
"""``X.open`` of these opens something else: a picture, a member, a descriptor."""


def faults(text: str) -> Iterator[tuple[int, str]]:
    """Line and fault of calls that open text as the system is set."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        if name in ("read_text", "write_text") and isinstance(node.func, ast.Attribute):
            if "encoding" not in given:
                yield node.lineno, f"{name} without an encoding"
            if name == "write_text" and "newline" not in given:
                yield node.lineno, "write_text without newline"
        elif name in OPENERS and not _opens_something_else(node.func):
            yield from _of_open(node, name, given)


def _opens_something_else(function: ast.expr) -> bool:
    owner = ast.unparse(function.value) if isinstance(function, ast.Attribute) else ""
    is_open = isinstance(function, ast.Attribute) and function.attr == "open"
    runs = isinstance(function, ast.Attribute) and function.attr == "run" and owner != "subprocess"
    named = isinstance(function, ast.Name) and function.id == "run"
    return (is_open and owner.split(".")[-1] in OTHER_OPENS) or runs or named


def _of_open(node: ast.Call, name: str, given: dict[str | None, ast.expr]) -> Iterator[tuple[int, str]]:
    if name in ("Popen", "run"):
        if "text" in given or "universal_newlines" in given:
            yield node.lineno, f"{name} with text in place of an encoding"
        return
    place = 1 if isinstance(node.func, ast.Name) else 0
    places = node.args[place : place + 1] if name != "TextIOWrapper" else []
    mode = next(
        (ast.literal_eval(each) for each in (*places, given.get("mode")) if isinstance(each, ast.Constant)), "r"
    )
    if "b" in str(mode) or (name.endswith("TemporaryFile") and mode == "r"):
        return
    if "encoding" not in given:
        yield node.lineno, f"{name} without an encoding"
    if set(str(mode)) & set("wax+") and "newline" not in given:
        yield node.lineno, f"{name} for writing without newline"


def test_text_is_opened_alike_everywhere() -> None:
    found = {path: list(faults(path.read_text(encoding="utf-8"))) for path in SOURCE.rglob("*.py")}
    assert len(found) > 100
    assert not {str(path): lines for path, lines in found.items() if lines}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("p.write_text('a')", 2),
        ("p.write_text('a', encoding='utf-8', newline='')", 0),
        ("p.read_text()", 1),
        ("read_text(p)", 0),
        ("p.open()", 1),
        ("p.open('rb')", 0),
        ("open(p, 'w', encoding='utf-8')", 1),
        ("p.open(mode='a')", 2),
        ("Image.open(p)", 0),
        ("subprocess.run(c, text=True)", 1),
    ],
)
def test_the_rule_sees_what_it_should(text: str, count: int) -> None:
    assert len(list(faults(text))) == count
