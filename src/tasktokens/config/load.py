"""YAML in and out, ``key=value`` overrides, and errors that name every mistake at once."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tasktokens.config.base import Settings
from tasktokens.config.data import (
    CityscapesData,
    ConcatData,
    DatasetEntry,
    FolderData,
    NyudData,
    PascalContextData,
    RoomsData,
)
from tasktokens.config.settings import Config, HttMethod, MtlMethod, RunSettings, TaskOptions
from tasktokens.errors import ConfigError, did_you_mean
from tasktokens.utils.safe_io import MAX_YAML_BYTES, load_yaml


def load_config(path: Path | None = None, overrides: Iterable[str] = ()) -> Config:
    """Read a YAML file and apply ``a.b=value`` overrides (values are YAML).

    Raises `ConfigError` listing every unknown key (with the nearest known one) and every bad value.
    """
    values, where = _read(path)
    for override in overrides:
        _apply(values, override)
    return parse_config(values, where)


def load_run_config(path: Path | None = None, overrides: Iterable[str] = ()) -> Config:
    """The settings of a run that is to go on: its own, changed by those that are given.

    Which run is meant, ``run.dir`` says, or a path that is its own ``config.yaml``.
    """
    overrides = list(overrides)
    given, where = _read(path)
    for override in overrides:
        _apply(given, override)
    folder = given["run"].get("dir") if isinstance(given.get("run"), dict) else None
    own = Path(str(folder if folder is not None else RunSettings().dir)) / "config.yaml"
    if not own.is_file():
        return parse_config(given, where)  # the trainer says that there is no run
    values = read_yaml(own)
    for name, section in given.items():
        values[name] = section if name == "tasks" else _changed(values.get(name), section)
    values["run"] = {**(values.get("run") or {}), "dir": str(own.parent)}
    return parse_config(values, where)


def _changed(before: Any, given: Any) -> Any:
    """Plain settings, changed by those that are given; those of another kind of data or method stand alone."""
    if not isinstance(before, dict) or not isinstance(given, dict):
        return given
    if any(given.get(key, before.get(key)) != before.get(key) for key in ("kind", "name")):
        return given
    return {**before, **{key: _changed(before.get(key), value) for key, value in given.items()}}


def _read(path: Path | None) -> tuple[dict[str, Any], str]:
    """Plain values of a file, and what to call them. A run's own file means the run that it lies in, even if copied."""
    if path is None:
        return {}, "the settings"
    values = read_yaml(path)
    if path.name == "config.yaml" and (path.parent / "labels.csv").is_file():
        run = values.get("run")
        values["run"] = {**(run if isinstance(run, dict) else {}), "dir": str(path.parent)}
    return values, str(path)


def parse_config(values: Mapping[str, Any], where: str = "the settings") -> Config:
    """Check plain values; see `load_config`."""
    values = dict(values)
    data, method = values.get("data"), values.get("method")
    if isinstance(data, dict) and "kind" not in data:
        values["data"] = {"kind": "folder" if "root" in data else "rooms", **data}
    if isinstance(method, dict) and "name" not in method:
        values["method"] = {"name": "htt", **method}
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        mistakes = "; ".join(_sentence(item) for item in error.errors())
        raise ConfigError(f"{where}: {mistakes}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping. Raises `ConfigError` when the file is missing, not YAML, or no mapping."""
    try:
        with path.open("rb") as file:
            values = load_yaml(file.read(MAX_YAML_BYTES + 1).decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold keys and values, found a {type(values).__name__}")
    return values


def to_yaml(config: Settings) -> str:
    """The settings as YAML that `load_config` reads back to the same value."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _apply(values: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise ConfigError(f"'{override}' is not of the form key=value, such as optim.lr=1e-3")
    *parents, last = key.split(".")
    for parent in parents:
        if not isinstance(values.get(parent), dict):
            values[parent] = {}
        values = values[parent]
    try:
        values[last] = load_yaml(text)
    except ValueError as error:
        raise ConfigError(f"the value of '{override}' is not YAML") from error
    # YAML 1.1 reads 1e-3 as text.
    if isinstance(values[last], str):
        with suppress(ValueError):
            values[last] = float(text)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200
_SHORT.maxlist = _SHORT.maxdict = 20

_TAGS: dict[str, type[Settings]] = {
    "folder": FolderData, "nyud": NyudData, "cityscapes": CityscapesData, "pascal_context": PascalContextData,
    "rooms": RoomsData, "several": ConcatData, "htt": HttMethod, "mtl": MtlMethod,
}  # fmt: skip


def _sentence(item: Any) -> str:
    """One of pydantic's errors for a person: the key as typed, what was expected, what was found."""
    model: Any = Config
    typed: list[str] = []
    for part in map(str, item["loc"]):
        if part in _TAGS and (typed in (["data"], ["method"]) or typed[-1:] == ["source"]):
            model = _TAGS[part]  # pydantic names the chosen member of a union here
            continue
        known = _known(model)
        typed.append(part)
        if part.isdigit() and typed[:-1] == ["data", "parts"]:
            model = DatasetEntry
            continue
        model = TaskOptions if typed[0] == "tasks" else known[part].annotation if part in known else None
    key = ".".join(typed)
    if item["type"] == "removed":
        name = ".".join([*typed, item["ctx"]["key"]])
        return f"'{name}' is {_SHORT.repr(item['ctx']['found'])}, but {item['msg']}; leave the key out"
    if item["type"] == "extra_forbidden":
        return f"unknown key '{key}'{did_you_mean(typed[-1], known)}"
    if item["type"] == "union_tag_invalid":
        found, tags = item["ctx"]["tag"], item["ctx"]["expected_tags"].replace("'", "").split(", ")
        return f"'{key}' has no '{found}'{did_you_mean(found, tags)}; expected one of: {', '.join(tags)}"
    return f"'{key}': {item['msg'][0].lower()}{item['msg'][1:]}, found {_SHORT.repr(item['input'])}"


def _known(model: Any) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = getattr(model, "model_fields", {})
    return fields
