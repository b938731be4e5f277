"""Where each label of a data folder comes from: ``provenance.csv``, beside ``dataset.yaml``.

    id,task,source,by,model,views,confidence,coverage,disagreement,date
    kitchen/0001,semseg,given,,,,,,,
    kitchen/0001,depth,discovered,network,9f86d0…,"[[1.0, false], [1.25, true]]",0.8312,0.6420,0.0511,2026-11-28
    kitchen/0002,depth,corrected,network,9f86d0…,"[[1.0, false], …]",0.4100,1.0000,0.2034,2026-12-02T09:30:00Z

A label file that the table does not list was given, by whoever put it there. ``discover`` writes the table and a review
changes it; every reader of folders takes it: labels that were given, accepted or corrected are labels like any other,
discovered ones are learned from by their confidence and measured on nowhere, rejected ones are absent, whatever files
lie there. Folders of earlier versions have ``discovered.csv`` instead, which lists discovered labels alone.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from tasktokens.errors import DataError, did_you_mean
from tasktokens.utils.atomic import atomically
from tasktokens.utils.csv_table import read_csv

PROVENANCE = "provenance.csv"
"""The table's name."""
DISCOVERED = "discovered.csv"
"""The table of discovered labels in folders of earlier versions."""

Source = Literal["given", "discovered", "accepted", "corrected", "rejected"]
"""What a label is: ``given`` as data; ``discovered`` by a network (or brought by other folders) and seen by nobody;
then what a person decided of a discovered one: ``accepted`` as it is, ``corrected`` (its file is the person's), or
``rejected``: the label is absent."""
SOURCES: tuple[Source, ...] = get_args(Source)
"""All of them."""
TRUSTED: tuple[Source, ...] = ("given", "accepted", "corrected")
"""Labels with weight 1, which results may be measured on."""
DECIDED: tuple[Source, ...] = ("accepted", "corrected", "rejected")
"""What only a person can say of a label."""


@dataclass(frozen=True)
class ProvenanceRow:
    """Where one label comes from.

    Of a given label in which not all classes were labelled, and whose open pixels were discovered
    (``completed/TASK/ID.png``), the columns after ``source`` are those of that discovery.

    Attributes:
        id: of the image.
        task: its name.
        source: one of `SOURCES`.
        by: who discovered it: ``network``, or the folders that it was brought from; empty for a given label.
        model: SHA-256 of the weights file of the network that discovered it; else empty.
        views: how that network saw the image, as JSON: a list of [zoom, mirrored]; else empty.
        confidence: mean over all pixels of the image when it was discovered, 0 to 1; None: unknown.
        coverage: share of the image's pixels that are not void in the label's file, 0 to 1; None: unknown.
        disagreement: mean distance of the views' predictions from each other, 0 to 1; None: there was one view.
        date: ISO 8601, of the discovery (a day), or of the person's decision (with the time); empty: unknown.

    Examples:
        >>> row = ProvenanceRow("kitchen/0001", "depth", "discovered", by="network", confidence=0.8)
        >>> row.decided("accepted", date="2026-12-02").source, row.trusted
        ('accepted', False)
    """

    id: str
    task: str
    source: Source
    by: str = ""
    model: str = ""
    views: str = ""
    confidence: float | None = None
    coverage: float | None = None
    disagreement: float | None = None
    date: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """(id, task)."""
        return self.id, self.task

    @property
    def trusted(self) -> bool:
        """Whether the label counts in full and may be measured on: `TRUSTED`."""
        return self.source in TRUSTED

    def decided(self, source: Source, coverage: float | None = None, date: str | None = None) -> ProvenanceRow:
        """The row after a person's decision; who discovered the label stays known.

        Args:
            source: ``accepted``, ``corrected`` or ``rejected``, or ``discovered`` to take a decision back.
            coverage: of the corrected file; None: as before.
            date: default: now.

        Raises:
            ValueError: the label was given, which no review changes, or would become so.
        """
        if self.source == "given" or source == "given":
            raise ValueError(f"the {self.source} label of task '{self.task}' for '{self.id}' cannot become {source}")
        changed = replace(self, source=source, date=now() if date is None else date)
        return changed if coverage is None else replace(changed, coverage=coverage)


Table = Mapping[tuple[str, str], ProvenanceRow]
"""Rows by (id, task), in the order of the file."""
COLUMNS = tuple(field.name for field in fields(ProvenanceRow))


