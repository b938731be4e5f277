"""Notebooks as pages: their text, code and committed outputs as Markdown, with pictures as files beside them."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

ANSI = re.compile(r"\x1b\[[0-9;]*m")


def to_markdown(notebook: Path) -> tuple[str, dict[str, bytes]]:
    """A page, and the pictures that it shows by file name."""
    pictures: dict[str, bytes] = {}
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    parts = [_cell(cell, f"{notebook.stem}-{number}", pictures) for number, cell in enumerate(cells)]
    note = f"[Download this notebook]({notebook.name}), which a test executes on less data."
    title, *rest = [part for part in parts if part]
    return "\n\n".join([title, note, *rest]) + "\n", pictures


def _cell(cell: dict[str, Any], name: str, pictures: dict[str, bytes]) -> str:
    text = "".join(cell["source"]).strip()
    if cell["cell_type"] == "markdown" or not text:
        return text
    outputs = [_output(each, f"{name}-{number}", pictures) for number, each in enumerate(cell["outputs"])]
    return "\n\n".join([f"```python\n{text}\n```", *(each for each in outputs if each)])


def _output(output: dict[str, Any], name: str, pictures: dict[str, bytes]) -> str:
    if output["output_type"] == "stream":
        return _preformatted("".join(output["text"]))
    data = output.get("data", {})
    if "image/png" in data:
        pictures[f"{name}.png"] = base64.b64decode("".join(data["image/png"]))
        return f"![Output of the cell above]({name}.png)"
    if "text/markdown" in data:
        return "".join(data["text/markdown"]).strip()
    return _preformatted("".join(data.get("text/plain", "")))


def _preformatted(text: str) -> str:
    text = ANSI.sub("", text).strip("\n")
    return f"```text\n{text}\n```" if text else ""
