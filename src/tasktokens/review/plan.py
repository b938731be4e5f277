"""What an import would do, compared label by label; nothing is done before all of it has been checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tasktokens.datasets.formats.base import Decision
from tasktokens.datasets.provenance import ProvenanceRow
from tasktokens.errors import DataError
from tasktokens.review.decisions import decided_row
from tasktokens.review.folder import Key, ReviewFolder
from tasktokens.review.writing import different, write_label
from tasktokens.tasks.base import Array

ReturnedLabel = Callable[[Array, Array], tuple[Array, Array] | None]
"""From the present label (value, valid) to the new one, or None where nothing was drawn."""


Outcome = Literal["accepted", "corrected", "rejected", "open", "given"]
"""What happened to a label: ``open``: nobody has decided; ``given``: it was given, and came back as it was."""

Given = Literal["refuse", "keep", "replace"]
"""What to do where a given label came back changed."""


@dataclass(frozen=True)
class Reviewed:
    """One label that came back.

    Attributes:
        id: the image's.
        task: the task's name.
        outcome: what happened to it.
        changed: how many of its pixels are others now, or void.
        pixels: how many it has.
    """

    id: str
    task: str
    outcome: Outcome
    changed: int
    pixels: int


class ImportPlan:
    """What is to be done; nothing is done yet."""

    def __init__(self, folder: ReviewFolder, staged: Path, given: Given, unchanged: str) -> None:
        self.folder, self.staged, self.given, self.unchanged = folder, staged, given, unchanged
        self.reviewed: list[Reviewed] = []
        self.changes: list[tuple[Key, ProvenanceRow | None, Path | None]] = []
        self.kept: list[str] = []
        self._refused: list[str] = []

    def add(self, key: Key, decision: Decision, label: ReturnedLabel) -> None:
        """Compare a label that came back with the one that lies there."""
        value, valid = self.folder.read(key)
        drawn = label(value, valid)
        # An image without any annotation was not looked at: CVAT lists all images of a task.
        decision = "open" if drawn is None and not decision else decision
        new_value, new_valid = drawn or (value, valid)
        changed = int(different(value, valid, new_value, new_valid).sum())
        outcome = self._outcome(key, decision, changed)
        self.reviewed.append(Reviewed(*key, outcome, changed if outcome == "corrected" else 0, valid.size))
        if outcome in ("open", "given"):
            return
        content = None
        if outcome == "corrected":
            content = write_label(self.folder, key, new_value, new_valid, self.staged / str(len(self.changes)))
        coverage = float(new_valid.mean()) if outcome == "corrected" else None
        self.changes.append((key, decided_row(self.folder, key, outcome, coverage), content))

    def _outcome(self, key: Key, decision: Decision, changed: int) -> Outcome:
        source = self.folder.source(key)
        if source == "given":
            if changed and self.given == "replace" and decision in ("", "accepted"):
                return "corrected"
            if changed or decision == "rejected":
                (self._refused if self.given != "keep" else self.kept).append(key.id)
            return "given"
        if decision in ("open", "rejected"):
            return "open" if decision == "open" else "rejected"
        if changed:
            return "corrected"
        if self.unchanged == "open" and decision != "accepted":
            return "open"
        # What a person corrected before and leaves as it is stays a person's.
        return "corrected" if source == "corrected" else "accepted"

    def check(self) -> None:
        """Raise `DataError` where nothing came back, or given labels would change."""
        if not self.reviewed:
            raise DataError("the file has no annotation of any image; nothing was changed")
        if self._refused:
            raise DataError(
                f"{len(self._refused)} given labels came back changed, such as that of '{self._refused[0]}'; nothing "
                f"was changed: --given keep leaves them as they are, --given replace takes them over"
            )
