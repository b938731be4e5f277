"""Every Python block of the documentation and every example of a docstring runs as it stands.

They run in a folder that has what the documentation supposes: own data, a trained run, photographs, settings.
"""

from __future__ import annotations

import doctest
import importlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PIL import Image

import tasktokens

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    pytest.param(text, id=f"{page.relative_to(ROOT)}:{number}")
    for page in PAGES
    for number, text in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S))
]
MODULES = [
    ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "src").rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]
SETTINGS = {
    "data": {"kind": "folder", "root": "mydata", "size": [32, 48], "labels": "full"},
    "model": {"backbone": "test_resnet", "pretrained": False, "width": 16},
    "method": {"name": "htt", "stage1_steps": 2, "stage2_steps": 2},
    "optim": {"batch_size": 2, "warmup": 1},
    "run": {"dir": "runs/my", "device": "cpu", "threads": 1, "checkpoint_every": 2, "evaluate": None},
}


@pytest.fixture(scope="session")
def documented_folder(make_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``mydata`` with classes and depth, ``runs/mine`` trained on it, ``photos`` and ``my.yaml``."""
    root = tmp_path_factory.mktemp("docs")
    make_folder(root / "mydata")
    description = yaml.safe_load((root / "mydata/dataset.yaml").read_text())
    description["tasks"] = {name: description["tasks"][name] for name in ("semseg", "depth")}
    for left_out in ("normals", "edge", "saliency"):
        shutil.rmtree(root / "mydata" / left_out)
    (root / "mydata/dataset.yaml").write_text(yaml.safe_dump(description, sort_keys=False))
    (root / "my.yaml").write_text(yaml.safe_dump(SETTINGS))
    (root / "photos").mkdir()
    for name, size in {"one.jpg": (64, 48), "two.jpg": (48, 64), "three.png": (60, 60)}.items():
        Image.effect_mandelbrot(size, (-2, -1.5, 1, 1.5), 20).convert("RGB").save(root / "photos" / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        tasktokens.train("my.yaml", ["run.dir=runs/mine"], quiet=True)
    return root


@pytest.fixture
def documented(documented_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it that an example may change, as the working directory."""
    shutil.copytree(documented_folder, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def test_the_readme_has_a_python_block() -> None:
    assert any(block.id.startswith("README.md") for block in BLOCKS if block.id)


@pytest.mark.parametrize("text", BLOCKS)
@pytest.mark.usefixtures("documented")
def test_the_block_runs(text: str) -> None:
    exec(compile(text, "the block", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.usefixtures("documented")
def test_the_examples_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted
    assert not result.failed
