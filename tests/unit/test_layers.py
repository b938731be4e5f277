"""Imports run one way: what is predicted knows nothing of how it is trained, and nobody knows the command line."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import tasktokens

SOURCE = Path(tasktokens.__file__).parent
LAYERS = (
    {"errors"},
    {"utils", "registry"},
    {"config"},
    {"metrics"},
    {"tasks"},
    {"losses"},
    {"data", "datasets", "models"},
    {"discovery"},
    {"methods"},
    {"inspection"},
    {"inference"},
    {"training"},
    {"reporting"},
    {"cli", "__init__", "__main__"},
)
"""The wings, each layer above those that it may import."""

LEVEL = {wing: level for level, wings in enumerate(LAYERS) for wing in wings}
UPWARDS_WHEN_ASKED = {("config/settings", "datasets"), ("config/settings", "methods")}
"""Imports within functions that may go up: settings find the registered components when a value is checked."""


def imports(nodes: list[ast.stmt]) -> Iterator[tuple[str, bool]]:
    """The modules that statements import, and whether at once; those under ``TYPE_CHECKING`` are left out."""
    for node in nodes:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from imports(node.orelse)
        elif isinstance(node, ast.Import):
            yield from ((each.name, True) for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written out"
            yield from ((f"{node.module}.{each.name}", True) for each in node.names)
        else:
            within = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            bodies = [getattr(node, name, []) for name in ("body", "orelse", "finalbody")]
            bodies += [part.body for part in (*getattr(node, "handlers", []), *getattr(node, "cases", []))]
            for body in bodies:
                yield from ((name, at_once and not within) for name, at_once in imports(body))


def edges() -> Iterator[tuple[str, str, bool]]:
    """Every import of the package by itself: (module, imported name below ``tasktokens``, at once)."""
    for path in sorted(SOURCE.rglob("*.py")):
        module = path.relative_to(SOURCE).with_suffix("").as_posix()
        for name, at_once in imports(ast.parse(path.read_text(encoding="utf-8")).body):
            package, _, inner = name.partition(".")
            if package == "tasktokens":
                yield module, inner, at_once


def wing(name: str) -> str:
    return name.replace("/", ".").split(".")[0]


def test_every_wing_has_its_layer() -> None:
    found = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert found == set(LEVEL)


def test_no_import_runs_up() -> None:
    wrong = [
        (module, name)
        for module, name, at_once in edges()
        if LEVEL[wing(module)] < LEVEL.get(wing(name), len(LAYERS))
        and (at_once or (module, wing(name)) not in UPWARDS_WHEN_ASKED)
    ]
    assert not wrong


def test_wings_of_one_layer_do_not_import_each_other_in_a_circle() -> None:
    sides = {(wing(module), wing(name)) for module, name, at_once in edges() if at_once and wing(module) != wing(name)}
    assert not {side for side in sides if side[::-1] in sides}


def test_only_the_registry_knows_the_rendered_rooms() -> None:
    knowing = {
        module
        for module, name, _ in edges()
        if name.startswith("datasets.rooms") and not module.startswith("datasets/rooms/")
    }
    assert not knowing
