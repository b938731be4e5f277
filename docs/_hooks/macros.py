"""What pages can write between double braces; they ask for it by ``render_macros: true`` at their top."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from figures import figure, seeds
from settings_tables import settings_page
from verbs import verbs_page

ROOT = Path(__file__).resolve().parents[2]


def source(path: str) -> str:
    """A file of the repository, as a block of code."""
    language = {".py": "python", ".toml": "toml", ".yaml": "yaml"}[Path(path).suffix]
    return f'```{language} title="{path}"\n{(ROOT / path).read_text(encoding="utf-8").rstrip()}\n```'


def define_env(env: Any) -> None:
    """Called by mkdocs-macros."""
    for macro in (figure, seeds, settings_page, verbs_page, source):
        env.macro(macro)
