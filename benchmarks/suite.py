"""A suite: a data set's settings, and what each method changes of them (``suites/*.yaml``)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tasktokens.config import Config, load_config, parse_config

METHODS = Path(__file__).parent / "suites" / "methods.yaml"


@dataclass(frozen=True)
class Suite:
    """What a suite's file says.

    Attributes:
        settings: plain values that all methods share.
        steps: optimiser steps of a network, of which methods take multiples.
        primary: the metric of each task that counts.
        methods: what each method changes; ``default`` names those that are made unless others are asked for.
    """

    name: str
    settings: Mapping[str, Any]
    steps: int
    primary: Mapping[str, str]
    methods: Mapping[str, Mapping[str, Any]]
    default: Sequence[str]
    labels: Sequence[str]
    seeds: Sequence[int]

    def method(self, name: str) -> Mapping[str, Any]:
        """A method's changes. Raises `SystemExit` with the methods there are."""
        if name not in self.methods:
            raise SystemExit(f"no method '{name}'; there are {', '.join(self.methods)}")
        return self.methods[name]

    def own_data(self, method: str) -> bool:
        """Whether each single-task network of this method has its own part of the data."""
        return isinstance(self.method(method).get("each_task"), Mapping)

    def config(self, method: str | None, task: str | None, changes: Mapping[str, Any]) -> Config:
        """The settings of a run; without a method, those that all share."""
        values: dict[str, Any] = copy.deepcopy(dict(self.settings))
        tasks = {name: (values.get("tasks") or {}).get(name, {}) for name in ([task] if task else self.primary)}
        values["tasks"] = tasks
        own = self.method(method) if method else {}
        if "steps" in own:
            values["method"] = {"steps": round(own["steps"] * self.steps)}
        elif own.get("stages", "suite") != "suite":
            first, second = (round(share * self.steps) for share in own["stages"])
            values["method"] |= {"schedule": "two-stage", "stage1_steps": first, "stage2_steps": second}
            _set(values, "data.augmentation.late_from", first / (first + second))  # the students' steps
        of_task = own["each_task"][task] if task and method and self.own_data(method) else {}
        for key, value in {**own.get("set", {}), **of_task, **changes}.items():
            _set(values, key, value)
        return parse_config(values)


def read_suite(path: Path, overrides: Sequence[str]) -> Suite:
    """Read a suite; ``overrides`` change the settings of all its methods. Raises `SystemExit` for what it lacks."""
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    config = load_config(path.parent / values["settings"], overrides).model_dump(mode="json", exclude_unset=True)
    for key in values.get("needs", ()):
        section, name = key.split(".")
        if config.get(section, {}).get(name) is None:
            raise SystemExit(f"{path.name} needs {key}=...; its first lines say what that is")
    shared = yaml.safe_load(METHODS.read_text(encoding="utf-8"))
    return Suite(
        path.stem, config, values["steps"], values["primary"], shared | values.get("define", {}), values["methods"],
        values.get("labels", [str(config["data"].get("labels", "one"))]), values.get("seeds", [0, 1, 2]),
    )  # fmt: skip


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
    values[last] = value
