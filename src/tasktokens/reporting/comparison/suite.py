"""A suite: the settings that all methods of a comparison share, and what each method changes (``*.yaml``)."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import as_file, files
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator
from rich.table import Table

from tasktokens.config import Config, parse_config
from tasktokens.config.base import Settings
from tasktokens.config.load import as_config, read_yaml
from tasktokens.errors import ConfigError, did_you_mean
from tasktokens.utils.console import table_console

SHIPPED = files("tasktokens") / "assets" / "suites"
"""Suites that come with the package, by name."""

METHODS = "methods.yaml"
"""What the methods that suites may name change, unless a suite says otherwise itself."""


class MethodOfSuite(Settings):
    """What a method changes of a suite's settings. Steps are multiples of the suite's ``steps``."""

    steps: float | None = Field(None, gt=0, description="of a method with one stage; method.steps")
    stages: tuple[float, float] | None = Field(
        None, description="of HTT: its stages; method.stage1_steps, stage2_steps"
    )
    after: str | None = Field(None, description="the method whose network this one goes on from: it is the teacher")
    each_task: bool | dict[str, dict[str, Any]] = Field(
        False, description="a network per task, together one row; by task: settings of its own"
    )
    set: dict[str, Any] = Field(default_factory=dict, description="settings, such as method.name: mtl")

    @model_validator(mode="after")
    def _one_length(self) -> MethodOfSuite:
        if (self.steps is None) == (self.stages is None):
            raise ValueError("give either steps, or stages")
        return self


class Suite(Settings):
    """A comparison.

    Attributes:
        settings: plain values that all runs share. steps: optimiser steps per network.
        cost: ``steps``: each network takes as many; ``total``: each method takes as much time as ``cost_of``.
        methods: that are made, in the order of the table. define: what methods change, by name.
        labels: label settings. seeds: of the runs. split: that is measured on.
        label_seeds: of those seeds, the ones of a label setting that has fewer.
        reference: the method that Δ_MTL is against, of the same data and labels unless ``reference_data`` or
            ``reference_labels`` say which. against: the method that differences are tested against.
        data: settings of each data set by its name, ``steps`` among them where they differ; one without a name stands
            for those in ``settings``.
    """

    name: str
    settings: dict[str, Any]
    steps: int = Field(ge=1)
    methods: list[str] = Field(min_length=1)
    define: dict[str, MethodOfSuite] = Field(default_factory=dict)
    labels: list[str] = Field(["one"], min_length=1)
    seeds: list[int] = Field([0, 1, 2], min_length=1)
    label_seeds: dict[str, list[int]] = Field(default_factory=dict)
    cost: Literal["steps", "total"] = "steps"
    cost_of: str = "htt"
    reference: str = "stl"
    reference_data: str | None = None
    reference_labels: str | None = None
    against: str = "mtl"
    data: dict[str, dict[str, Any]] = Field({"": {}}, min_length=1)
    split: str = "test"

    def method(self, name: str) -> MethodOfSuite:
        """A method's changes. Raises `ConfigError` naming the methods there are."""
        if name not in self.define:
            raise ConfigError(
                f"suite {self.name} has no method '{name}'{did_you_mean(name, self.define)}; known: "
                f"{', '.join(self.define)}"
            )
        return self.define[name]

    def seeds_of(self, labels: str) -> list[int]:
        """The seeds of a label setting."""
        return [seed for seed in self.seeds if seed in self.label_seeds.get(labels, self.seeds)]

    def steps_of(self, data: str) -> int:
        """The optimiser steps per network on a data set."""
        return int(self.data[data].get("steps", self.steps))

    def chain(self, name: str) -> list[str]:
        """The methods that this one goes on from, the first one first, then itself. Raises `ConfigError`."""
        names = [name]
        while (after := self.method(names[0]).after) is not None:
            if after in names:
                raise ConfigError(f"suite {self.name}: method '{name}' goes on from itself ({' after '.join(names)})")
            names.insert(0, after)
        return names

    def config(
        self, method: str | None, data: str, task: str | None, changes: Mapping[str, Any], scale: float = 1.0
    ) -> Config:
        """The settings of a run; without a method, those that all share.

        Args:
            task: the only task that is learned; None: all.
            changes: by key, such as ``run.dir``. scale: factor of the suite's steps.

        Raises `ConfigError` naming every mistake.
        """
        values = copy.deepcopy(self.settings)
        steps = scale * self.steps_of(data)
        for key, value in self.data[data].items():
            if key != "steps":
                _set(values, key, value)
        own = self.method(method) if method else None
        if task is not None:
            values["tasks"] = {task: (values.get("tasks") or {}).get(task, {})}
        if own is not None:
            _set_steps(values, own, steps)
            for key, value in own.set.items():
                _set(values, key, value)
            if task is not None and isinstance(own.each_task, dict):
                for key, value in own.each_task.get(task, {}).items():
                    _set(values, key, value)
        for key, value in changes.items():
            _set(values, key, value)
        return parse_config(values, f"suite {self.name}" + (f", method {method}" if method else ""))


