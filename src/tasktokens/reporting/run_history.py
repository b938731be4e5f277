"""What a run has logged, as curves over the steps of all its stages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

from tasktokens.training.log import Row, minutes_of
from tasktokens.utils.pictures import Curve


class RunHistory:
    """Rows of a ``metrics.jsonl``, with steps counted over all stages.

    Attributes:
        rows: of training. validations: of the evaluations in between.
        minutes: of training; None where no row says.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        training: dict[tuple[str, int], Row] = {}
        validations: dict[tuple[str, int], Row] = {}
        for row in rows:
            if "stage" in row:  # a resumed run may log a step again
                (validations if "validation" in row else training)[row["stage"], row["step"]] = row
        self.rows, self.validations = list(training.values()), list(validations.values())
        self.minutes = minutes_of(rows)

    def stages(self) -> list[tuple[str, int]]:
        """Name and number of steps of each stage."""
        groups = groupby(self.rows, lambda row: row["stage"])
        return [(stage, max(row["step"] for row in rows)) for stage, rows in groups]

    def curves(self, key: str) -> Iterator[Curve]:
        """A curve for each stage that logged ``key``; NaN, a gap, at rows where it had no value."""
        return self._curves([(row["stage"], row["step"], _or_nan(row, key)) for row in self.rows])

    def validation(self, task: str, metric: str) -> Iterator[Curve]:
        """A curve for each stage whose validations have a task's metric."""
        values = [(row["stage"], row["step"], row["validation"].get(task, {}).get(metric)) for row in self.validations]
        return self._curves(values)

    def all(self, key: str) -> list[float]:
        """The values of ``key``."""
        return [row[key] for row in self.rows if row.get(key) is not None]

    def _curves(self, points: Sequence[tuple[str, int, float | None]]) -> Iterator[Curve]:
        start = 0
        for stage, steps in self.stages():
            of_stage = [(step, value) for of, step, value in points if of == stage and value is not None]
            if not all(math.isnan(value) for _, value in of_stage):
                yield stage, start, [start + step for step, _ in of_stage], [value for _, value in of_stage]
            start += steps


def _or_nan(row: Row, key: str) -> float | None:
    value = row.get(key)
    return math.nan if value is None and key in row else value
