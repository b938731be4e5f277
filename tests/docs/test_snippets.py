"""Every Python block of the README and the documentation runs as it stands."""

from __future__ import annotations

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


def test_the_readme_has_a_python_block() -> None:
    assert any(block.id.startswith("README.md") for block in BLOCKS if block.id)


@pytest.mark.parametrize("text", BLOCKS)
@pytest.mark.usefixtures("documented")
def test_the_block_runs(text: str) -> None:
    exec(compile(text, "the block", "exec"), {"__name__": "__main__"})
