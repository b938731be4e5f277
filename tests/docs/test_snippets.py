"""Every Python block of the documentation and every example of a docstring runs as it stands.

They run in the folder of tests/conftest.py.
"""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    pytest.param(text, id=f"{page.relative_to(ROOT)}:{number}")
    for page in PAGES
    for number, text in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S))
]
MODULES = [
    ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "src").rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


def test_the_readme_has_a_python_block() -> None:
    assert any(block.id.startswith("README.md") for block in BLOCKS if block.id)


@pytest.mark.parametrize("text", BLOCKS)
@pytest.mark.usefixtures("documented")
def test_the_block_runs(text: str) -> None:
    exec(compile(text, "the block", "exec"), {"__name__": "__main__"})


TRAINS = "tasktokens.reporting.comparison.compare"
"""Its example trains two methods."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == TRAINS else []) for name in MODULES]
)
@pytest.mark.usefixtures("documented")
def test_the_examples_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted
    assert not result.failed
