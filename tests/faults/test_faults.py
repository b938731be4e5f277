"""A small part of the campaign of kills, malformed inputs and operation (`campaign.py`), nothing left to explain."""

from __future__ import annotations

import json
import os
import subprocess
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


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the campaign forks")
def test_the_whole_campaign_leaves_nothing_to_explain(tmp_path: Path) -> None:
    words = [sys.executable, str(CAMPAIGN), "--out", str(tmp_path / "found.json")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert [row for row in found["rows"] if row.get("examples")] == []
    assert found["totals"]["identical"] == found["totals"]["killed_runs"] > 0
    assert len([row for row in found["rows"] if row["campaign"] == "operation"]) >= 15
