"""Cards: a head that a YAML reader reads, text that stays a person's own, tables that no name breaks."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tasktokens.errors import HubError
from tasktokens.hub.card import BEGIN, END, licence_of, make_card, table


def head_of(card: str) -> dict[str, object]:
    """The head, read without this package."""
    return dict(yaml.safe_load(card.split("---\n")[1]))


def test_a_newer_card_keeps_what_a_person_wrote_and_replaces_the_rest() -> None:
    first = make_card({"license": "unknown", "tags": ["a"]}, "Old figures: 1.")
    edited = first.replace("license: unknown", "license: cc-by-4.0\nlanguage: de").replace(BEGIN, f"Before.\n{BEGIN}")
    second = make_card({"license": "unknown", "tags": ["b"]}, "New figures: 2.", edited + "\nAfter.")
    assert head_of(second) == {"license": "cc-by-4.0", "language": "de", "tags": ["b"]}
    assert second.index("Before.") < second.index("New figures: 2.") < second.index("After.")
    assert "Old figures" not in second
    assert second.count(BEGIN) == second.count(END) == 1


def test_a_card_of_a_person_alone_stays_in_front() -> None:
    card = make_card({"license": "mit"}, "Ours.", "Everything about my model.\r\nTwo lines.\r\n")
    assert "Everything about my model.\nTwo lines." in card
    assert licence_of(card) == "mit"


def test_a_head_that_is_no_yaml_is_named() -> None:
    with pytest.raises(HubError, match=r"README\.md .* cannot be read as YAML"):
        make_card({}, "Ours.", "---\na: [\n---\ntext")


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1), min_size=1, max_size=4))
def test_no_name_breaks_a_table(names: list[str]) -> None:
    lines = table(["name"] * len(names), [names]).splitlines()
    assert len(lines) == 3
    cells = lines[2].replace("\\\\", "").replace("\\|", "")
    assert cells.count("|") == len(names) + 1
    assert "<" not in lines[2]


@given(st.dictionaries(st.sampled_from(["license", "tags", "name"]), st.text(), max_size=3), st.text())
def test_any_head_comes_back(head: dict[str, str], text: str) -> None:
    clean = {key: "".join(c for c in value if c.isprintable()) for key, value in head.items()}
    card = make_card(clean, "Ours.")
    assert (yaml.safe_load(card.split("---\n")[1]) or {}) == clean
