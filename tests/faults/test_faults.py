"""A small part of the campaign of kills, malformed inputs and operation (`campaign.py`), nothing left to explain."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import processes

CAMPAIGN = Path(__file__).with_name("campaign.py")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the campaign forks")
def test_killed_runs_end_alike_and_malformed_inputs_are_clear_errors(tmp_path: Path) -> None:
    few = ("--kills", "7", "--scenario", "mtl", "--inputs", "24", "--seed", "1")
    words = (*few, "--out", tmp_path / "found.json")
    done = processes.run(*words, script=CAMPAIGN, env={"TMPDIR": str(tmp_path)}, timeout=280)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert len([row for row in found["rows"] if row["campaign"] == "operation"]) >= 15
    totals = found["totals"]
    assert totals["kills"] >= 6
    assert totals["identical"] == totals["killed_runs"] >= 3
    assert totals["cases"] == 24
    faults = [row for row in found["rows"] if row.get("examples")]
    assert faults == [], json.dumps(faults, indent=1)[-4000:]
    assert totals["clear_errors"] + totals["named_skips"] + totals["harmless"] == totals["cases"]


PARTS = 6
"""Of the whole campaign, so that every process of the test run has some of it."""


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the campaign forks")
@pytest.mark.parametrize("number", range(1, PARTS + 1))
def test_the_whole_campaign_leaves_nothing_to_explain(number: int, tmp_path: Path) -> None:
    words = ("--part", f"{number}/{PARTS}", "--out", tmp_path / "found.json")
    done = processes.run(*words, script=CAMPAIGN, env={"TMPDIR": str(tmp_path)}, timeout=1400)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert [row for row in found["rows"] if row.get("examples")] == []
    totals = found["totals"]
    assert totals["kills"] >= totals["kills_asked"] - 3 > 0  # of all parts 219 are asked for; a moment may be rare
    assert totals["identical"] == totals["killed_runs"] > 0
    assert totals["cases"] > 1100 // PARTS
    assert number > 1 or len([row for row in found["rows"] if row["campaign"] == "operation"]) >= 15
