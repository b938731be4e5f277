"""A card: the ``README.md`` of a repository, whose head in YAML the Hub searches, and whose text people read.

What this package writes stands between two marks. What somebody wrote outside of them stays when a newer card takes the
place of an older one, and so do keys of the head that this package does not set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tasktokens.errors import HubError
from tasktokens.utils.safe_io import dump_yaml, load_yaml

BEGIN, END = "<!-- written by tasktokens: begin -->", "<!-- written by tasktokens: end -->"

NO_LICENCE = "unknown"
"""What the Hub calls a licence that nobody has named."""


def make_card(head: Mapping[str, Any], text: str, before: str | None = None) -> str:
    """The card with this head and this text of ours; what a person wrote into the card of ``before`` is kept.

    A licence that stands in the card of before is not replaced by none.

    Raises:
        HubError: the head of the card of before is no YAML.

    Examples:
        >>> first = make_card({"license": "mit"}, "Ours.")
        >>> second = make_card({"license": "unknown"}, "Ours, new.", first + "By a person.")
        >>> "license: mit" in second, "Ours, new." in second, "Ours.\\n" in second, "By a person." in second
        (True, True, False, True)
    """
    old_head, around = _split(before or "")
    kept = old_head.get("license") if head.get("license") == NO_LICENCE else None
    merged = {**old_head, **head} | ({"license": kept} if kept else {})
    first, last = around
    ours = f"{BEGIN}\n{text.strip()}\n{END}"
    parts = [part.strip() for part in (first, ours, last)]
    return f"---\n{dump_yaml(merged, allow_unicode=True)}---\n" + "\n\n".join(filter(None, parts)) + "\n"


def licence_of(card: str) -> str | None:
    """The licence that a card names; None where it names none."""
    found = _split(card)[0].get("license")
    return None if found in (None, NO_LICENCE) else str(found)


def _split(card: str) -> tuple[dict[str, Any], tuple[str, str]]:
    """The head, and the text before and after what this package wrote."""
    card = card.replace("\r\n", "\n").lstrip("\ufeff")
    head: Any = {}
    if card.startswith("---\n"):
        yaml, _, card = card.removeprefix("---\n").partition("\n---")
        try:
            head = load_yaml(yaml) or {}
            if not isinstance(head, dict):
                raise ValueError("it holds no keys")
        except ValueError as error:
            raise HubError(
                f"the head of the README.md that is there cannot be read as YAML ({error}); mend or remove it"
            ) from error
    before, begin, rest = card.partition(BEGIN)
    return head, (before, rest.partition(END)[2] if begin else "")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown.

    Examples:
        >>> print(table(["task", "seen"], [["depth", 3]]))
        | task | seen |
        |---|---|
        | depth | 3 |
    """
    lines = [columns, ["---"] * len(columns), *rows]
    written = ["| " + " | ".join(_cell(each) for each in line) + " |" for line in lines]
    written[1] = "|" + "---|" * len(columns)
    return "\n".join(written)


def _cell(value: object) -> str:
    """A name may hold what Markdown reads as markup or as the end of a cell."""
    text = " ".join(str(value).split())
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")


def licence_sentence(licence: str | None) -> str:
    """What a card says of its licence."""
    if licence:
        return f"Licence: `{licence}`."
    return (
        "Licence: unknown. Whoever published this named none, so nothing is permitted but by their word; ask them "
        "before you use it."
    )
