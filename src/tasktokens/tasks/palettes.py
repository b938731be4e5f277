"""Whether palette files of one task agree on what an index means: `check` compares them by their colours."""

from __future__ import annotations

import numpy as np

from tasktokens.tasks.examine import Array, Sums, Suspicion
from tasktokens.tasks.stored import StoredLabel

PALETTES = "palettes"
"""The key of the sums, (256, 8): see `palette_sums`."""


def palette_sums(stored: StoredLabel) -> dict[str, Array]:
    """For each index that a palette file uses: 1, its colour, the squares of that, and whether it shares its colour.

    Added over files, they show whether an index always has the same colour: n times the sum of squares is then the
    square of the sum, and otherwise more.
    """
    if stored.palette is None:
        return {}
    used = np.unique(stored.array[stored.valid])
    colours = stored.palette[used].astype(np.int64)
    _, same, counts = np.unique(colours, axis=0, return_inverse=True, return_counts=True)
    sums = np.zeros((256, 8), np.int64)
    sums[used] = np.column_stack([np.ones(len(used), np.int64), colours, colours**2, counts[same.ravel()] > 1])
    return {PALETTES: sums}


def judge_palettes(sums: Sums) -> list[Suspicion]:
    """An error where an index has several colours, or where files give one colour different indices."""
    if PALETTES not in sums:
        return []
    table = sums[PALETTES]
    count, total, squares, shared = table[:, :1], table[:, 1:4], table[:, 4:7], table[:, 7]
    several = np.flatnonzero((count * squares != total**2).any(axis=1)).tolist()
    way_out = "list the classes' colours under `colours:`, and the colours will count instead of the indices"
    if several:
        names = ", ".join(map(str, several[:5])) + (", ..." if len(several) > 5 else "")
        text = (
            f"the palettes of the files differ: index {names} has one colour in some files and another in others, "
            f"and so means different classes; {way_out}"
        )
        return [Suspicion("error", "palettes-differ", text)]
    found: dict[tuple[int, ...], int] = {}
    for index in np.flatnonzero(count[:, 0]).tolist():
        colour = tuple((total[index] // count[index]).tolist())
        # Two indices of one colour in the same file are two classes that happen to look alike.
        if colour in found and not shared[index] and not shared[found[colour]]:
            text = (
                f"the palettes of the files differ: the colour {list(colour)} has the index {found[colour]} in some "
                f"files and {index} in others, and so means different classes; {way_out}"
            )
            return [Suspicion("error", "palettes-differ", text)]
        found.setdefault(colour, index)
    return []