def _set_steps(values: dict[str, Any], own: MethodOfSuite, steps: float) -> None:
    if own.steps is not None:
        values["method"] = {"steps": max(1, round(own.steps * steps))}
    elif own.stages is not None:
        first, second = (round(share * steps) for share in own.stages)
        lengths = {"stage1_steps": first, "stage2_steps": second}
        shared = values.get("method", {})
        name = shared.get("name", "htt")
        if own.set.get("method.name", name) != name:  # what is shared are another method's settings
            values["method"] = lengths
        else:
            values["method"] = shared | ({"schedule": "two-stage"} if name == "htt" else {}) | lengths
        if values.get("data", {}).get("augmentation", {}).get("late_scale"):  # the students' zoom
            _set(values, "data.augmentation.late_from", first / max(1, first + second))


def read_suite(suite: str | Path, overrides: Iterable[str] = (), **changes: Any) -> Suite:
    """Read a suite: a file, or the name of one that is shipped.

    Args:
        overrides: settings that all runs share, such as ``["data.root=DIR"]``.
        changes: fields of `Suite`; None leaves one as it is.

    Raises:
        ConfigError: there is no such suite, or it is not right; or it needs a setting that is not given.

    Examples:
        >>> read_suite("quick").methods
        ['stl', 'mtl', 'htt']
    """
    path = Path(suite)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return _parse(read_yaml(path), path.stem, path.parent, overrides, changes)
    names = shipped()
    if str(suite) not in names:
        raise ConfigError(
            f"no suite '{suite}'{did_you_mean(str(suite), names)}; give a YAML file, or one of: {', '.join(names)}"
        )
    with as_file(SHIPPED / f"{suite}.yaml") as path:
        return _parse(read_yaml(path), str(suite), path.parent, overrides, changes)


def shipped() -> list[str]:
    """Names of the suites that come with the package."""
    return sorted(file.name[:-5] for file in SHIPPED.iterdir() if file.name.endswith(".yaml") and file.name != METHODS)


def about(name: str) -> str:
    """The first lines of a shipped suite: what it is, and what must be given.

    Examples:
        >>> about("quick").startswith("A first table")
        True
    """
    lines = (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    return " ".join(line.lstrip("# ") for line in takewhile(lambda line: line.startswith("#"), lines))


def print_suites() -> None:
    """The shipped suites on the terminal, and what each is."""
    table = Table("suite", "what it is")
    for name in shipped():
        table.add_row(name, about(name))
    table_console().print(table)


def _parse(
    values: dict[str, Any], name: str, folder: Path, overrides: Iterable[str], changes: Mapping[str, Any]
) -> Suite:
    settings = values.pop("settings", {})
    needs = values.pop("needs", [])
    shared = read_yaml(folder / settings) if isinstance(settings, str) else settings
    if not isinstance(shared, Mapping):
        raise ConfigError(f"suite {name}: settings must be keys and values, or the path of a YAML file")
    given = as_config(shared, overrides).model_dump(mode="json", exclude_unset=True)
    for key in needs:
        section, last = str(key).split(".")
        if (given.get(section) or {}).get(last) is None:
            where = "tasktokens compare --list says" if name in shipped() else "its first lines say"
            raise ConfigError(f"suite {name} needs {key}=...; {where} what that is")
    with as_file(SHIPPED / METHODS) as path:
        known = read_yaml(path)
    values = {**values, "settings": given, "name": values.get("name", name)}
    values |= {key: value for key, value in changes.items() if value is not None}
    values["define"] = {**known, **(values.get("define") or {})}
    try:
        found = Suite.model_validate(values)
    except ValidationError as error:
        texts = (f"'{'.'.join(map(str, e['loc']))}': {e['msg']}" for e in error.errors())
        raise ConfigError(f"suite {name}: {'; '.join(texts)}") from error
    check_suite(found)
    return found


def check_suite(suite: Suite) -> None:
    """Find what is wrong with a suite before anything runs: each method's settings are made once.

    Raises `ConfigError`.
    """
    if suite.reference_data is not None and suite.reference_data not in suite.data:
        raise ConfigError(
            f"suite {suite.name}: reference_data '{suite.reference_data}' is no data set of it; "
            f"found: {', '.join(suite.data)}"
        )
    if suite.reference_labels is not None and suite.reference_labels not in suite.labels:
        raise ConfigError(
            f"suite {suite.name}: reference_labels '{suite.reference_labels}' is no label setting of it; found: "
            f"{', '.join(suite.labels)}"
        )
    if not any(suite.seeds_of(labels) for labels in suite.labels):
        raise ConfigError(f"suite {suite.name}: label_seeds leaves no label setting any of the seeds {suite.seeds}")
    for method in suite.methods:
        if suite.cost == "total" and suite.method(method).after is not None:
            raise ConfigError(
                f"suite {suite.name}: with cost: total, '{method}' cannot go on from another run; give it stages of "
                f"its own"
            )
        for name in suite.chain(method):
            for data in suite.data:
                suite.config(name, data, None, {})


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        inner = values.get(parent)
        if not isinstance(inner, dict):
            inner = values[parent] = {}
        values = inner
    values[last] = value


def task_columns(tasks: Sequence[tuple[str, str]]) -> dict[str, str]:
    """What the column of each task's primary metric is called: the metric, with its task where two share one.

    Examples:
        >>> task_columns([("semseg", "mIoU"), ("depth", "absErr"), ("parts", "mIoU")])
        {'semseg': 'semseg/mIoU', 'depth': 'absErr', 'parts': 'parts/mIoU'}
    """
    metrics = [metric for _, metric in tasks]
    return {task: metric if metrics.count(metric) == 1 else f"{task}/{metric}" for task, metric in tasks}
