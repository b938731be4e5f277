"""The shape of the code, before and after a change: what a newcomer has to open, edit and wait for.

    git worktree add ../before COMMIT
    python benchmarks/shape.py --before ../before --out benchmarks/results/shape.json --tests
    python benchmarks/shape.py --before ../before --out benchmarks/results/shape.json --test-seconds BEFORE AFTER

Files to edit for a new component are counted on one that exists: the files of ``src`` that name it, less its own.
Frames and files of a step are those of this package on the stack or entered, in a training run of a few steps. The
seconds of the default test run are those of ``pytest`` by the clock, on two cores that have nothing else to do;
``--test-seconds`` takes them from runs that were timed before.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasktokens.reporting.provenance import describe

COMPONENTS = {
    "data set": ("pascal_context", r"pascal_context|PascalContext|pascal_labels"),
    "method": ("mtl", r"\bMtlMethod\b|\bSupervised\b|methods\.mtl\b|methods\.supervised\b"),
    "task": ("saliency", r"'saliency'|\bSaliency\b"),
    "network": ("mtl", r"\bBaselineNetwork\b|\bMtlNetwork\b"),
    "metric": ("maxF", r"\bSaliencyF\b"),
}
"""A component that exists, and what names it in the code, as `ast.unparse` writes it: no comments or docstrings."""

OWN = {
    "data set": r"pascal_context|pascal_labels",
    "method": r"methods/(mtl|supervised)\.py",
    "task": r"tasks/(binary|saliency)\.py|metrics/saliency\.py|datasets/|data/(rooms|pascal\w*|nyud\w*|guess|look)"
    r"|inspection/(infer|scan)",
    "network": r"models/(baseline|mtl)\.py",
    "metric": r"metrics/(fmeasure|saliency)\.py|tasks/(binary|saliency)\.py",
}
"""Files that are the component itself, or speak of it as data sets do of the tasks that they have."""

TEST_RUN = "default test run, seconds"

PROBE = """
import json, sys, traceback
from accelerate import Accelerator
found, files, backward = {}, set(), Accelerator.backward
def own(path): return "tasktokens" in path and "site-packages" not in path
def entered(frame, event, argument):
    if event == "call" and own(frame.f_code.co_filename): files.add(frame.f_code.co_filename)
def counted(self, loss, **options):
    sys.setprofile(None)
    if "frames" in found: found["files"] = len(files)
    stack = [frame for frame in traceback.extract_stack()[:-1] if own(frame.filename)]
    verbs = ("tasktokens/cli.py", "commands/train.py")
    starts = [i for i, frame in enumerate(stack) if frame.filename.endswith(verbs) and frame.name == "train"]
    found["frames"] = [f"{f.filename.rpartition('tasktokens/')[2]}:{f.name}" for f in stack[starts[-1]:]]
    backward(self, loss, **options)
    files.clear()
    sys.setprofile(entered)
