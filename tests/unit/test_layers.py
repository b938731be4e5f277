"""Imports run one way: what is predicted knows nothing of how it is trained, and nobody knows the command line."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import tasktokens

SOURCE = Path(tasktokens.__file__).parent
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
LAYERS = (
    {"errors"},
    {"utils", "registry"},
    {"config", "hub"},
    {"metrics"},
    {"tasks"},
    {"losses"},
    {"data", "datasets", "models"},
    {"discovery"},
    {"methods"},
    {"inspection", "review"},
    {"inference", "exported"},
    {"training", "exporting", "serving"},
    {"reporting"},
    {"__init__", "__main__", "cli", "commands"},
)
"""The wings, each layer above those that it may import."""

LEVEL = {wing: level for level, wings in enumerate(LAYERS) for wing in wings}
TYPES_FROM_ABOVE = {("discovery/calibration", "methods"), ("utils/distributed", "config")}
"""Imports under ``TYPE_CHECKING`` that name a type of a layer above; nothing runs."""


def imports(nodes: list[ast.stmt], when: str = "at once") -> Iterator[tuple[str, str]]:
    """The names that statements import, and when: ``at once``, ``called`` (within a function), or for ``types``."""
    for node in nodes:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from imports(node.body, "types")
            yield from imports(node.orelse, when)
        elif isinstance(node, ast.Import):
            yield from ((each.name, when) for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written out"
            yield from ((f"{node.module}.{each.name}", when) for each in node.names)
        else:
            within = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            bodies = [getattr(node, name, []) for name in ("body", "orelse", "finalbody")]
            bodies += [part.body for part in (*getattr(node, "handlers", []), *getattr(node, "cases", []))]
            for body in bodies:
                yield from imports(body, "called" if within else when)


def edges() -> Iterator[tuple[str, str, str]]:
    """Every import of the package by itself: (module, imported name below ``tasktokens``, when)."""
    for path in sorted(SOURCE.rglob("*.py")):
        module = path.relative_to(SOURCE).with_suffix("").as_posix()
        for name, when in imports(ast.parse(path.read_text(encoding="utf-8")).body):
            package, _, inner = name.partition(".")
            if package == "tasktokens":
                yield module, inner, when


def wing(name: str) -> str:
    return name.replace("/", ".").split(".")[0]


def circles(graph: dict[str, set[str]]) -> set[str]:
    """The nodes that lie on a circle."""
    found = set()
    for start in graph:
        seen: set[str] = set()
        ahead = set(graph[start])
        while ahead:
            node = ahead.pop()
            seen.add(node)
            ahead |= graph.get(node, set()) - seen
        if start in seen:
            found.add(start)
    return found


def test_every_wing_has_its_layer() -> None:
    found = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert found == set(LEVEL)


def test_no_import_runs_up() -> None:
    """Neither one within a function, nor one for types but for those that are named above."""
    wrong = [
        (module, name)
        for module, name, when in edges()
        if LEVEL[wing(module)] < LEVEL.get(wing(name), len(LAYERS))
        and (when != "types" or (module, wing(name)) not in TYPES_FROM_ABOVE)
    ]
    assert not wrong


def test_wings_of_one_layer_do_not_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for module, name, when in edges():
        if when == "at once" and wing(module) != wing(name):
            graph.setdefault(wing(module), set()).add(wing(name))
    assert not circles(graph)


def test_no_module_is_in_a_circle() -> None:
    """Imports within functions count as well; a package stands for its ``__init__``."""
    modules = {path.relative_to(SOURCE).with_suffix("").as_posix() for path in SOURCE.rglob("*.py")}
    graph: dict[str, set[str]] = {}
    for module, name, when in edges():
        whole = name.replace(".", "/")
        for target in (whole, f"{whole}/__init__", whole.rpartition("/")[0], f"{whole.rpartition('/')[0]}/__init__"):
            if target in modules and when != "types":
                graph.setdefault(module, set()).add(target)
                break
    assert len(graph) > 100
    assert not circles(graph)


def test_no_benchmark_is_in_a_circle() -> None:
    files = {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in BENCHMARKS.glob("*.py")}
    assert files
    assert not circles({name: {each.split(".")[0] for each, _ in imports(tree.body)} for name, tree in files.items()})


def test_only_the_registry_knows_the_rendered_rooms() -> None:
    knowing = {
        module
        for module, name, _ in edges()
        if name.startswith("datasets.rooms") and not module.startswith("datasets/rooms/")
    }
    assert not knowing
