"""How long the paragraphs of a page are, for a reader."""

from __future__ import annotations

import re
import textwrap

WIDTH = 110
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.M | re.S)


def longest_paragraph(text: str) -> int:
    """Lines of the longest paragraph, wrapped at `WIDTH`; an item of a list is one. Tables and code have none."""
    prose = re.sub(r"^---\n.*?^---\n", "", FENCE.sub("\n", text), count=1, flags=re.M | re.S)
    blocks = re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.)\s)|\n(?=[|#])", prose)
    lines = [
        len(textwrap.wrap(" ".join(block.split()), WIDTH)) for block in blocks if block.strip()[:1] not in ("|", "#")
    ]
    return max(lines, default=0)
