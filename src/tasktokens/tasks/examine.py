"""Statistics of labels for `tasktokens check`: sums that can be added over files, and the faults they point to.

A task's `examine` gives the sums of one label; added over all labels they go to its `summarise`, so the order of the
files does not matter. Here are those of classes and probabilities; `examine_numbers` has those of depth and scalars.
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
        code: as docs/reference/check.md lists them.
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
PARTIAL, OUTSIDE = "partially labelled images", "pixels of a class that was not labelled"


def class_sums(ids: Array, valid_HW: Array, count: int, partial: bool = False) -> dict[str, Array]:
    """Pixels of each class, and labels in which it is seen; of ``partial`` labels also pixels of no certain class."""
    usable = ids[valid_HW].astype(np.int64)
    pixels = np.bincount(usable, minlength=count)[:count]
    sums = {"pixels": pixels, "labels": (pixels > 0).astype(np.int64)}
    if partial:
        outside = np.array([int((usable >= count).sum())])
        sums |= {OUTSIDE: outside, PARTIAL: (outside > 0).astype(np.int64)}
    return sums


def summarise_classes(names: Sequence[str], sums: Sums) -> Summary:
    """Share of each class; a class that is never seen is a warning."""
    total = max(int(sums["pixels"].sum()), 1)
    bars = tuple(Bar(name, float(n / total)) for name, n in zip(names, sums["pixels"], strict=True))
    missing = [name for name, n in zip(names, sums["pixels"], strict=True) if n == 0]
    numbers = {f"classes seen of {len(names)}": float(len(names) - len(missing))}
    outside = int(sums[OUTSIDE][0]) if OUTSIDE in sums else 0
    if outside:
        numbers |= {PARTIAL: float(sums[PARTIAL][0]), "share of their class not labelled": outside / (outside + total)}
    text = (
        f"{len(missing)} of {len(names)} classes are in no label: {_some(missing)}; it cannot be learned nor measured: "
        f"check the order of the class names, or remove it"
    )
    found = [Suspicion("warning", "class-never-seen", text)] if missing else []
    if len(names) - len(missing) == 1 and not outside:
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
