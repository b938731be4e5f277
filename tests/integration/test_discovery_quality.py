"""The benchmark of discovered labels, on a run of a few steps."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import processes
from tasktokens.config import Config
from tasktokens.training.trainer import train

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "discovery_quality.py"


def measure(run: Path, out: Path) -> subprocess.CompletedProcess[str]:
    words = ["--run", run, "--out", out, "--picture", out.with_name("picture.png")]
    return processes.run(*words, script=SCRIPT)


def test_hidden_labels_are_what_discovery_is_measured_by(
    folder_root: Path, make_config: Callable[..., Config], tmp_path: Path
) -> None:
    mtl = {"name": "mtl", "steps": 1}
    done = measure(train(make_config(folder_root, tmp_path / "one", method=mtl), quiet=True), tmp_path / "out.json")
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "out.json").read_text())
    # Six images with five labels each, of which each shows one.
    assert sum(found["hidden_labels"].values()) == 6 * 5 - 6
    assert len(found["rows"]) == 5 * 2 * 20
    for task in found["hidden_labels"]:
        for kind in ("ours", "paper"):
            rows = [row for row in found["rows"] if (row["task"], row["kind"]) == (task, kind)]
            shares = [row["coverage"] for row in rows]
            assert [row["confidence"] for row in rows] == [k / 20 for k in range(20)]
            assert shares == sorted(shares, reverse=True)
            assert all((row["accuracy"] is None) == (row["coverage"] == 0) or row["coverage"] < 1e-4 for row in rows)
            assert 0 <= found["ece"][task][kind] <= 1
    assert found["right"]["depth"] == "Within a factor of 1.25."
    assert (tmp_path / "picture.png").stat().st_size > 1000
    full = train(make_config(folder_root, tmp_path / "full", method=mtl, **{"data.labels": "full"}), quiet=True)
    done = measure(full, tmp_path / "none.json")
    assert done.returncode == 1
    assert "saw every label that there is" in done.stderr
    assert not (tmp_path / "none.json").exists()
