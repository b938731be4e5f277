"""What the pages ask of a reader, and what of them is tested: ``benchmarks/results/docs.json``.

    python tests/docs/pages.py --out benchmarks/results/docs.json

A row per page: words (code and tables included), the longest paragraph in lines of at most 110 characters, snippets
(blocks of Python and of commands), and how many of these a test runs whole. Which commands a test leaves out is read
from the tests themselves (``tests/docs``). Cells of notebooks are snippets; a test executes all of them.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from tasktokens.reporting.provenance import describe

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("tests", "tests/docs", "docs/_hooks")]


def pages() -> list[Path]:
    """The README, the pages of the site and the notebooks."""
    docs = ROOT / "docs"
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(docs.rglob("*.md")), *sorted(docs.rglob("*.ipynb"))]


def row_of_page(page: Path) -> dict[str, Any]:
    """One page of Markdown."""
    from test_commands import BLOCKS, RUN

    from paragraphs import longest_paragraph

    text, name = page.read_text(encoding="utf-8"), str(page.relative_to(ROOT))
    python = len(re.findall(r"^```python\n", text, re.M))
    shell = [block for block in BLOCKS if block.rpartition(":")[0] == name]
    whole = [block for block in shell if RUN[block] == BLOCKS[block]]
    return {
        "page": name, "words": len(re.findall(r"\w+", text)), "longest_paragraph_lines": longest_paragraph(text),
        "snippets": python + len(shell), "tested": python + len(whole),
    }  # fmt: skip


def row_of_notebook(path: Path) -> dict[str, Any]:
    """One notebook: its text and code, without outputs."""
    from test_notebooks import SMALL

    from paragraphs import longest_paragraph

    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = {kind: ["".join(c["source"]) for c in cells if c["cell_type"] == kind] for kind in ("markdown", "code")}
    words = len(re.findall(r"\w+", "\n".join(texts["markdown"] + texts["code"])))
    return {
        "page": str(path.relative_to(ROOT)), "words": words,
        "longest_paragraph_lines": longest_paragraph("\n\n".join(texts["markdown"])),
        "snippets": len(texts["code"]), "tested": len(texts["code"]) if path.stem in SMALL else 0,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    rows = [row_of_notebook(page) if page.suffix == ".ipynb" else row_of_page(page) for page in pages()]
    out.write_text(
        json.dumps(
            {**describe("nothing is timed", [], measured=["README.md", "docs", "tests/docs"]), "rows": rows}, indent=1
        )
        + "\n",
        encoding="utf-8",
    )
    for row in sorted(rows, key=lambda row: -row["longest_paragraph_lines"])[:12]:
        print(row)


if __name__ == "__main__":
    main()
