"""What `tasktokens check` found: findings and statistics, the same whatever the number of processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tasktokens.tasks.examine import Bar, Severity
from tasktokens.utils.strict_json import finite

SHOWN = 20
"""Findings of a code and task that are kept; the others are counted, so that a report has bounded size."""


@dataclass(frozen=True)
class Finding:
    """Something wrong.

    Attributes:
        severity: ``error``: training would fail or learn nonsense; ``warning``: it may be meant.
        code: what is wrong, such as ``unreadable`` (docs/reference/check.md lists them).
        message: what was expected, what was found, what to do.
        task, id, path: where, if it concerns a certain one.
    """

    severity: Severity
    code: str
    message: str
    task: str | None = None
    id: str | None = None
    path: str | None = None


@dataclass(frozen=True)
class TaskReport:
    """The labels of a task.

    Attributes:
        kind: its kind.
        labelled: images with a label file, by split.
        examined: labels that were read without an error.
        failed: labels that could not be used.
        sizes: labels by "width x height", the most frequent first, at most ten.
        void: share of the pixels that are void.
        numbers: values by name, with their unit.
        histogram: shares of classes or of ranges of values.
        sources: labels by where they come from, such as ``discovered``, which the other figures leave out.
    """

    kind: str
    labelled: Mapping[str, int]
    examined: int = 0
    failed: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)
    void: float | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)
    histogram: tuple[Bar, ...] = ()
    sources: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """A data set as `tasktokens check` sees it.

    Attributes:
        root: its folder, or the names of its parts.
        images: number of images listed.
        examined: images that were read, whatever came of it.
        splits: images by split.
        sizes: images by "width x height", the most frequent first, at most ten.
        tasks: statistics by task.
        findings: errors first; at most `SHOWN` of a code and task.
        counts: number of findings by code, all of them.
        totals: number of findings by severity, all of them.
    """

    root: str
    images: int = 0
    examined: int = 0
    splits: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    tasks: Mapping[str, TaskReport] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    totals: Mapping[str, int] = field(default_factory=dict)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The kept findings that stop a run."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not self.totals.get("error", 0)

    def to_json(self) -> dict[str, Any]:
        """Plain values for machines; ``version`` changes with the form. Numbers that are not finite become null."""
        values = asdict(self)
        for task in values["tasks"].values():
            task["histogram"] = [{"label": bar[0], "share": bar[1]} for bar in task["histogram"]]
        report: dict[str, Any] = finite({"version": 1, "ok": self.ok, **values})
        return report


class Findings:
    """Collects findings, bounded for each code and task."""

    def __init__(self) -> None:
        self.kept: list[Finding] = []
        self.counts: Counter[str] = Counter()
        self.totals: Counter[str] = Counter(error=0, warning=0)
        self._seen: Counter[tuple[str, str | None]] = Counter()

    def add(self, *findings: Finding) -> None:
        """Count them, and keep the first of a kind."""
        for finding in findings:
            self.counts[finding.code] += 1
            self.totals[finding.severity] += 1
            self._seen[finding.code, finding.task] += 1
            if self._seen[finding.code, finding.task] <= SHOWN:
                self.kept.append(finding)

    def sorted(self) -> tuple[Finding, ...]:
        """Errors first, else in the order of the data."""
        return tuple(sorted(self.kept, key=lambda finding: finding.severity != "error"))


def most_frequent(sizes: Counter[tuple[int, int]], most: int = 10) -> dict[str, int]:
    """Counts by "width x height", the most frequent first."""
    ordered = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    return {f"{width}x{height}": count for (width, height), count in ordered[:most]}
