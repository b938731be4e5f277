"""The wheel, built and installed into a clean environment, runs there: no file is missing from it."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRIED = """
import tasktokens
assert "site-packages" in tasktokens.__file__, tasktokens.__file__
from tasktokens.config import parse_config
from tasktokens.models import NETWORKS
from tasktokens.reporting.demo import demo_config
from tasktokens.reporting.comparison.suite import read_suite
from pathlib import Path
print(sorted(NETWORKS), demo_config("htt", Path("x"), 0).method.name, read_suite("quick").methods)
"""


def run(*words: object, folder: Path) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run([str(word) for word in words], cwd=folder, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def build(folder: Path) -> Path:
    """The wheel of this tree; the test is skipped where its build tools cannot be had."""
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode and ("No matching distribution" in done.stderr or "ConnectionError" in done.stderr):
        pytest.skip("no package index: the build backend cannot be installed")
    assert done.returncode == 0, done.stderr[-4000:]
    (wheel,) = folder.glob("tasktokens-*.whl")
    return wheel


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_wheel_runs_in_a_clean_environment(tmp_path: Path) -> None:
    wheel = build(tmp_path / "dist")
    with ZipFile(wheel) as archive:
        shipped = {entry.filename: entry.file_size for entry in archive.infolist() if "/demo_model/" in entry.filename}
    assert {Path(name).name for name in shipped} >= {"model.safetensors", "model.json", "NOTICE", "LICENSE"}
    assert sum(shipped.values()) <= 12_000_000
    venv.create(tmp_path / "env", with_pip=True)
    python, place = tmp_path / "env" / "bin" / "python", tmp_path / "elsewhere"
    place.mkdir()
    # What the package depends on is taken from this environment: torch alone is several gigabytes.
    (site,) = (tmp_path / "env" / "lib").glob("python3*/site-packages")
    (site / "shared.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    run(python, "-m", "pip", "install", "-q", "--no-deps", "--force-reinstall", wheel, folder=place)
    command = tmp_path / "env" / "bin" / "tasktokens"
    version = wheel.name.split("-")[1]
    assert run(command, "--version", folder=place) == f"tasktokens {version}\n"
    run(python, "-c", TRIED, folder=place)
    # From here on the words of a newcomer, on little data.
    small = ["data.size=[32,48]", "data.render_size=[32,48]", "data.train=4", "data.val=1", "data.test=2"]
    small += ["tasks={semseg: {}, depth: {}}"]
    short = ["method.steps=2", "optim.batch_size=2", "optim.warmup=0", "run.device=cpu", "run.threads=1"]
    network = ["model.backbone=test_resnet", "model.pretrained=false", "model.width=16"]
    run(command, "train", "data.kind=rooms", "run.dir=runs/mine", *small, *short, *network, "-q", folder=place)
    run(command, "discover", "runs/mine", "--out", "filled", "-q", folder=place)
    run(command, "predict", "runs/mine", "filled/images", "--out", "predictions", "-q", folder=place)
    assert len(list((place / "predictions" / "depth").iterdir())) == 7
    run(command, "predict", "demo", "filled/images", "--out", "shown", "-q", folder=place)
    assert len(list((place / "shown" / "human_parts").iterdir())) == 7
    # Pages are made of templates that the wheel has to hold.
    run(command, "check", "filled", "--html", "check.html", "-q", folder=place)
    assert "<html" in (place / "check.html").read_text()
    run(command, "demo", "--help", folder=place)
