"""The benchmark of discovered labels, on a run of a few steps."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasktokens.config import Config
from tasktokens.training.trainer import train

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_hidden_labels_are_what_discovery_is_measured_by(
    folder_root: Path, make_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import discovery_quality

    def measured(run: Path) -> dict[str, Any]:
        words = ["--run", run, "--out", tmp_path / "out.json", "--picture", tmp_path / "picture.png"]
        monkeypatch.setattr(sys, "argv", ["discovery_quality.py", *map(str, words)])
        discovery_quality.main()
        result: dict[str, Any] = json.loads((tmp_path / "out.json").read_text())
        return result

    mtl = {"name": "mtl", "steps": 1}
    found = measured(train(make_config(folder_root, tmp_path / "one", method=mtl), quiet=True))
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
    with pytest.raises(SystemExit, match="saw every label that there is"):
        measured(full)
