"""Δ_MTL: mean signed relative change against a reference (Maninis et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Mapping


def delta_mtl(values: Mapping[str, float], reference: Mapping[str, float], higher: Mapping[str, bool]) -> float:
    """Mean over tasks of the relative change in percent, positive where better.

    ``values``, ``reference`` and ``higher`` (is higher better?) hold one metric a task under the same keys. The
    literature's reference is the single-task model trained on the same partial labels.
    """
    changes = [
        100 * (values[task] - reference[task]) / reference[task] * (1 if higher[task] else -1) for task in reference
    ]
    return sum(changes) / len(changes)
