"""Classes that were labelled in some images only: what a pixel outside of them may still be.

Where people outlined cats alone, a pixel that is no cat is one of the other classes, nobody said which. Its label value
is a code above all class ids: ``len(classes) + k`` stands for "one of the classes that set k does not hold", where set
k lists the classes that were labelled. Void is another matter: such a pixel is not valid, and has no value at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tasktokens.errors import ConfigError
from tasktokens.tasks.class_settings import class_index
from tasktokens.tasks.mirror import Pairs

Array = npt.NDArray[Any]
Sets = tuple[tuple[int, ...], ...]
"""Sets of classes that were labelled in some images, each sorted, in order of the codes."""


def parse_labelled(value: Any, names: tuple[str, ...]) -> Sets:
    """The setting ``labelled``: names of classes, or a list of several such lists. Raises `ConfigError`."""
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or not value:
        raise ConfigError(
            f"'labelled' must be a list of the classes that were labelled, such as [cat], found {value!r}"
        )
    lists = value if all(isinstance(each, list | tuple) for each in value) else [value]
    return tuple(labelled_set(each, names) for each in lists)


def labelled_set(value: Iterable[Any], names: tuple[str, ...]) -> tuple[int, ...]:
    """Names of classes as their sorted numbers. Raises `ConfigError` for a name that is no class, and for none."""
    numbers = tuple(sorted({class_index("labelled", each, names) for each in value}))
    if not numbers:
        raise ConfigError("'labelled' names no class; name those that were labelled, or leave it out where all were")
    return numbers


def wrong_sets(sets: Sets, reads: int | None, count: int) -> str | None:
    """What is wrong with such sets of a task of ``count`` classes."""
    if any(not 0 <= number < count for each in sets for number in each):
        return f"'labelled' must name classes 0 to {count - 1}, found {[list(each) for each in sets]}"
    if any(len(each) == count for each in sets):
        return "'labelled' names all classes: leave it out, for then nothing is missing"
    if count + len(sets) > 256:
        return f"at most 256 classes and sets of labelled classes in all, found {count} and {len(sets)}"
    return None if reads is None or reads < len(sets) else f"there are {len(sets)} sets of labelled classes"


def with_mirrored(sets: Sets, mirror: Pairs) -> Sets:
    """The sets, and those that mirrored images have, so that a mirrored label is one of them too."""
    other = {a: b for pair in mirror for a, b in (pair, pair[::-1])}
    found = dict.fromkeys(sets)
    for each in sets:
        found.setdefault(tuple(sorted(other.get(number, number) for number in each)))
    return tuple(found)


@cache
def mirrored_values(sets: Sets, mirror: Pairs, count: int) -> Tensor:
    """The value (classes + sets,) that each value has in a mirrored image."""
    other = {a: b for pair in mirror for a, b in (pair, pair[::-1])}
    of_sets = [sets.index(tuple(sorted(other.get(number, number) for number in each))) for each in sets]
    return torch.tensor([*(other.get(number, number) for number in range(count)), *(count + k for k in of_sets)])


def rest(labelled: Sequence[int], count: int) -> list[int]:
    """The classes that were not labelled."""
    return [number for number in range(count) if number not in labelled]


@cache
def rest_table(sets: Sets, count: int) -> Array:
    """(sets, classes) bool: what a pixel of each code may be."""
    return np.array([[number not in each for number in range(count)] for each in sets], bool).reshape(-1, count)


def coded(ids: Array, labelled: Sequence[int], code: int, count: int) -> Array:
    """Class ids of a file in which only some classes were labelled: all others become the code."""
    known = np.zeros(count, bool)
    known[list(labelled)] = True
    return np.where(known[ids], ids, np.uint8(code)).astype(np.uint8)


def marginal_loss(log_p_BKHW: Tensor, target_B1HW: Tensor, sets: Sets) -> Tensor:
    """Minus the log of the probability of what is known of each pixel, (B, 1, H, W).

    Of a class that is its own probability; of a code the sum over the classes that were not labelled,
    ``-logsumexp(log p)`` over them, which is stable however small they are. Source: the likelihood of partial labels,
    as in Shi et al., *Marginal loss and exclusion loss for partially supervised multi-organ segmentation* (Medical
    Image Analysis 2021, https://arxiv.org/abs/2007.03868).

    Examples:
        >>> log_p = torch.tensor([0.5, 0.25, 0.25]).log().view(1, 3, 1, 1)
        >>> marginal_loss(log_p, torch.tensor([[[[3]]]]), ((0,),)).exp().item()
        2.0
    """
    count, target = log_p_BKHW.shape[1], target_B1HW.long()
    loss = -log_p_BKHW.gather(1, torch.where(target < count, target, 0))
    for number, labelled in enumerate(sets):
        outside = log_p_BKHW[:, rest(labelled, count)].logsumexp(dim=1, keepdim=True)
        loss = torch.where(target == count + number, -outside, loss)
    return loss


def possible(prediction_B1HW: Tensor, target_B1HW: Tensor, sets: Sets, count: int) -> Tensor:
    """Where a predicted class is the label's, or one of those that its code leaves open, (B, 1, H, W) bool."""
    target, prediction = target_B1HW.long(), prediction_B1HW.long()
    table = torch.from_numpy(rest_table(sets, count)).to(target.device)
    code = (target - count).clamp(min=0)
    return torch.where(target < count, prediction == target, table[code, prediction])
