"""The scripts of ``examples/`` run as a user would run them, on little data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import processes

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SMALL = ["--backbone", "test_resnet", "--steps", "4"]
CASES: dict[str, tuple[list[str], str]] = {
    "own_loop.py": (["{folder}", *SMALL, "--size", "32", "48"], "step 4: loss"),
    "own_task.py": ([], "K off"),
    "own_dataset.py": ([], "'depth': ['scene0', 'scene2'], 'person': ['scene0']"),
    "own_method.py": (["{folder}", *SMALL], "discovered_loss/depth"),
    "own_network.py": (["{folder}", *SMALL], "discovered_loss/depth"),
    "partial_folder.py": (["{out}", "--steps", "2"], "Result("),
}


def test_every_example_is_tried() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_the_example_runs(name: str, folder_root: Path, tmp_path: Path) -> None:
    words, expected = CASES[name]
    words = [word.format(folder=folder_root, out=tmp_path / "out") for word in words]
    done = processes.run(*words, script=EXAMPLES / name, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout
    if name == "own_task.py":
        errors = [float(line.split()[2]) for line in done.stdout.splitlines()]
        assert errors[-1] < errors[0] / 2
    if name == "partial_folder.py":
        check_filled_folder(tmp_path / "out")


def check_filled_folder(out: Path) -> None:
    """Every image has every label; the given ones are the given files."""
    tasks = yaml.safe_load((out / "filled/dataset.yaml").read_text())["tasks"]
    assert set(tasks) == {"semseg", "depth", "normals"}
    for id in (out / "filled/train.txt").read_text().split():
        given = [name for name in tasks if (out / "rooms" / name / f"{id}.png").is_file()]
        assert len(given) == 1
        for name in tasks:
            written = (out / "filled" / name / f"{id}.png").read_bytes()
            if name in given:
                assert written == (out / "rooms" / name / f"{id}.png").read_bytes()
    assert np.asarray(Image.open(out / "prediction.png")).ndim == 3
