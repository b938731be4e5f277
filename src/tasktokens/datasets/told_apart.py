"""The labels of a data folder, told apart by its table: those that count in full, and those that were discovered."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from tasktokens.data.ids import match_id, nearest_id
from tasktokens.datasets.index import DiscoveredLabel, LabelFile
from tasktokens.datasets.provenance import DISCOVERED, PROVENANCE, ProvenanceRow, read_provenance
from tasktokens.errors import DataError
from tasktokens.tasks import Task
from tasktokens.utils.file_kinds import CONFIDENCE

COMPLETED = "completed"
"""The folder of what was discovered of labels in which not all classes were labelled."""

LabelFiles = Mapping[str, Mapping[str, LabelFile]]


class ToldApart(NamedTuple):
    """The labels of a folder by what they are worth.

    Attributes:
        labels: given, accepted and corrected ones, by task and id.
        discovered: by task and id.
        provenance: rows of the table by task and id, rejected labels among them.
    """

    labels: dict[str, dict[str, LabelFile]]
    discovered: dict[str, dict[str, DiscoveredLabel]]
    provenance: dict[str, dict[str, ProvenanceRow]]


def told_apart(
    root: Path, labels: LabelFiles, images: Collection[str], list_files: Callable[[Path], Mapping[str, Path]]
) -> ToldApart:
    """Tell the label files of a folder apart by its ``provenance.csv``; without one all of them are given.

    Args:
        list_files: of a folder, by id.

    Raises:
        DataError: the table cannot be read, calls a label of no image discovered (it would pass for a given one under
            another name), or a discovered label has no confidence.
    """
    table = read_provenance(root)
    rows: dict[str, dict[str, ProvenanceRow]] = {}
    for row in table.values():
        if row.task in labels and (id := _image_of(row, images, root)) is not None:
            other = rows.setdefault(row.task, {}).setdefault(id, row)
            if other is not row:
                raise DataError(
                    f"{root / PROVENANCE} says twice where the label of task '{row.task}' for '{id}' comes from; keep "
                    f"one of the two rows"
                )
    counted = {name: dict(files) for name, files in labels.items()}
    discovered: dict[str, dict[str, DiscoveredLabel]] = {}
    for name, of_task in rows.items():
        confidences: Mapping[str, Path] | None = None
        for id, row in of_task.items():
            if row.trusted or id not in counted[name]:
                continue
            file = counted[name].pop(id)
            if row.source == "discovered":
                confidences = list_files(root / CONFIDENCE / name) if confidences is None else confidences
                discovered.setdefault(name, {})[id] = DiscoveredLabel(
                    file, _confidence(confidences, id, file, root / CONFIDENCE / name)
                )
    return ToldApart(counted, discovered, rows)


def completions(
    root: Path, tasks: Mapping[str, Task], labels: LabelFiles, list_files: Callable[[Path], Mapping[str, Path]]
) -> dict[str, dict[str, DiscoveredLabel]]:
    """What was discovered of labels in which only some classes were labelled: ``completed/TASK/ID.png``.

    Raises `DataError` for one without its confidence.
    """
    found: dict[str, dict[str, DiscoveredLabel]] = {}
    for name, files in labels.items():
        place = root / COMPLETED / name
        if not place.is_dir():
            continue
        read, confidences = tasks[name].reading(()).read, list_files(root / CONFIDENCE / name)
        for id, path in list_files(place).items():
            if id in files and files[id].labelled:
                label = LabelFile(path, read, plain=True)
                confidence = _confidence(confidences, id, label, root / CONFIDENCE / name)
                found.setdefault(name, {})[id] = DiscoveredLabel(label, confidence)
    return found


def _image_of(row: ProvenanceRow, images: Collection[str], root: Path) -> str | None:
    """The image that a row means; None for a given label of an image that has gone, which changes nothing."""
    id = match_id(row.id, images)
    if id is None and row.source != "given":
        table = PROVENANCE if (root / PROVENANCE).is_file() else DISCOVERED
        raise DataError(
            f"{root / table}: no image has the id '{row.id}' of a {row.source} label{nearest_id(row.id, images)}; "
            f"correct it, or remove the row together with the label"
        )
    return id


def _confidence(confidences: Mapping[str, Path], id: str, file: LabelFile, folder: Path) -> Path:
    found = confidences.get(id)
    if found is None:
        raise DataError(
            f"{file.path} is a discovered label without its confidence {folder / id}.png; put it back, or remove "
            f"the label"
        )
    return found
