"""Δ_MTL: mean signed relative change against a reference (Maninis et al., CVPR 2019)."""

from __future__ import annotations

import math
from collections.abc import Mapping

_LEAST = 1e-9
"""Replaces a metric of 0 before the logarithm."""


def delta_mtl(values: Mapping[str, float], reference: Mapping[str, float], higher: Mapping[str, bool]) -> float:
    """Mean over tasks of the relative change in percent, positive where better.

    ``values``, ``reference`` and ``higher`` (is higher better?) hold one metric per task under the same keys. The
    literature's reference is the single-task model trained on the same partial labels. NaN where a value is NaN or
    infinite, a reference is 0, or there is no task.

    Examples:
        >>> delta_mtl({"depth": 0.25}, {"depth": 0.5}, {"depth": False})
        50.0
    """
    if not _comparable(values, reference) or 0 in reference.values():
        return math.nan
    changes = [
        100 * (values[task] - reference[task]) / reference[task] * (1 if higher[task] else -1) for task in reference
    ]
    return sum(changes) / len(changes)


def mean_improvement(values: Mapping[str, float], reference: Mapping[str, float], higher: Mapping[str, bool]) -> float:
    """The geometric counterpart of `delta_mtl`, for metrics that are not negative; in percent, positive where better.

    Which of two networks is better by it does not depend on the reference, where Δ_MTL gives a task the more weight the
    worse its reference is: against an early network the one metric that began near 0 would decide alone. NaN where a
    value is NaN or infinite, or there is no task.

    Examples:
        >>> round(mean_improvement({"depth": 0.25}, {"depth": 0.5}, {"depth": False}), 6)
        100.0
    """
    if not _comparable(values, reference):
        return math.nan
    gains = [
        (1 if higher[task] else -1) * math.log(max(values[task], _LEAST) / max(reference[task], _LEAST))
        for task in reference
    ]
    return 100 * math.expm1(sum(gains) / len(gains))


def _comparable(values: Mapping[str, float], reference: Mapping[str, float]) -> bool:
    return bool(reference) and all(math.isfinite(values[task]) and math.isfinite(reference[task]) for task in reference)
