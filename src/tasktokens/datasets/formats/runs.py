"""Run lengths of masks: as CVAT writes them (row by row), as COCO does (column by column), as Label Studio does (bits).

All encode a mask (H, W) bool without loss. Damaged run lengths are a `ValueError`; nothing is allocated that the mask
itself does not need.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def run_lengths(flat_N: Array) -> list[int]:
    """Lengths of the runs of a flat bool array, the first of False (perhaps 0).

    Examples:
        >>> run_lengths(np.array([True, True, False]))
        [0, 2, 1]
    """
    if not flat_N.size:
        return []
    changes = np.flatnonzero(flat_N[1:] != flat_N[:-1]) + 1
    ends = np.concatenate([[0] if flat_N[0] else [], changes, [flat_N.size]])
    lengths: list[int] = np.diff(ends, prepend=0).astype(int).tolist()
    return lengths


def flat_mask(lengths: Sequence[int] | Array, size: int) -> Array:
    """The reverse of `run_lengths` for an array of ``size`` elements. Raises `ValueError` where they do not add up."""
    runs = np.asarray(lengths, dtype=np.int64)
    if runs.ndim != 1 or (runs < 0).any() or (runs > size).any() or int(runs.sum()) != size:
        raise ValueError(f"run lengths must add up to {size} pixels, found {int(runs.sum()) if runs.ndim == 1 else 0}")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)


# -- COCO --------------------------------------------------------------------------------------------------------------
def coco_counts(mask_HW: Array) -> str:
    """Run lengths of the columns in COCO's text form: differences to the length before last, six bits a character.

    Examples:
        >>> coco_counts(np.array([[False, True], [False, True]]))
        '22'
    """
    lengths = run_lengths(mask_HW.ravel(order="F"))
    letters = []
    for place, length in enumerate(lengths):
        value = length - lengths[place - 2] if place > 2 else length
        more = True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            letters.append(chr(48 + (bits | 32 if more else bits)))
    return "".join(letters)


def coco_mask(counts: str | Sequence[int], height: int, width: int) -> Array:
    """A mask (H, W) bool from COCO's counts, text or numbers. Raises `ValueError`."""
    lengths = _lengths_of_text(counts, height * width) if isinstance(counts, str) else counts
    return flat_mask(lengths, height * width).reshape(width, height).T


def _lengths_of_text(text: str, pixels: int) -> list[int]:
    lengths: list[int] = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64 or shift > 60:
            raise ValueError(f"run lengths hold the letter {letter!r} where none can be")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        lengths.append(value + lengths[-2] if len(lengths) > 2 else value)
        value = shift = 0
        if len(lengths) > pixels + 1:
            raise ValueError(f"there are more runs than the {pixels} pixels")
    if shift:
        raise ValueError("run lengths end in the middle of a number")
    return lengths


# -- Label Studio ------------------------------------------------------------------------------------------------------
# Bits, the most significant first: the number of values (32), bits per value less 1 (5), four sizes of a length less 1
# (4 each); then runs: 1 and one value, or 0 and as many values as the length says; a run's length less 1 takes the bits
# of one of the four sizes, whose number (2) stands before it. The values are those of RGBA pixels, all four equal.
_SIZES = (3, 4, 8, 16)
_HEAD = 32 + 5 + 4 * 4
_CHANNELS = 4


def brush_bytes(mask_HW: Array) -> list[int]:
    """A mask in Label Studio's brush format: bytes of runs of RGBA values 0 and 255."""
    lengths = [length * _CHANNELS for length in run_lengths(mask_HW.ravel())]
    bits = [f"{mask_HW.size * _CHANNELS:032b}{7:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    longest = 1 << _SIZES[-1]
    for place, length in enumerate(lengths):
        value = "1" * 8 if place % 2 else "0" * 8
        while length > 0:
            part = min(length, longest)
            number = next(number for number, size in enumerate(_SIZES) if part <= 1 << size)
            bits.append(f"1{number:02b}{part - 1:0{_SIZES[number]}b}{value}")
            length -= part
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def brush_mask(values: Sequence[int], height: int, width: int) -> Array:
    """A mask (H, W) bool from Label Studio's brush format: where the last channel is not 0. Raises `ValueError`."""
    try:
        packed = np.frombuffer(bytes(values), np.uint8)
    except (TypeError, ValueError) as error:
        raise ValueError("a brush must be a list of bytes") from error
    read = _Bits("".join(f"{byte:08b}" for byte in packed.tolist()))
    total, word = read(32), read(5) + 1
    if total != height * width * _CHANNELS:
        raise ValueError(f"a brush has {total} values, its image {height * width * _CHANNELS}")
    sizes = [read(4) + 1 for _ in range(4)]
    out, place = np.zeros(total, bool), 0
    while place < total:
        repeated = read(1)
        end = place + 1 + read(sizes[read(2)])
        if end > total:
            raise ValueError("a brush is longer than its image")
        if repeated:
            out[place:end] = read(word) > 0
            place = end
        while place < end:
            out[place] = read(word) > 0
            place += 1
    return out.reshape(height, width, _CHANNELS)[..., -1]


class _Bits:
    """Numbers from a text of bits, one after the other. Raises `ValueError` past its end."""

    def __init__(self, text: str) -> None:
        self._text, self._place = text, 0

    def __call__(self, count: int) -> int:
        end = self._place + count
        if end > len(self._text):
            raise ValueError("a brush ends before its image is full")
        number = int(self._text[self._place : end], 2)
        self._place = end
        return number