def now() -> str:
    """The time, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_provenance(folder: Path) -> dict[tuple[str, str], ProvenanceRow]:
    """The table of a data folder; empty for a folder without one, in which every label is given.

    Raises:
        DataError: the table cannot be read, holds an unknown source or a number out of range, or lists a label twice;
            the line is named. Also where ``discover`` wrote the folder and its table is gone: its labels would pass for
            given ones.
    """
    if (folder / PROVENANCE).is_file():
        return _read(folder / PROVENANCE)
    if (folder / DISCOVERED).is_file():
        return _read_discovered(folder / DISCOVERED)
    if (folder / "summary.json").is_file() and (folder / "confidence").is_dir():
        raise DataError(
            f"{folder} was written by discover and has no {PROVENANCE}, which tells given labels from discovered ones; "
            f"put it back, or discover again"
        )
    return {}


def write_provenance(folder: Path, rows: Iterable[ProvenanceRow]) -> None:
    """Write the table in one piece, in the order of the rows. Raises `DataError` for a label that comes twice."""
    write_unique(folder, _each_once(rows))


def write_unique(folder: Path, rows: Iterable[ProvenanceRow]) -> None:
    """`write_provenance` of rows that are known to be of different labels; memory does not grow with their number."""
    with atomically(folder / PROVENANCE) as new, new.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow(_text(getattr(row, name)) for name in COLUMNS)


def _each_once(rows: Iterable[ProvenanceRow]) -> Iterator[ProvenanceRow]:
    seen: set[tuple[str, str]] = set()
    for row in rows:
        if row.key in seen:
            raise DataError(f"two rows are of the label of task '{row.task}' for '{row.id}'; keep one of them")
        seen.add(row.key)
        yield row


def update_provenance(folder: Path, rows: Iterable[ProvenanceRow]) -> dict[tuple[str, str], ProvenanceRow]:
    """Put rows in place of those of the same labels, new ones at the end, and return the whole table.

    One process at a time (`tasktokens.utils.lock.only_writer`). Raises `DataError` as `read_provenance`.
    """
    table = read_provenance(folder) | {row.key: row for row in rows}
    write_provenance(folder, table.values())
    return table


def count_sources(rows: Iterable[ProvenanceRow]) -> dict[str, Counter[Source]]:
    """How many labels of each source there are, by task.

    Examples:
        >>> count_sources([ProvenanceRow("a", "depth", "given"), ProvenanceRow("b", "depth", "given")])
        {'depth': Counter({'given': 2})}
    """
    counts: dict[str, Counter[Source]] = {}
    for row in rows:
        counts.setdefault(row.task, Counter())[row.source] += 1
    return counts


def _text(value: str | float | None) -> str:
    """Numbers with four digits, which the same discovery writes alike on every machine."""
    return "" if value is None else value if isinstance(value, str) else f"{value:.4f}"


def _read(path: Path) -> dict[tuple[str, str], ProvenanceRow]:
    table: dict[tuple[str, str], ProvenanceRow] = {}
    for number, cells in read_csv(path, "the provenance of labels", ["id", "task", "source"]).items():
        source = next((each for each in SOURCES if each == cells["source"].strip()), None)
        if source is None:
            near = did_you_mean(cells["source"], SOURCES)
            raise DataError(
                f"{path} row {number}: source must be one of {', '.join(SOURCES)}, found '{cells['source']}'{near}"
            )
        values: dict[str, Any] = {name: cells.get(name, "").strip() for name in ("by", "model", "views", "date")}
        for name in ("confidence", "coverage", "disagreement"):
            values[name] = _number(cells.get(name, ""), f"{path} row {number}, column '{name}'")
        row = ProvenanceRow(cells["id"], cells["task"], source, **values)
        if row.key in table:
            raise DataError(f"{path} row {number} is of a label that is listed before; keep one of the two rows")
        table[row.key] = row
    return table


def _read_discovered(path: Path) -> dict[tuple[str, str], ProvenanceRow]:
    """The table of an earlier version: id, task, and mostly sure, confidence, source (who discovered it)."""
    rows = read_csv(path, "the table of discovered labels", ["id", "task"])
    table = {}
    for number, cells in rows.items():
        confidence, coverage = (
            _number(cells.get(name, ""), f"{path} row {number}, column '{name}'") for name in ("confidence", "sure")
        )
        row = ProvenanceRow(
            cells["id"], cells["task"], "discovered", cells.get("source", ""), confidence=confidence, coverage=coverage
        )
        table[row.key] = row
    return table


def _number(cell: str, where: str) -> float | None:
    if not cell.strip():
        return None
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise DataError(f"{where} must be a number from 0 to 1 or empty, found {cell!r}")
    return value
