"""The names of the package: complete, quick to import, documented, and taking paths as text or `Path`."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

import processes
import tasktokens
from tasktokens.config import as_config
from tasktokens.errors import ConfigError, DataError

VERBS = (
    "check",
    "compare",
    "discover",
    "evaluate",
    "explain",
    "export",
    "init",
    "load_config",
    "predict",
    "prepare",
    "train",
)


def run_python(text: str) -> str:
    return subprocess.run([sys.executable, "-c", text], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("name", tasktokens.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert name in dir(tasktokens)
    documented = inspect.getdoc(getattr(tasktokens, name))
    assert documented
    assert len(documented) > 20
    assert name in tasktokens._HOMES or name in tasktokens._MODULES


@pytest.mark.parametrize(
    "module", ["tasktokens", *(f"tasktokens.{name}" for name in ("losses", "methods", "metrics", "tasks"))]
)
def test_every_public_function_and_class_has_an_example(module: str) -> None:
    """tests/docs runs them."""
    home = importlib.import_module(module)
    values = {name: getattr(home, name) for name in getattr(home, "__all__", vars(home)) if not name.startswith("_")}
    own = {name: each for name, each in values.items() if inspect.isclass(each) or inspect.isfunction(each)}
    assert own
    assert not [
        name
        for name, each in own.items()
        if each.__module__.startswith("tasktokens.") and "Examples:\n" not in (each.__doc__ or "")
    ]


def test_every_public_name_is_listed() -> None:
    assert set(tasktokens.__all__) == {*tasktokens._HOMES, *tasktokens._MODULES}
    assert tasktokens.__all__ == sorted(tasktokens.__all__)
    assert not any(name.startswith("_") for name in tasktokens.__all__)


def test_unknown_names_are_ordinary_mistakes() -> None:
    with pytest.raises(AttributeError, match="did you mean 'load'"):
        tasktokens.laod  # noqa: B018
    assert not hasattr(tasktokens, "x")


def test_importing_is_quick_and_brings_no_library() -> None:
    """The bound is 0.2 s for an idle machine; the best of three, for others may be busy."""
    times = [
        float(run_python("import time; t = time.perf_counter(); import tasktokens; print(time.perf_counter() - t)"))
        for _ in range(3)
    ]
    assert min(times) < 0.2
    loaded = run_python("import sys, tasktokens; dir(tasktokens); print(*sys.modules)").split()
    assert not {"torch", "numpy", "pydantic", "typer", "timm", "PIL"} & set(loaded)


def import_each_first() -> None:
    """Import the package again for each of its public modules, which are the first thing that is used of it."""
    for name in tasktokens._MODULES:
        for loaded in [key for key in sys.modules if key.split(".")[0] == "tasktokens"]:
            del sys.modules[loaded]
        print(getattr(import_module("tasktokens"), name).__name__)
    sys.exit(0)


def test_every_submodule_can_be_the_first_that_is_used() -> None:
    """In no order of imports is there a circle."""
    done = processes.run(before=import_each_first)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [f"tasktokens.{name}" for name in tasktokens._MODULES]


@pytest.mark.parametrize("words", [["-m", "tasktokens"], ["-m", "tasktokens.cli"]])
def test_the_version_and_the_module(words: list[str]) -> None:
    done = subprocess.run([sys.executable, *words, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"tasktokens {version('tasktokens')}\n"
    assert tasktokens.__version__ == version("tasktokens")


@pytest.mark.parametrize("verb", VERBS)
def test_every_path_may_be_text(verb: str) -> None:
    for parameter in inspect.signature(getattr(tasktokens, verb)).parameters.values():
        kinds = str(parameter.annotation)
        if "Path" in kinds:
            assert "str | Path" in kinds, parameter


# -- settings ----------------------------------------------------------------------------------------------------------
VALUES: dict[str, Any] = {"optim": {"lr": 0.5}, "run": {"dir": "here"}}


def test_settings_come_as_file_text_values_or_config(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(VALUES))
    expected = tasktokens.load_config(tmp_path / "my.yaml")
    assert expected.optim.lr == 0.5
    for form in (str(tmp_path / "my.yaml"), tmp_path / "my.yaml", VALUES, expected):
        assert as_config(form) == expected
        assert as_config(form, ["optim.lr=0.25"]).optim.lr == 0.25
        assert as_config(form, ["optim.lr=0.25"]).run == expected.run
    assert VALUES["optim"]["lr"] == 0.5
    assert as_config(expected) is expected


def test_mistakes_in_settings_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'lr'"):
        tasktokens.train({"optim": {"lrr": 1}})
    with pytest.raises(ConfigError, match="cannot read"):
        tasktokens.train(str(tmp_path / "missing.yaml"))
    with pytest.raises(ConfigError, match="must be a list of settings"):
        tasktokens.train({}, "optim.lr=1")
    with pytest.raises(DataError, match="does not exist"):
        tasktokens.init(str(tmp_path / "missing"))
    with pytest.raises(ConfigError, match="did you mean 'nyud'"):
        tasktokens.prepare({"kind": "nyu", "root": str(tmp_path)}, str(tmp_path / "out"))


def test_verbs_take_text(own_folder: Path, tmp_path: Path) -> None:
    started = time.time()
    out = tasktokens.prepare({"kind": "folder", "root": str(own_folder)}, str(tmp_path / "out"), workers=1, quiet=True)
    assert (out / "prepared.json").stat().st_mtime >= started - 1
    report = tasktokens.check(str(out), workers=1, page=str(tmp_path / "page.html"))
    assert report.ok
    assert (tmp_path / "page.html").is_file()
    assert tasktokens.check({"data": {"root": str(out)}}, workers=1).images == report.images
    assert tasktokens.init(str(own_folder), force=True).count == 8
