"""Hooks of mkdocs: pages that are made from other files, and links that leave ``docs/``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))

from checked_tables import check_tables
from links import adapt
from lists import indent_paragraphs
from notebooks import to_markdown

ROOT = Path(__file__).resolve().parents[2]
COPIED = {"changelog.md": "CHANGELOG.md", "dev/contributing.md": "CONTRIBUTING.md"}
"""Pages that are files of the repository's top folder."""


def on_files(files: Files, config: Any) -> Files:
    """Add the changelog, the guide for contributors, and a page per notebook."""
    for page, path in COPIED.items():
        text = (ROOT / path).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=adapt(text, page, written_in="")))
    for notebook in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        text, pictures = to_markdown(notebook)
        files.append(File.generated(config, f"notebooks/{notebook.stem}.md", content=text))
        for name, content in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links that leave ``docs/`` lead to pages of the site; a figure that no results file has ends the build."""
    check_tables(markdown)
    return indent_paragraphs(adapt(markdown, page.file.src_uri))
