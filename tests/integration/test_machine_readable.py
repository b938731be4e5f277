"""What programs and shells read of the command line: strict JSON of every verb that prints a table, and completion."""

from __future__ import annotations

import ast
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import run_cli
from tasktokens.commands import completion

VERBS = {
    "check mydata -q": lambda found: found["images"] == 8,
    "evaluate runs/mine": lambda found: set(found) == {"semseg", "depth"},
    "explain runs/mine photos --influence -q": lambda found: found[0]["part"],
    "discover runs/mine --out new -q": lambda found: found["folder"] == "new" and len(found["tasks"]) == 2,
    "init mydata --force": lambda found: {task["task"] for task in found["tasks"]} == {"semseg", "depth"},
    "prepare --data folder --root mydata --out small -q": lambda found: found == {"folder": "small"},
    "prepare --verify small -q": lambda found: found == {"folder": "small", "faults": []},
    "compare --list": lambda found: found["quick"].startswith("A first table"),
    "runs": lambda found: {run["method"] for run in found} == {"htt"},
    "runs runs/mine runs/demo/htt": lambda found: "runs/mine" in str(found),
    "list": lambda found: any((row["setting"], row["value"]) == ("data.kind", "rooms") for row in found),
    "review show filled -q": lambda found: found[0]["id"].startswith("room/"),
}  # fmt: skip


def strict(text: str) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.usefixtures("documented")
def test_every_verb_that_prints_a_table_prints_json_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    for words, is_right in VERBS.items():
        code, out, errors = run_cli(capsys, *words.split(), "--json")
        assert code in (0, 1), (words, errors)
        assert is_right(strict(out)), (words, out)


def test_no_verb_that_prints_a_table_lacks_it() -> None:
    """Verbs print tables by what `tasktokens.reporting` and the like call ``print_...``, or by a loop of lines."""
    modules = Path(completion.__file__).parent.glob("*.py")
    verbs = [each for module in modules for each in ast.parse(module.read_text(encoding="utf-8")).body]
    bodies = [ast.unparse(verb) for verb in verbs if isinstance(verb, ast.FunctionDef)]
    printing = [body for body in bodies if "print_" in body.replace("print_json", "").replace("print_result", "")]
    assert len(printing) > 5
    for body in printing:
        assert "as_json:" in body, body[:80]


# -- completion --------------------------------------------------------------------------------------------------------
def complete(words: str, cache: Path) -> list[str]:
    """What bash shows for a command line that ends with a tab."""
    variables = {
        "COMP_WORDS": words, "COMP_CWORD": str(len(shlex.split(words)) - 1 + words.endswith(" ")),
        "_TASKTOKENS_COMPLETE": "complete_bash", "TASKTOKENS_CACHE": str(cache),
    }  # fmt: skip
    command = [sys.executable, "-c", "from tasktokens.cli import app; app(prog_name='tasktokens')"]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout.split()


@pytest.mark.slow
@pytest.mark.usefixtures("documented")
def test_the_shell_completes_names(tmp_path: Path) -> None:
    assert complete("tasktokens ser", tmp_path) == ["serve"]
    assert complete("tasktokens train --data roo", tmp_path) == ["rooms"]
    assert complete("tasktokens train method.name=mt", tmp_path) == ["method.name=mtl", "method.name=mtpsl"]
    assert "model.backbone=resnet18" in complete("tasktokens train model.backbone=resnet18", tmp_path)
    assert complete("tasktokens train run.track", tmp_path) == ["run.track="]
    assert complete("tasktokens discover runs/mine --threshold d", tmp_path) == ["depth="]


def test_keys_values_and_lists_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"method.name": ["htt", "mtl"], "keys": ["method.name", "optim.lr"], "data.kind": ["folder", "rooms"]}
    monkeypatch.setattr(completion, "_names", lambda: names)
    monkeypatch.delenv("COMP_WORDS", raising=False)
    assert completion.settings("opt") == ["optim.lr="]
    assert completion.settings("method.name=h") == ["method.name=htt"]
    assert completion.methods("mtl,h") == ["mtl,htt"]
    assert completion.data_kinds("") == ["folder", "rooms"]
    assert "quick" in completion.suites("")
    monkeypatch.setenv("COMP_WORDS", "tasktokens train method.name = h")  # bash ends words at =
    assert completion.settings("h") == ["htt"]


def test_what_cannot_be_asked_completes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails() -> dict[str, list[str]]:
        raise ImportError

    monkeypatch.setenv("TASKTOKENS_CACHE", str(tmp_path))
    monkeypatch.setattr(completion, "_ask", fails)
    assert completion.data_kinds("r") == []


def test_the_command_line_starts_without_torch() -> None:
    script = "import sys, tasktokens.cli; sys.exit(bool({'torch', 'gradio', 'timm', 'fastapi'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0
