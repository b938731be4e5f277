"""Execute the notebooks in a scratch folder and keep their outputs: ``python docs/notebooks/execute.py own_loop``."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

HERE = Path(__file__).resolve().parent


def execute(name: str, folder: Path, values: str | None = None) -> NotebookNode:
    """The notebook with the outputs of a run in ``folder``; ``values`` replace those of its line ``IMAGES, ... =``.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(HERE / f"{name}.ipynb", as_version=4)
    if values is not None:
        replaced = [re.subn(r"^(IMAGES, .*=) .*$", rf"\1 {values}", cell.source, flags=re.M) for cell in notebook.cells]
        assert sum(count for _, count in replaced) == 1, f"{name} has no line that sets its sizes"
        for cell, (source, _) in zip(notebook.cells, replaced, strict=True):
            cell.source = source
    spec = folder / "jupyter" / "kernels" / "python3"  # this Python, whatever kernels the machine has
    spec.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}))
    os.environ["JUPYTER_PATH"] = str(folder / "jupyter")
    return NotebookClient(notebook, timeout=3600, resources={"metadata": {"path": str(folder)}}).execute()


def tidy(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """Without what differs from run to run: times of execution, counters, the folder's name, messages on progress."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
    return nbformat.from_dict(json.loads(json.dumps(notebook).replace(f"{folder}/", "")))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=sorted(path.stem for path in HERE.glob("*.ipynb")))
    for name in parser.parse_args().names:
        with tempfile.TemporaryDirectory() as place:
            done = tidy(execute(name, Path(place)), Path(place))
        nbformat.write(done, HERE / f"{name}.ipynb")
        print(name)
