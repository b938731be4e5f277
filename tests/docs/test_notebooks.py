"""The notebooks run as they stand, on little data; their committed outputs are of a longer run."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "docs" / "notebooks"
SMALL = {
    "own_loop": '6, (32, 48), 2, "test_resnet"',
    "own_folder": '6, (32, 48), 2, "test_resnet"',
    "compare_methods": '6, (32, 48), 2, "test_resnet", ["mtl", "htt"]',
}


@pytest.fixture(scope="module")
def executing() -> ModuleType:
    """``docs/notebooks/execute.py``."""
    pytest.importorskip("nbclient")
    spec = importlib.util.spec_from_file_location("execute_notebooks", NOTEBOOKS / "execute.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_notebook_is_tried() -> None:
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_the_notebook_runs(name: str, executing: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_PATH", "")  # set by `execute`
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    done = executing.execute(name, tmp_path, SMALL[name])
    assert any(cell.get("outputs") for cell in done.cells)


@pytest.mark.parametrize("name", SMALL)
def test_outputs_are_committed(name: str) -> None:
    cells = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code), "run docs/notebooks/execute.py"
    kinds = [output["output_type"] for cell in code for output in cell["outputs"]]
    assert "error" not in kinds
    assert any(kind != "stream" for kind in kinds)
