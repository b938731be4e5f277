"""How many labels a method needs for what another one reaches: metric against the share of labels, interpolated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

Points = Mapping[float, float]
"""What a method reaches by the share of labels in (0, 1]; more is better."""


@dataclass(frozen=True)
class EqualShare:
    """A method with a share of the labels reaches what another one reaches with another share.

    Attributes:
        method, share: the method and its share in (0, 1].
        other, equals: the other method, and its share: at least its smallest, infinite where it never gets there, 0
            where it is there below its smallest share.
    """

    method: str
    share: float
    other: str
    equals: float

    def sentence(self) -> str:
        """In words.

        Examples:
            >>> EqualShare("htt", 0.25, "stl", 0.5).sentence()
            'htt with 25 % of the labels equals stl with 50 %'
            >>> EqualShare("htt", 0.5, "stl", float("inf")).sentence()
            'htt with 50 % of the labels is better than stl with all that were tried'
        """
        start = f"{self.method} with {100 * self.share:g} % of the labels"
        if math.isinf(self.equals):
            return f"{start} is better than {self.other} with all that were tried"
        if self.equals == 0:
            return f"{start} is worse than {self.other} with the fewest that were tried"
        return f"{start} equals {self.other} with {100 * self.equals:.3g} %"


def share_of(labels: str) -> float | None:
    """The share of labels that a setting leaves; None for a setting that is no share.

    Examples:
        >>> share_of("full"), share_of("0.25"), share_of("one")
        (1.0, 0.25, None)
    """
    try:
        return 1.0 if labels == "full" else float(labels)
    except ValueError:
        return None


def equal_share(value: float, other: Points) -> float:
    """The smallest share with which the other method reaches a value, interpolated linearly in the log of the share.

    Returns:
        A share; infinity where no point reaches the value, 0 where the smallest one is better already.

    Examples:
        >>> round(equal_share(15.0, {0.1: 10.0, 1.0: 20.0}), 3)  # half way from 10 to 20, and from 10 % to 100 %
        0.316
    """
    shares = sorted(other)
    if other[shares[0]] > value:
        return 0.0
    if other[shares[0]] == value:
        return shares[0]
    for low, high in pairwise(shares):
        if other[high] >= value:
            part = (value - other[low]) / (other[high] - other[low])
            return math.exp(math.log(low) + part * (math.log(high) - math.log(low)))
    return math.inf


def equal_shares(curves: Mapping[str, Points], reference: str) -> list[EqualShare]:
    """Of each method and share the share of the reference that reaches the same.

    Args:
        curves: of each method. reference: one of them; nothing is found where it has fewer than two points.
    """
    other = curves.get(reference, {})
    if len(other) < 2:
        return []
    return [
        EqualShare(method, share, reference, equal_share(points[share], other))
        for method, points in curves.items()
        if method != reference
        for share in sorted(points)
    ]
