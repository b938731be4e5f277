"""Statistics of labels for `tasktokens check`: sums that can be added over files, and the faults they point to.

A task's `examine` gives the sums of one label; added over all labels they go to its `summarise`. Histograms have fixed
bins, so that quantiles of a data set of any size take constant memory, and the order of the files does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tasktokens.tasks.stored import StoredLabel

Array = npt.NDArray[Any]
Sums = Mapping[str, Array]
"""Sums of `Task.examine` by name, added over labels."""
Severity = Literal["error", "warning"]
"""An error stops training; a warning does not."""


class Bar(NamedTuple):
    """A bar of a histogram: what it counts, and its share of the valid pixels in [0, 1].

    Attributes:
        label: what it counts.
        share: in [0, 1].
    """

    label: str
    share: float


class Suspicion(NamedTuple):
    """Something that is wrong with the labels as a whole: a code such as ``depth-millimetres`` and a sentence.

    ``examples`` names sums; labels where one of them is above 0 are named behind the sentence.

    Attributes:
        severity: ``error`` or ``warning``.
        code: as docs/check.md lists them.
        message: one sentence.
        examples: keys of sums.
    """

    severity: Severity
    code: str
    message: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summary:
    """All labels of a task in short.

    Attributes:
        numbers: values by name, with the unit in the name.
        histogram: shares of classes or of ranges of values.
        suspicions: what looks wrong.
    """

    numbers: Mapping[str, float] = field(default_factory=dict)
    histogram: tuple[Bar, ...] = ()
    suspicions: tuple[Suspicion, ...] = ()

    def joined(self, more: Iterable[Suspicion]) -> Summary:
        """The same with further suspicions."""
        return replace(self, suspicions=(*self.suspicions, *more))


def one_sided(answer: str) -> Suspicion:
    """The error that all usable pixels of a task have the same value."""
    text = (
        f"every usable pixel of every label is {answer}: nothing can be learned or measured; check what is void "
        f"(alpha, void values, 255 of classes) and which numbers the files hold, or leave the task out"
    )
    return Suspicion("error", "one-sided", text)


# -- class ids ---------------------------------------------------------------------------------------------------------
def class_sums(ids: Array, valid_HW: Array, count: int) -> dict[str, Array]:
    """Pixels of each class, and labels in which it is seen."""
    pixels = np.bincount(ids[valid_HW].astype(np.int64), minlength=count)[:count]
    return {"pixels": pixels, "labels": (pixels > 0).astype(np.int64)}


def summarise_classes(names: Sequence[str], sums: Sums) -> Summary:
    """Share of each class; a class that is never seen is a warning."""
    total = max(int(sums["pixels"].sum()), 1)
    bars = tuple(Bar(name, float(n / total)) for name, n in zip(names, sums["pixels"], strict=True))
    missing = [name for name, n in zip(names, sums["pixels"], strict=True) if n == 0]
    numbers = {f"classes seen of {len(names)}": float(len(names) - len(missing))}
    text = (
        f"{len(missing)} of {len(names)} classes are in no label: {_some(missing)}; it cannot be learned nor measured: "
        f"check the order of the class names, or remove it"
    )
    found = [Suspicion("warning", "class-never-seen", text)] if missing else []
    if len(names) - len(missing) == 1:
        found.append(one_sided(f"of the class '{next(name for name in names if name not in missing)}'"))
    return Summary(numbers, bars, tuple(found))


def _some(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


# -- probabilities -----------------------------------------------------------------------------------------------------
def probability_sums(value_HW: Array, valid_HW: Array) -> dict[str, Array]:
    """Pixels by value in steps of 1/255."""
    steps = np.rint(value_HW[valid_HW].clip(0, 1) * 255).astype(np.int64)
    return {"steps": np.bincount(steps, minlength=256)}


def white_sums(stored: StoredLabel, white: float | None) -> dict[str, Array]:
    """Whether a file of integers, whose white is their type's maximum, holds 0 and 1, or larger numbers too."""
    plane = stored.numbers(lossless=False)
    if white is not None or plane.dtype.kind not in "iu":
        return {}
    peak = int(plane.max(initial=0, where=stored.valid))
    return {WHITE_1: np.array([int(peak == 1)]), WHITE_MORE: np.array([int(peak > 1)])}


WHITE_1, WHITE_MORE = "files of 0 and 1", "files of 0 to 255"


def _two_whites(sums: Sums) -> list[Suspicion]:
    few, many = (int(sums[key][0]) if key in sums else 0 for key in (WHITE_1, WHITE_MORE))
    if not few or not many:
        return []
    text = (
        f"{few} files hold nothing but 0 and 1, and {many} files larger numbers: a stored 1 is taken for "
        f"1/255, almost no; write all files alike, 0 and 255"
    )
    return [Suspicion("error", "mixed-white", text, (WHITE_1, WHITE_MORE))]


