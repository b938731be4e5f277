"""Classes that a mirror swaps, such as ``left arm`` and ``right arm``: found by their names, and as a permutation."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import chain

import torch
from torch import Tensor

from tasktokens.tasks.examine import Suspicion

Pairs = tuple[tuple[int, int], ...]
"""Pairs of class indices that swap in a mirrored image."""

_SIDES = (
    ("left", "right"), ("l", "r"), ("lt", "rt"), ("lh", "rh"), ("lhs", "rhs"), ("lefthand", "righthand"),
    ("port", "starboard"), ("links", "rechts"), ("linke", "rechte"), ("linker", "rechter"), ("linkes", "rechtes"),
    ("gauche", "droite"), ("izquierda", "derecha"), ("izquierdo", "derecho"), ("esquerda", "direita"),
    ("esquerdo", "direito"), ("sinistra", "destra"), ("sinistro", "destro"), ("lewa", "prawa"),
    ("lewy", "prawy"), ("левая", "правая"), ("левый", "правый"), ("左", "右"),
)  # fmt: skip
_OTHER = {a: b for pair in _SIDES for a, b in (pair, pair[::-1])}
_SAME = {"droit": "droite"}
"""Forms of one word of which the other side has one only: ``bras gauche`` and ``bras droit``."""
_GLUED = ("left", "right", "左", "右")
"""Words of a side that are found at the ends of longer words too: ``leftarm``, ``armright``."""

_PARTS = (
    "arm|forearm|hand|finger|thumb|wrist|elbow|shoulder|leg|thigh|knee|calf|shin|ankle|foot|feet|toe|heel|hip|eye|brow|"
    "ebrow|eyebrow|ear|cheek|temple|nostril|lung|kidney|breast|glove|shoe|boot|sock|sleeve|wing|horn|paw|hoof|ho|"
    "mirror|door|wheel|light|lamp"
)
_GLUED_LETTER = re.compile(rf"([lr])([fb]?[ul]?(?:{_PARTS}))|((?:{_PARTS}))([lr])")
"""A letter for the side at a part that comes in two: ``lhand``, ``handl``, and ``lfuleg``, left front upper leg."""

# Words end at anything but letters and digits, at digits, and where a capital begins one: upperLeftArm, L2Arm.
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+")


def mirrored_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of names that differ by left and right only, the left one first, in the order of ``names``.

    Found in any spelling: spaces, dashes, underscores, capitals, ``left`` or ``l``, in front, behind or between, and
    in other languages; a letter without a separator at parts of bodies and vehicles alone (``lhand``, not ``lamp``).

    Examples:
        >>> from tasktokens.tasks.mirror import mirrored_pairs
        >>> mirrored_pairs(["torso", "Left-Arm", "right_arm", "leg_r", "leg_l", "upperRightLip", "bright"])
        [('Left-Arm', 'right_arm'), ('leg_l', 'leg_r')]
    """
    pairs = _pairs(names, _words)
    left = [name for name in names if name not in chain(*pairs)]
    place = {name: number for number, name in enumerate(names)}
    return sorted(pairs + _pairs(left, _letters_apart), key=lambda pair: min(place[name] for name in pair))


def _pairs(names: Sequence[str], split: Callable[[str], tuple[str, ...]]) -> list[tuple[str, str]]:
    words = {name: split(name) for name in names}
    counts = Counter(words.values())
    by_words = {key: name for name, key in words.items() if counts[key] == 1}
    pairs: list[tuple[str, str]] = []
    for name, own in words.items():
        other = by_words.get(tuple(_OTHER.get(word, word) for word in own))
        if other is None:  # an l that is a litre, a name or a number of its own
            other = by_words.get(tuple(_OTHER[word] if word in _GLUED else word for word in own))
        if other is None or other == name or counts[own] > 1 or name in chain(*pairs):
            continue
        pairs.append((name, other) if _is_left(own) else (other, name))
    return pairs


def _words(name: str) -> tuple[str, ...]:
    """The words of a name without regard to capitals and to what stands between them."""
    words: list[str] = []
    for word in (_SAME.get(found.casefold(), found.casefold()) for found in _WORD.findall(name)):
        side = next((side for side in _GLUED if word != side and word.startswith(side)), None)
        if side:
            words += [side, word.removeprefix(side)]
            continue
        side = next((side for side in _GLUED if word != side and word.endswith(side)), None)
        words += [word.removesuffix(side), side] if side else [word]
    return tuple(words)


