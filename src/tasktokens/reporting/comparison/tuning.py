"""Tuning: a comparison whose data sets differ in settings, such as learning rates, chooses those of each method."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from tasktokens.errors import ConfigError
from tasktokens.reporting.comparison.suite import Suite, check_suite
from tasktokens.utils.safe_io import read_json


def with_best_settings(suite: Suite, results: str | Path) -> Suite:
    """The suite, in which each method has the settings that were best for it in another comparison.

    A method that was not tuned itself has those of the method whose teacher it is, or that it goes on from.
    Raises `ConfigError` where the results do not fit.
    """
    best = best_settings(Path(results))
    for name in list(best):
        for before in suite.chain(name) if name in suite.define else ():
            best.setdefault(before, best[name])  # the teacher of a method that was tuned with it
    found = dict(suite.define)
    for name, method in found.items():
        tuned = [best[each] for each in reversed(suite.chain(name)) if each in best]
        if tuned:
            found[name] = method.model_copy(update={"set": method.set | tuned[0]})
    without = [name for name in suite.methods if not any(each in best for each in suite.chain(name))]
    if without:
        raise ConfigError(f"{results} has no row with delta_mtl of {', '.join(without)}; tune every method, or none")
    changed = suite.model_copy(update={"define": found})
    check_suite(changed)
    return changed


def best_settings(results: Path) -> dict[str, dict[str, Any]]:
    """By method the settings of the data set on which its mean ``delta_mtl`` over the seeds is the largest.

    Raises `ConfigError` where the file is no comparison of several data sets on held-out images.
    """
    values = read_json(results)
    suite = values.get("suite") if isinstance(values, Mapping) else None
    data = suite.get("data", {}) if isinstance(suite, Mapping) else {}
    if len(data) < 2 or suite.get("split") != "holdout":  # type: ignore[union-attr]
        raise ConfigError(
            f"{results} must be the results.json of a comparison of several `data`, settings to choose from, that was "
            f"measured on held-out images (split: holdout)"
        )
    changes: dict[tuple[str, str], list[float]] = {}
    for row in values["rows"]:
        if row.get("delta_mtl") is not None:
            changes.setdefault((row["method"], row["data"]), []).append(row["delta_mtl"])
    best: dict[str, str] = {}
    for method, name in sorted(changes, key=lambda key: fmean(changes[key])):
        best[method] = name
    return {method: {key: v for key, v in data[name].items() if key != "steps"} for method, name in best.items()}
