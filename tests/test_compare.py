"""The comparison of HTT and the MTL baseline over seeds: what it writes, and that stopping it stops its runs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

COMPARE = Path(__file__).parents[1] / "benchmarks" / "compare.py"
CONFIG = COMPARE.parents[1] / "configs" / "accuracy_rooms.yaml"
SMALL = ["data.train=6", "data.val=1", "data.test=2", "data.size=[32, 48]", "data.render_size=[32, 48]",
         "optim.batch_size=3", "run.log_every=1", "model.width=16"]  # fmt: skip


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
    with subprocess.Popen(command(tmp_path, 300), stderr=subprocess.PIPE, text=True) as process:
        while not ((run / "metrics.jsonl").is_file() and (run / "metrics.jsonl").read_text()):
            assert process.poll() is None
            time.sleep(0.05)
        process.terminate()
        _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "mtl-0 ended with 143" in said
    assert list(run.glob("checkpoints/*/complete.json"))  # it has saved itself, so it is no longer there
    assert not run.with_name("htt-0").exists()
    assert not (tmp_path / "out.json").exists()
