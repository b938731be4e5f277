"""``tasktokens review import``: what came back from an annotation tool, checked as a whole before anything changes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tasktokens.datasets.formats import FORMATS, Annotations, Archive, Entry, open_archive, usable_format
from tasktokens.datasets.formats.base import ABSENT, VOID, Decision
from tasktokens.errors import DataError, did_you_mean
from tasktokens.review.decisions import PLACE, STAGED, open_decisions
from tasktokens.review.folder import Key, ReviewFolder, vocabulary
from tasktokens.review.maps import MAPS, Keep, is_maps, read_maps
from tasktokens.review.plan import Given, ImportPlan, ReturnedLabel, Reviewed
from tasktokens.tasks.base import Array
from tasktokens.utils.progress import track


@dataclass(frozen=True)
class Imported:
    """What an import did.

    Attributes:
        labels: each label that came back.
        format: in which format.
        kept_given: given labels that came back changed and were left as they are.
    """

    labels: tuple[Reviewed, ...]
    format: str
    kept_given: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The summary: a line per task, then one per corrected label."""
        lines = []
        for task in dict.fromkeys(each.task for each in self.labels):
            of_task = [each for each in self.labels if each.task == task]
            counts = {word: [each for each in of_task if each.outcome == word] for word in
                      ("accepted", "corrected", "rejected", "given", "open")}  # fmt: skip
            corrected = counts["corrected"]
            changed, pixels = sum(each.changed for each in corrected), sum(each.pixels for each in corrected)
            share = f" ({changed} of {pixels} pixels, {changed / pixels:.2%})" if corrected else ""
            parts = [f"{len(counts['accepted'])} accepted", f"{len(corrected)} corrected{share}",
                     f"{len(counts['rejected'])} rejected"]  # fmt: skip
            parts += [f"{len(counts['open'])} not reviewed"] if counts["open"] else []
            parts += [f"{len(counts['given'])} given, unchanged"] if counts["given"] else []
            lines.append(f"{task}: {', '.join(parts)}")
        lines += [
            f"  {each.task} {each.id}: {each.changed} of {each.pixels} pixels corrected "
            f"({each.changed / each.pixels:.2%})"
            for each in self.labels
            if each.outcome == "corrected"
        ]
        if self.kept_given:
            lines.append(f"given labels that came back changed were kept: {', '.join(self.kept_given)}")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def import_labels(
    folder: str | Path,
    annotations: str | Path,
    format: str | None = None,
    task: str | None = None,
    given: Given = "refuse",
    unchanged: Literal["accept", "open"] = "accept",
    quiet: bool = False,
) -> Imported:
    """Take over what a person decided in an annotation tool: all of it, or nothing.

    A label that comes back as it was is accepted, a changed one corrected; pixels without an annotation become void.
    Formats that know decisions (tags of CVAT, choices of Label Studio) can reject, and say what nobody has seen yet.

    Args:
        folder: the data folder that was exported.
        annotations: a zip, folder or file.
        format: by default told from the content.
        task: of the annotations, where the folder has several tasks with classes.
        given: of given labels that came back changed: ``refuse`` the file, ``keep`` the given ones, or ``replace``
            them.
        unchanged: ``accept`` labels that came back as they were, or leave them ``open``.
        quiet: do not show progress.

    Raises:
        DataError: the file is damaged, of another data set, or of no known format; the folder is then as it was.
        RunExistsError: another process reviews the folder.

    Examples:
        >>> from tasktokens.review.exporting import export_labels
        >>> path = export_labels("filled", "coco", "annotations.zip", task="semseg", quiet=True).path
        >>> import_labels("filled", path, task="semseg", quiet=True).lines()
        ['semseg: 4 accepted, 0 corrected, 0 rejected']
    """
    root, path = Path(folder), Path(annotations)
    with open_archive(path) as archive, open_decisions(root) as decisions:
        opened = decisions.folder
        name = _format_of(archive, format)
        place = opened.root / PLACE
        made = not place.exists()
        place.mkdir(exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=STAGED, dir=place))
        try:
            plan = ImportPlan(opened, staged, given, unchanged)
            returned = _returned(archive, name, opened, task)
            for key, decision, label in track(list(returned), "importing", not quiet):
                plan.add(key, decision, label)
            plan.check()
            decisions.decide(plan.changes)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
            if made and not any(place.iterdir()):
                place.rmdir()
        return Imported(tuple(plan.reviewed), name, tuple(plan.kept))


def _format_of(archive: Archive, name: str | None) -> str:
    if name is not None:
        if name != MAPS:
            usable_format(name)
        return name
    if is_maps(archive):
        return MAPS
    found = [each for each in FORMATS if FORMATS[each]().recognises(archive)]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"{archive.path} could be {' or '.join(found)}; name one with --format")
    raise DataError(
        f"{archive.path} is of no format that is known ({', '.join([*FORMATS, MAPS])}): expected a whole export of "
        f"one of them; if it is one, name it with --format"
    )


# -- what came back ----------------------------------------------------------------------------------------------------
def _returned(
    archive: Archive, name: str, folder: ReviewFolder, task: str | None
) -> Iterator[tuple[Key, Decision, ReturnedLabel]]:
    """Each label that an archive has something to say about, what was decided, and what it is now."""
    if name == MAPS:
        for key, decision, keep in read_maps(archive, folder):
            yield key, decision, _as_it_is if keep is None else _Masked(keep)
        return
    of = folder.class_task(task)
    annotations = usable_format(name).read(archive)
    table = _class_numbers(annotations, folder, of, archive)
    seen: dict[str, str] = {}
    for entry in annotations.entries:
        id = folder.match(entry.name, str(archive.path))
        if id in seen:
            raise DataError(f"{archive.path} has annotations of '{id}' twice ('{seen[id]}', '{entry.name}'); keep one")
        seen[id] = entry.name
        key = Key(id, of)
        if key not in folder.labels:
            raise DataError(f"{archive.path} has annotations of '{id}', which has no label of '{of}' to review")
        yield key, entry.decision, _Drawn(entry, table)


def _class_numbers(annotations: Annotations, folder: ReviewFolder, task: str, archive: Archive) -> Array:
    """The task's class number, or `VOID`, of each label of a file."""
    words = vocabulary(folder.tasks[task])
    numbers = {name: number for number, name in enumerate(words.names)} | {words.void: VOID}
    for name in annotations.names:
        if name not in numbers:
            raise DataError(
                f"{archive.path} has the class '{name}'{did_you_mean(name, numbers)}, which task '{task}' of "
                f"{folder.root} does not have; found there: {', '.join(words.names)}"
            )
    return np.array([*(numbers[name] for name in annotations.names), VOID, VOID], np.int16)


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Classes as a person has drawn them."""

    entry: Entry
    table: Array

    def __call__(self, value: Array, valid: Array) -> tuple[Array, Array] | None:
        drawn = self.entry.draw((valid.shape[0], valid.shape[1]))
        if (drawn == ABSENT).all():
            return None
        classes = self.table[drawn]  # the two last places are those of `ABSENT` and `VOID`
        kept = classes != VOID
        return np.where(kept, classes, 0).astype(value.dtype)[None], kept


@dataclass(frozen=True, eq=False)
class _Masked:
    """The values that are there, in fewer pixels."""

    keep: Keep

    def __call__(self, value: Array, valid: Array) -> tuple[Array, Array]:
        return value, valid & self.keep((valid.shape[0], valid.shape[1]))


def _as_it_is(value: Array, valid: Array) -> tuple[Array, Array]:
    return value, valid
