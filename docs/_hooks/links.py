"""Links that work in the repository, made to work on the site.

Pages link to each other by relative paths, which mkdocs checks. What lies outside ``docs/`` has a page of its own, or
is shown as a path.
"""

from __future__ import annotations

import posixpath
import re

LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "dev/contributing.md",
    "examples/own_task.py": "extend/task.md",
    "examples/own_dataset.py": "extend/dataset.md",
    "examples/own_method.py": "extend/method.md",
    "examples/own_network.py": "extend/network.md",
    "examples/own_loop.py": "notebooks/own_loop.md",
}
"""Pages of the site that show a file of the repository."""


def adapt(text: str, page: str, written_in: str | None = None) -> str:
    """Replace links that leave ``docs/``.

    Args:
        text: Markdown.
        page: path of the page below ``docs/``.
        written_in: the folder of the repository that the links are relative to, where it is not the page's own.
    """
    here = posixpath.dirname(posixpath.join("docs", page))

    def replaced(match: re.Match[str]) -> str:
        words, target, anchor = match.group(1), match.group(2), match.group(3) or ""
        path = posixpath.normpath(posixpath.join(here if written_in is None else written_in, target))
        if path in PAGES:
            return f"[{words}]({posixpath.relpath(posixpath.join('docs', PAGES[path]), here)})"
        if path.startswith("docs/"):
            return match.group() if written_in is None else f"[{words}]({posixpath.relpath(path, here)}{anchor})"
        return words if words.strip("`") in (path, posixpath.basename(path)) else f"{words} (`{path}`)"

    return LINK.sub(replaced, text)
