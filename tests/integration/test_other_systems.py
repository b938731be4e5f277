"""The way of a user where Unix's own modules, signals, links and folders are missing (tests/other_systems.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from conftest import write_folder

TESTS = Path(__file__).resolve().parents[1]
NAME = "Küche-椅子"


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_a_user_gets_by_without_what_unix_adds(tmp_path: Path) -> None:
    """With names that the console cannot show, in a folder whose name has a blank."""
    data = write_folder(tmp_path / "my data")
    for task in ("images", "semseg", "depth", "normals", "edge", "saliency"):
        (data / task / "im00.png").rename(data / task / f"{NAME}.png")
    train = (data / "train.txt").read_text(encoding="utf-8").replace("im00", NAME)
    (data / "train.txt").write_text(train, encoding="utf-8")
    values = yaml.safe_load((data / "dataset.yaml").read_text(encoding="utf-8"))
    values["tasks"] = {name: values["tasks"][name] for name in ("semseg", "depth")}
    values["tasks"]["semseg"]["classes"][0] = NAME
    (data / "dataset.yaml").write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(
        [sys.executable, str(TESTS / "other_systems.py"), str(tmp_path)], env=environment, capture_output=True,
        encoding="cp1252", check=False, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.rstrip().endswith("+ done")
    assert not list(tmp_path.rglob("*.partial*"))
    assert not list(tmp_path.rglob("*.tmp"))
