"""The benchmark of the server in short: many requests at once, a third of them bad."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="needs the extra serve")
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "serve.py"


@pytest.mark.slow
def test_good_requests_are_answered_and_bad_ones_refused(untrained: Path, tmp_path: Path) -> None:
    words = ["--model", untrained, "--requests", "90", "--concurrent", "16", "--out", tmp_path / "serve.json"]
    subprocess.run([sys.executable, SCRIPT, *map(str, words)], check=True, capture_output=True, timeout=280)
    (row,) = json.loads((tmp_path / "serve.json").read_text())["rows"]
    assert row["failed"] == []
    assert (row["good_ok"], row["bad_4xx"], row["crashes"]) == (60, 30, 0)
