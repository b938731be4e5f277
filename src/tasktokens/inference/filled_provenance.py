"""Where the labels of a completed folder come from, and the folders whose labels a person has decided of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tasktokens.data.visibility import VisibleLabels
from tasktokens.datasets.provenance import DECIDED, PROVENANCE, ProvenanceRow, now, read_provenance
from tasktokens.errors import RunExistsError
from tasktokens.inference.discovery_summary import Row
from tasktokens.inference.given_labels import GivenLabels
from tasktokens.inference.predictor import Predictor
from tasktokens.utils import strict_json


def provenance(
    given: GivenLabels, labels: VisibleLabels, rows: Sequence[Row], model: str, predictor: Predictor
) -> Iterator[ProvenanceRow]:
    """A row per label of a completed folder, in the order of the images: given, accepted and corrected ones as they
    came, then what was discovered now.

    Args:
        labels: the tasks whose labels were copied, by image.
        rows: of the labels that were discovered.
        model: SHA-256 of the network's weights.
    """
    views = {name: strict_json.dumps(views) for name, views in predictor.views_by_task.items()}
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row[0], []).append(row)
    date = now()[:10]  # the day: a discovery that was interrupted and one that was not write the same table
    for id, copied in labels.items():
        own = {row[1]: row for row in found.get(id, ())}
        for name in copied:
            label = given.index.provenance.get(name, {}).get(id) or ProvenanceRow(id, name, "given")
            if name in own:  # its open pixels were discovered
                _, _, coverage, confidence, _, by, disagreement = own.pop(name)
                label = ProvenanceRow(
                    id, name, label.source, by, model, views[name], confidence, coverage, disagreement, date
                )
            yield label
        for row in own.values():
            yield discovered_row(row, model, views[row[1]], date)


def discovered_row(row: Row, model: str, views: str, date: str) -> ProvenanceRow:
    """Of a label that was discovered now; ``model`` and ``views`` are those of the network, if it was asked."""
    id, name, coverage, confidence, _, by, disagreement = row
    if "network" not in by.split("; "):
        model = views = ""
    return ProvenanceRow(id, name, "discovered", by, model, views, confidence, coverage, disagreement, date)


def check_no_decisions(out: Path) -> None:
    """Raise `RunExistsError` where a folder holds what a person has decided, whatever ``--overwrite`` says."""
    table = read_provenance(out) if (out / PROVENANCE).is_file() else {}
    decided = sum(row.source in DECIDED for row in table.values())
    if decided:
        raise RunExistsError(
            f"{out} holds {decided} labels that a person has accepted, corrected or rejected ({PROVENANCE}); they are "
            f"not overwritten: give another folder, or delete it yourself"
        )
