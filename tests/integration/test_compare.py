"""The comparison of HTT and the MTL baseline over seeds: what it writes, and that stopping it stops its runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from conftest import SMALL_ROOMS, stop_benchmark

COMPARE = Path(__file__).parents[2] / "benchmarks" / "compare.py"
CONFIG = COMPARE.parents[1] / "configs" / "accuracy_rooms.yaml"
SMALL = [*SMALL_ROOMS, "optim.batch_size=3", "run.log_every=1", "model.width=16"]


def command(folder: Path, steps: int) -> list[str]:
    options = ["--config", str(CONFIG), "--runs", str(folder), "--out", str(folder / "out.json"), "--jobs", "1"]
    stages = [f"method.stage1_steps={steps}", f"method.stage2_steps={steps}"]
    return [sys.executable, str(COMPARE), *options, *SMALL, *stages]


def test_both_methods_take_as_many_steps(tmp_path: Path) -> None:
    subprocess.run(command(tmp_path, 1), check=True, capture_output=True)
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [(row["method"], row["seed"], row["steps"]) for row in rows] == [("mtl", 0, 2), ("htt", 0, 2)]
    assert all(row["absErr"] > 0 for row in rows)


def test_stopping_it_stops_its_run_and_begins_no_other(tmp_path: Path) -> None:
    run = tmp_path / "out" / "mtl-0"
    stop_benchmark(command(tmp_path, 300), run)
    assert not run.with_name("htt-0").exists()
    assert not (tmp_path / "out.json").exists()