def summarise_probabilities(sums: Sums, rare: bool) -> Summary:
    """Ten ranges of values.

    Args:
        sums: of `probability_sums`.
        rare: whether most pixels should be negative, as for edges.
    """
    steps = sums["steps"]
    total = max(int(steps.sum()), 1)
    edges = np.linspace(0, 256, 11).round().astype(int)
    bars = tuple(
        Bar(f"{i / 10:.1f}–{(i + 1) / 10:.1f}", float(steps[a:b].sum() / total))
        for i, (a, b) in enumerate(pairwise(edges))
    )
    positive = float(steps[128:].sum() / total)
    found = []
    if steps[1] > 0 and not steps[2:].any():
        text = (
            "values are at most 1/255: the files seem to hold 0 and 1 in 8 bits, where 0 to 255 is expected; "
            "multiply them by 255, or set the task's white: 1"
        )
        found.append(Suspicion("error", "values-0-and-1", text))
    elif steps.any() and positive in (0, 1):
        found.append(one_sided(f"{'above' if positive else 'below'} 0.5"))
    elif positive > 0.5 and rare:
        text = f"{positive:.0%} of the pixels are above 0.5, where few are expected; the labels may be inverted"
        found.append(Suspicion("warning", "looks-inverted", text))
    return Summary({"positive share": positive}, bars, (*found, *_two_whites(sums)))


# -- positive amounts: depth -------------------------------------------------------------------------------------------
_DECADES, _PER_DECADE = (-5, 7), 100
_BINS = (_DECADES[1] - _DECADES[0]) * _PER_DECADE


def amount_sums(value_HW: Array, valid_HW: Array, low: float, high: float) -> dict[str, Array]:
    """A log histogram of positive values, how many lie outside [low, high], and whether they grow down the picture."""
    values = value_HW[valid_HW].astype(np.float64)
    position = (np.log10(values.clip(1e-30)) - _DECADES[0]) * _PER_DECADE
    third = len(value_HW) // 3
    upper, lower = value_HW[:third][valid_HW[:third]], value_HW[-third:][valid_HW[-third:]]
    ratio = float(np.median(lower) / max(np.median(upper), 1e-30)) if third and upper.size and lower.size else 1.0
    return {
        "bins": np.bincount(np.floor(position).clip(0, _BINS - 1).astype(np.int64), minlength=_BINS),
        # A thousandth is rounding error.
        "outside": np.array([(values < low * 0.999).sum(), (values > high * 1.001).sum()]),
        "slopes": np.array([ratio > 1.1, ratio < 1 / 1.1], dtype=np.int64),
        "not positive": np.array([(values <= 0).sum()]),
        "varied": varied(values),
    }


def varied(values: Array) -> Array:
    """1 where a label's values differ from each other, else 0."""
    return np.array([int(values.size > 0 and values.min() < values.max())])


def amount_quantile(sums: Sums, share: float) -> float:
    """The value below which that share of the pixels lies, within 1.2 %; NaN where there is none."""
    cumulative = np.cumsum(sums["bins"])
    if not cumulative[-1]:
        return float("nan")
    index = int(np.searchsorted(cumulative, share * cumulative[-1]))
    return float(10 ** (_DECADES[0] + (min(index, _BINS - 1) + 0.5) / _PER_DECADE))


def summarise_depth(sums: Sums, low: float, high: float, inverse: bool) -> Summary:
    """Quantiles, histogram and signs of another unit.

    Args:
        sums: of `amount_sums`.
        low, high: the declared range.
        inverse: whether nearer points have larger values.
    """
    total = int(sums["bins"].sum())
    if not total:
        return Summary()
    middle = amount_quantile(sums, 0.5)
    numbers = {text + ("" if inverse else " (m)"): amount_quantile(sums, q) for text, q in _QUANTILES.items()}
    below, above = (float(n / total) for n in sums["outside"])
    numbers |= {"below range": below, "above range": above}
    growing, shrinking = (int(n) for n in sums["slopes"])
    inverted, normal = (shrinking, growing) if inverse else (growing, shrinking)
    found = []
    against = inverted >= 5 and inverted >= 4 * normal
    seen = f"in {inverted} of {inverted + normal} labels"
    if against and inverse:
        text = (
            f"values grow towards the top of the picture {seen}, as distances do; "
            f"expected inverse depth, which is larger for what is nearer"
        )
        found.append(Suspicion("warning", "looks-like-depth", text))
    elif against:
        text = (
            f"values are larger at the bottom of the picture {seen}, as disparities are; expected distances in metres: "
            f"convert them (depth = baseline x focal length / disparity), or declare inverse: true"
        )
        found.append(Suspicion("warning", "looks-like-disparity", text))
    if middle > 100 and not inverse and not against:
        text = (
            f"the median is {middle:.3g} metres: the files seem to hold millimetres; set the task's scale, or divide "
            f"the values of float files by 1000"
        )
        found.append(Suspicion("error", "looks-like-millimetres", text))
    else:
        found += _outside_range(below, above, low, high, middle)
    wrong = int(sums["not positive"][0])
    if wrong:
        text = f"{wrong / total:.2%} of the pixels are 0 or negative after scale and offset; mark them as void"
        found.append(Suspicion("error", "not-positive", text))
    if not sums["varied"][0] and (sums["bins"] > 0).sum() == 1:
        found.append(one_sided(f"{middle:.3g}"))
    return Summary(numbers, _amount_bars(sums), tuple(found))