def _letters_apart(name: str) -> tuple[str, ...]:
    """`_words`, with the letter of a side split off a part that comes in two; ``rear`` is a word of its own else."""
    found = (_GLUED_LETTER.fullmatch(word) or word for word in _words(name))
    return tuple(
        chain.from_iterable([word] if isinstance(word, str) else filter(None, word.groups()) for word in found)
    )


def _is_left(words: Sequence[str]) -> bool:
    lefts = {left for left, _ in _SIDES}
    return next(word for word in words if word in _OTHER) in lefts


def wrong_pairs(pairs: Pairs, names: Sequence[str]) -> str | None:
    """What is wrong with pairs of class numbers, in a sentence; None: nothing."""
    for number in chain(*pairs):
        if not 0 <= number < len(names):
            return f"'mirror' must name classes 0 to {len(names) - 1}, found {number}"
    for number, count in Counter(chain(*pairs)).items():
        if count > 1:
            return f"'mirror' names the class '{names[number]}' {count} times; a class has one mirror image"
    return None


def swap(value_CHW: Tensor, pairs: Pairs, count: int) -> Tensor:
    """Class numbers (uint8) with the two of each pair exchanged."""
    return _table(pairs, count)[value_CHW.long()].to(value_CHW.dtype) if pairs else value_CHW


def swap_channels(logits_BKHW: Tensor, pairs: Pairs) -> Tensor:
    """Logits of classes with the two of each pair exchanged."""
    if not pairs:
        return logits_BKHW
    return logits_BKHW.index_select(1, _table(pairs, logits_BKHW.shape[1]).to(logits_BKHW.device))


@cache
def _table(pairs: Pairs, count: int) -> Tensor:
    table = list(range(count))
    for a, b in pairs:
        table[a], table[b] = b, a
    return torch.tensor(table)


def unpaired(names: Sequence[str], pairs: Pairs) -> list[Suspicion]:
    """The warning that classes differ by left and right only and no pair says so, with the line to add."""
    paired = {names[number] for number in chain(*pairs)}
    found = [pair for pair in mirrored_pairs(names) if not paired & set(pair)]
    if not found:
        return []
    given = [(names[a], names[b]) for a, b in pairs]
    text = (
        f"training mirrors images (data.augmentation.flip), and classes that differ by left and right only cannot be "
        f"learned so: {_listed(found[:4])}{f' and {len(found) - 4} more pairs' if len(found) > 4 else ''}; add "
        f"to the task in dataset.yaml:  mirror: {flow(given + found)}  or train with data.augmentation.flip=false"
    )
    return [Suspicion("warning", "left-right-unpaired", text)]


def one_of_pair_unseen(names: Sequence[str], pairs: Pairs, seen: Mapping[int, bool]) -> list[Suspicion]:
    """The warning that labels show one class of a pair only."""
    lone = [(a, b) if seen[a] else (b, a) for a, b in pairs if seen[a] != seen[b]]
    texts = [f"'{names[there]}' is in the labels and '{names[missing]}' is in none" for there, missing in lone]
    if not texts:
        return []
    more = f" (and {len(texts) - 1} more pairs)" if len(texts) > 1 else ""
    text = f"{texts[0]}{more}, though 'mirror' pairs them: mirrored images teach it all the same; check the names"
    return [Suspicion("warning", "mirror-class-never-seen", text)]


def flow(pairs: Sequence[tuple[str, str]]) -> str:
    """The pairs as a line of YAML."""
    return f"[{', '.join(f'[{_quoted(a)}, {_quoted(b)}]' for a, b in pairs)}]"


def _quoted(name: str) -> str:
    """As it is where YAML takes it for a word; else in quotes."""
    plain = re.fullmatch(r"[^\W\d_][\w -]*\w", name) and name.lower() not in _YAML_WORDS
    return name if plain else "'" + name.replace("'", "''") + "'"


_YAML_WORDS = ("yes", "no", "on", "off", "true", "false", "null")


def _listed(pairs: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"'{a}' and '{b}'" for a, b in pairs)