Accelerator.backward = counted
from tasktokens import cli
sys.argv = ["tasktokens", "train", "-q", *sys.argv[1:]]
try: cli.main()
except SystemExit: pass
sys.setprofile(None)
print(json.dumps(found))
"""


def main() -> None:
    """Measure both trees and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="a checkout of the version before")
    parser.add_argument("--after", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--out", type=Path, required=True)
    timed = parser.add_mutually_exclusive_group()
    timed.add_argument("--tests", action="store_true", help="also time the default test run of both")
    timed.add_argument("--test-seconds", type=int, nargs=2, metavar=("BEFORE", "AFTER"), help="what those runs took")
    arguments = parser.parse_args()
    before, after = (measure(tree.resolve(), arguments.tests) for tree in (arguments.before, arguments.after))
    if arguments.test_seconds:
        before[TEST_RUN], after[TEST_RUN] = arguments.test_seconds
    rows = [{"what": what, "before": before.get(what), "after": after[what]} for what in after]
    for row in rows:
        print(f"{row['what']}: {_counted(row['before'])} -> {_counted(row['after'])}")
    arguments.out.write_text(json.dumps(describe("one thread", [0]) | {"rows": rows}, indent=1) + "\n")


def _counted(value: Any) -> str:
    return f"{len(value)} ({', '.join(value)})" if isinstance(value, list) else str(value)


def measure(tree: Path, tests: bool) -> dict[str, Any]:
    """Every figure of one checkout."""
    source = tree / "src" / "tasktokens"
    found: dict[str, Any] = {}
    for what, (name, pattern) in COMPONENTS.items():
        found[f"files that name a {what} ({name}), beyond its own"] = naming(source, pattern, OWN[what])
    steps = probe(tree)
    found["frames from cli.train to backward"] = len(steps["frames"])
    found["files entered by one step"] = steps["files"]
    public = list(public_names(source))
    found["public functions, classes and methods"] = len(public)
    found["of them without docstring"] = sum(not documented for documented in public)
    attributes = dict(public_attributes(source))
    found["public constants and attributes"] = len(attributes)
    found["of them without description"] = [name for name, described in attributes.items() if not described]
    for folder in ("src", "tests", "benchmarks"):
        found[f"lines of {folder}"] = sum(len(p.read_text().splitlines()) for p in (tree / folder).rglob("*.py"))
    found["longest function, lines"] = max(lengths(source))
    found["functions of more than 60 lines"] = sum(length > 60 for length in lengths(source))
    found["files of src of more than 250 lines"] = [
        path.relative_to(source).as_posix()
        for path in sorted(source.rglob("*.py"))
        if len(path.read_text().splitlines()) > 250
    ]
    found["import of tasktokens, seconds"] = import_seconds(tree)
    if tests:
        found[TEST_RUN] = test_seconds(tree)
    return found


def naming(source: Path, pattern: str, own: str) -> list[str]:
    """Files of the package that name a component and are not its own."""
    paths = {path.relative_to(source).as_posix(): code(path) for path in source.rglob("*.py")}
    return sorted(path for path, text in paths.items() if re.search(pattern, text) and not re.search(own, path))


def code(path: Path) -> str:
    """A module's text without what only people read."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        for inner in list(ast.iter_child_nodes(node)):
            text = inner.value if isinstance(inner, ast.Expr) else None
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                text.value = ""
    return ast.unparse(tree)


def probe(tree: Path) -> dict[str, Any]:
    """The frames above a backward pass, and the number of files that the step between two of them enters."""
    with tempfile.TemporaryDirectory() as folder:
        options = [
            "data.kind=rooms", "data.train=4", "data.val=1", "data.test=1", "data.size=[32,48]", "data.labels=full",
            "tasks={semseg: {}, depth: {}}",
            "model.backbone=test_resnet", "model.pretrained=false", "model.width=16", "optim.batch_size=2",
            "method.name=mtl", "method.steps=4", "run.device=cpu", "run.threads=1", f"run.dir={folder}/run",
        ]  # fmt: skip
        environment = {"TASKTOKENS_CACHE": folder}
        done = python(tree, ["-c", PROBE, *options], environment)
    return dict(json.loads(done.splitlines()[-1]))


def public_names(source: Path) -> Iterator[bool]:
    """For each public function, class and method, whether it has a docstring; overloads are left to their function."""
    for path in source.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            yield from _documented(node)


def _documented(node: ast.AST) -> Iterator[bool]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
        if any(ast.unparse(each) == "overload" for each in node.decorator_list):
            return
        yield ast.get_docstring(node) is not None
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                yield from _documented(inner)


def public_attributes(source: Path) -> Iterator[tuple[str, bool]]:
    """Each public constant and attribute of a class, and whether it is described.

    Descriptions are a docstring below it, ``description=``, or its name in the docstring of its class or of a class
    that this one derives from. Names of types are left out.
    """
    trees = {path.relative_to(source).as_posix(): ast.parse(path.read_text()) for path in source.rglob("*.py")}
    nodes = [node for tree in trees.values() for node in tree.body]
    classes = {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}
    for path, tree in sorted(trees.items()):
        yield from ((f"{path}:{name}", described) for name, described in _attributes(tree.body))
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                bases = list(_with_bases(node, classes))
                for name, described in _attributes(node.body):
                    yield f"{path}:{node.name}.{name}", described or any(_names(base, name) for base in bases)


def _with_bases(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> Iterator[ast.ClassDef]:
    yield node
    for base in node.bases:
        known = classes.get(ast.unparse(base).partition("[")[0].rpartition(".")[2])
        if known is not None and known is not node:
            yield from _with_bases(known, classes)


def _names(node: ast.ClassDef, name: str) -> bool:
    said = re.search(rf"\b{name}\b", ast.get_docstring(node) or "")
    return bool(said) or (name, True) in _attributes(node.body)


def _attributes(body: list[ast.stmt]) -> Iterator[tuple[str, bool]]:
    for node, after in zip(body, [*body[1:], None], strict=False):  # one too many in an empty module
        if not isinstance(node, ast.Assign | ast.AnnAssign) or _is_type(node):
            continue
        below = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
        for target in targets:
            if isinstance(target, ast.Name) and not target.id.startswith("_") and target.id != "model_config":
                yield target.id, below or "description=" in ast.unparse(node)


def _is_type(node: ast.Assign | ast.AnnAssign) -> bool:
    return isinstance(node, ast.Assign) and bool(re.match(r"TypeVar\(|[\w.]+\[", ast.unparse(node.value)))


def lengths(source: Path) -> Iterator[int]:
    """Lines of every function."""
    for path in source.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                yield (node.end_lineno or node.lineno) - node.lineno + 1


def import_seconds(tree: Path) -> float:
    """Median of nine imports, less the start of Python."""
    code = "import time; start = time.perf_counter(); import tasktokens; print(time.perf_counter() - start)"
    return round(statistics.median(float(python(tree, ["-c", code])) for _ in range(9)), 4)


def test_seconds(tree: Path) -> int:
    """One default run of the tests."""
    start = time.perf_counter()
    python(tree, ["-m", "pytest", "-q"], {"CI": "1"}, check=False)
    return round(time.perf_counter() - start)


def python(tree: Path, words: list[str], more: dict[str, str] | None = None, check: bool = True) -> str:
    """What a Python that imports this checkout prints."""
    environment = os.environ | {"PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"} | (more or {})
    done = subprocess.run(
        [sys.executable, *words], cwd=tree, env=environment, check=check, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


if __name__ == "__main__":
    main()
