"""Which images come first: places against a plain count, reasons that are true, files that other tools read."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from conftest import run_cli, write_folder
from tasktokens.datasets.folder import open_folder
from tasktokens.datasets.provenance import ProvenanceRow, update_provenance, write_provenance
from tasktokens.errors import ConfigError, DataError
from tasktokens.review.criteria import CRITERIA, Measured, describe, measure
from tasktokens.review.ranking import WEIGHTS, rank_images, ranking

VALUES = st.lists(st.none() | st.integers(0, 5).map(lambda n: n / 5), min_size=1, max_size=7)


@given(values=VALUES)
def test_an_image_stands_behind_all_that_are_worth_more(values: list[float | None]) -> None:
    """By one criterion the order is that of its values; its place is the share of others that are worth less."""
    measured = [Measured(f"im{n}", "depth", {"uncertain": value}, {}) for n, value in enumerate(values)]
    ranked = {image.id: image for image in ranking(measured, ["uncertain"])}
    known = [value for value in values if value is not None]
    for number, value in enumerate(values):
        found = ranked[f"im{number}"].criteria.get("uncertain")
        if value is None:
            assert found is None
            continue
        less, same = sum(v < value for v in known), sum(v == value for v in known)
        assert found == pytest.approx((less + (same - 1) / 2) / max(1, len(known) - 1), abs=1e-4)


def test_tasks_are_compared_with_themselves_and_criteria_by_their_weights() -> None:
    measured = [
        Measured("a", "depth", {"uncertain": 0.9, "disagreement": 0.0}, {"uncertain": "unsure"}),
        Measured("b", "depth", {"uncertain": 0.8, "disagreement": 0.3}, {"disagreement": "views differ"}),
        Measured("a", "edge", {"uncertain": 0.01, "disagreement": None}, {}),
        Measured("b", "edge", {"uncertain": 0.02, "disagreement": None}, {}),
    ]
    by = ("uncertain", "disagreement")
    ranked = {image.id: image for image in ranking(measured, by)}
    assert ranked["a"].criteria == {"uncertain": 0.5, "disagreement": 0}
    assert ranked["b"].criteria == {"uncertain": 0.5, "disagreement": 1}
    total = WEIGHTS["uncertain"] + WEIGHTS["disagreement"]
    assert ranked["b"].score == pytest.approx((0.5 * WEIGHTS["uncertain"] + WEIGHTS["disagreement"]) / total, abs=1e-4)
    assert ranked["b"].reason == "depth: views differ"
    assert ranked["a"].reason == "depth: unsure"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six training images; the classes of three and the depth of two are called discovered."""
    root = write_folder(tmp_path / "data")
    rows = []
    for task, ids in (("semseg", ("im00", "im01", "im02")), ("depth", ("im02", "im03"))):
        for number, id in enumerate(ids):
            confidence = np.full((40, 56), 50 * (number + 1), np.uint8)
            (root / "confidence" / task).mkdir(parents=True, exist_ok=True)
            Image.fromarray(confidence).save(root / "confidence" / task / f"{id}.png")
            rows.append(
                ProvenanceRow(
                    id,
                    task,
                    "discovered",
                    "network",
                    confidence=round(50 * (number + 1) / 255, 4),
                    coverage=0.5,
                    disagreement=0.1 * number,
                )
            )
    write_provenance(root, rows)
    return root


def test_the_least_confident_comes_first_and_the_table_says_why(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run_cli(capsys, "review", folder, "--top", 2, "--json", "--by", "uncertain", "-q")
    assert code == 0
    assert [image["id"] for image in json.loads(out)] == ["im00", "im01"]
    with (folder / "review.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["im00", "im01", "im02", "im03"]
    assert rows[0]["reason"] == "mean confidence 0.20, 50% of the pixels below the threshold"
    assert rows[2]["tasks"] == "semseg;depth"
    code, out, _ = run_cli(capsys, "review", folder, "-q")
    assert code == 0
    assert len(out.splitlines()) == 4


def test_rare_classes_and_unlike_images_are_measured(folder: Path) -> None:
    index = open_folder(folder)
    measured = {(each.id, each.task): each for each in measure(index)}
    assert list(measured) == [("im00", "semseg"), ("im01", "semseg"), ("im02", "semseg"), ("im02", "depth"),
                              ("im03", "depth")]  # fmt: skip
    assert measured["im02", "depth"].values["rare"] is None
    seen: dict[str, set[int]] = {}
    for id in ("im00", "im01", "im02"):
        value, valid = index.discovered["semseg"][id].label.read()
        ids, counts = np.unique(value[0][valid], return_counts=True)
        seen[id] = {int(number) for number, count in zip(ids, counts, strict=True) if count > 0.005 * counts.sum()}
    for id, own in seen.items():
        shares = [np.mean([number in other for other in seen.values()]) for number in own]
        assert measured[id, "semseg"].values["rare"] == pytest.approx(-np.log(min(shares)))
    pictures = {id: describe(index.images[id].read()) for id in index.splits["train"]}
    spread = np.std(list(pictures.values()), axis=0) + 1e-6
    labelled = [id for id in pictures if id in index.labels["depth"]]
    expected = min(np.linalg.norm((pictures[id] - pictures["im02"]) / spread) for id in labelled)
    assert measured["im02", "depth"].values["unlike"] == pytest.approx(expected)


def test_what_was_decided_needs_no_review_and_a_plain_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    index = open_folder(folder)
    rows: list[Any] = [row for of_task in index.provenance.values() for row in of_task.values()]
    update_provenance(folder, [row.decided("accepted") for row in rows if row.id != "im03"])
    assert [image.id for image in rank_images(folder)] == ["im03"]
    update_provenance(folder, [row.decided("rejected") for row in rows if row.id == "im03"])
    assert rank_images(folder) == []
    with pytest.raises(DataError, match="nothing to review"):
        rank_images(write_folder(tmp_path / "plain"))
    with pytest.raises(ConfigError, match="did you mean 'uncertain'"):
        rank_images(folder, ["uncertian"])
    assert set(WEIGHTS) == set(CRITERIA)
