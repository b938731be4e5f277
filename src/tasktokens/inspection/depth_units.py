"""The units in which data sets store depth as whole numbers: which of them fit, since numbers alone rarely tell."""

from __future__ import annotations

from collections.abc import Callable

UNITS = {
    0.001: "millimetres",
    1 / 256: "metres x 256, as KITTI",
    0.01: "centimetres, as Virtual KITTI 2",
    0.0002: "metres x 5000, as TUM RGB-D",
    1 / 4000: "metres x 4000, as Matterport3D",
    1 / 512: "metres x 512, as Taskonomy",
    1.0: "metres",
}
"""Metres of a stored 1, the commonest first."""

_NEAR, _FAR = 0.2, 100.0
"""Between these metres lies the median of pictures of rooms and streets."""


def depth_scale(middle: float) -> float:
    """The scale that is proposed for files whose median is ``middle``: millimetres, or metres where it is low."""
    return 0.001 if middle > 100 else 1.0


def unit_words(middle: float, low: float, high: float, rounded: Callable[[float, float], list[float]]) -> str:
    """Which unit was taken, and what the other units that fit make of it, each with its settings.

    Args:
        middle: the median of the stored numbers. low, high: their range.
        rounded: the range to write for two numbers.
    """
    taken = depth_scale(middle)
    others = [
        f"{name} ({middle * scale:.3g} m): scale: {scale:.8g}, range: {rounded(low * scale, high * scale)}"
        for scale, name in UNITS.items()
        if scale != taken and _NEAR <= middle * scale <= _FAR
    ]
    words = f"looks like {UNITS[taken]} ({middle * taken:.3g} m)"
    return words + (f"; the other readings: {'; '.join(others)}; compare a known distance" if others else "")
