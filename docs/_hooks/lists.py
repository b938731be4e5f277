"""Lists as GitHub reads them, for a parser that wants a list's further paragraphs indented by four spaces."""

from __future__ import annotations

import re

ITEM, FENCE = re.compile(r"([-*]|\d+\.) "), re.compile(r"\s*```")


def indent_paragraphs(text: str) -> str:
    """Further paragraphs of an item, indented by two spaces, get four: else they would end the list."""
    lines = []
    in_list = in_code = further = False
    for line in text.split("\n"):
        if FENCE.match(line):
            in_code = not in_code
        elif in_code:
            pass
        elif ITEM.match(line):
            if further and lines[-1].strip():
                lines.append("")  # or the item would go on in the paragraph above
            in_list, further = True, False
        elif not line.strip():
            further = in_list
        elif not line.startswith(" "):
            in_list = further = False
        moved = in_list and further and line.startswith("  ") and (in_code or not line.startswith("    "))
        lines.append("  " + line if moved else line)
    return "\n".join(lines)