def _outside_range(below: float, above: float, low: float, high: float, middle: float) -> list[Suspicion]:
    """A warning where 2 % of the pixels are outside, an error where most are."""
    if below + above <= 0.02:
        return []
    text = (
        f"{below + above:.1%} of the pixels are outside the range [{low:g}, {high:g}] ({below:.1%} below, "
        f"{above:.1%} above; median {middle:.3g}); they are treated as its ends: check scale and range"
    )
    return [Suspicion("error" if below + above > 0.5 else "warning", "outside-range", text)]


_QUANTILES = {"0.1 %": 0.001, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "99.9 %": 0.999}


def _amount_bars(sums: Sums, count: int = 12) -> tuple[Bar, ...]:
    """Bars of equal width in log value between the outermost thousandths, which join the outer bars."""
    cumulative = np.cumsum(sums["bins"])
    first, last = (int(np.searchsorted(cumulative, share * cumulative[-1])) for share in (0.001, 0.999))
    edges = np.unique(np.linspace(first, last + 1, count + 1).round().astype(int))
    shares = np.diff(np.concatenate([[0], cumulative[edges[1:-1] - 1], [cumulative[-1]]])) / cumulative[-1]
    limits = 10 ** (_DECADES[0] + edges / _PER_DECADE)
    return tuple(
        Bar(f"{a:.3g}–{b:.3g}", float(share)) for a, b, share in zip(limits[:-1], limits[1:], shares, strict=True)
    )


# -- any scalar --------------------------------------------------------------------------------------------------------
_STEPS = 200


def range_sums(value_HW: Array, valid_HW: Array, low: float, high: float) -> dict[str, Array]:
    """A histogram of the range in `_STEPS` bins, with equally many on either side, and the number of values outside."""
    values = value_HW[valid_HW].astype(np.float64)
    position = ((values - low) / (high - low) + 1) * _STEPS
    margin = 0.001 * (high - low)  # a thousandth is rounding error
    return {
        "bins": np.bincount(position.clip(0, 3 * _STEPS - 1).astype(np.int64), minlength=3 * _STEPS),
        "outside": np.array([(values < low - margin).sum(), (values > high + margin).sum()]),
        "varied": varied(values),
    }


def summarise_range(sums: Sums, low: float, high: float, unit: str) -> Summary:
    """Quantiles, exact to half a percent of the range, and ten equal parts of the range, the outer ones with what is
    outside."""
    bins, total = sums["bins"], int(sums["bins"].sum())
    if not total:
        return Summary()
    cumulative, step = np.cumsum(bins), (high - low) / _STEPS
    numbers = {}
    for name, share in _QUANTILES.items():
        index = min(int(np.searchsorted(cumulative, share * total)), len(bins) - 1)
        numbers[name + (f" ({unit})" if unit else "")] = float(low + (index + 0.5 - _STEPS) * step)
    middle = next(value for name, value in numbers.items() if name.startswith("median"))
    below, above = (float(n / total) for n in sums["outside"])
    numbers |= {"below range": below, "above range": above}
    parts = bins[_STEPS : 2 * _STEPS].reshape(10, -1).sum(axis=1)
    parts[0] += bins[:_STEPS].sum()
    parts[-1] += bins[2 * _STEPS :].sum()
    limits = np.linspace(low, high, 11)
    bars = (Bar(f"{a:.3g}–{b:.3g}", float(n / total)) for (a, b), n in zip(pairwise(limits), parts, strict=True))
    found = _outside_range(below, above, low, high, middle)
    if not sums["varied"][0] and (sums["bins"] > 0).sum() == 1:
        found.append(one_sided(f"{middle:.3g}"))
    return Summary(numbers, tuple(bars), tuple(found))
