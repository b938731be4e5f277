"""YAML in and out, ``key=value`` overrides, and errors that name every wrong setting at once."""

from __future__ import annotations

import copy
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from tasktokens.config.base import Chosen, Settings, takes_path
from tasktokens.config.settings import Config, RunSettings, TaskOptions
from tasktokens.errors import ConfigError, did_you_mean
from tasktokens.utils.safe_io import MAX_YAML_BYTES, decode_text, dump_yaml, load_yaml


def load_config(path: str | Path | None = None, overrides: Iterable[str] = ()) -> Config:
    """Read a YAML file and apply ``a.b=value`` overrides (values are YAML).

    Args:
        path: the file; None: the defaults alone.
        overrides: such as ``["optim.lr=1e-3", "run.dir=runs/mine"]``, the later before the earlier.

    Raises:
        ConfigError: listing every unknown key (with the nearest known one) and every bad value.

    Examples:
        >>> import tasktokens
        >>> tasktokens.load_config(overrides=["optim.lr=0.002"]).optim.lr
        0.002
    """
    values, where = _read(path)
    for override in _listed(overrides):
        _apply(values, override)
    return parse_config(values, where)


def as_config(config: Config | Mapping[str, Any] | str | Path, overrides: Iterable[str] = ()) -> Config:
    """The settings that are meant by a `Config`, by plain values as in a YAML file, or by the path of such a file.

    Raises `ConfigError`; see `load_config`.
    """
    if isinstance(config, str | Path):
        return load_config(config, overrides)
    values = config.model_dump(mode="json") if isinstance(config, Config) else copy.deepcopy(dict(config))
    changes = _listed(overrides)
    if isinstance(config, Config) and not changes:
        return config
    for override in changes:
        _apply(values, override)
    return parse_config(values)


def load_run_config(path: str | Path | None = None, overrides: Iterable[str] = ()) -> Config:
    """The settings of a run to resume: its own, overridden by those that are given.

    Which run is meant, ``run.dir`` says, or a path that is its own ``config.yaml``.
    """
    given, where = _read(path)
    for override in _listed(overrides):
        _apply(given, override)
    folder = given["run"].get("dir") if isinstance(given.get("run"), dict) else None
    run_file = Path(str(folder if folder is not None else RunSettings().dir)) / "config.yaml"
    if not run_file.is_file():
        return parse_config(given, where)  # the trainer says that there is no run
    values = read_yaml(run_file)
    for name, section in given.items():
        values[name] = section if name == "tasks" else _changed(values.get(name), section, _TAGS.get(name))
    values["run"] = {**(values.get("run") or {}), "dir": str(run_file.parent)}
    return parse_config(values, where)


_TAGS = {"data": "kind", "method": "name"}
"""Keys that say what the other keys of a section mean."""


def _changed(before: Any, given: Any, tag: str | None = None) -> Any:
    """Plain settings, changed by those that are given; those of another kind of data or method stand alone."""
    if not isinstance(before, dict) or not isinstance(given, dict):
        return given
    if tag is not None and given.get(tag, before.get(tag)) != before.get(tag):
        return given
    return {**before, **{key: _changed(before.get(key), value) for key, value in given.items()}}


def _read(path: str | Path | None) -> tuple[dict[str, Any], str]:
    """Plain values of a file, and what to call them. A run's own file means the run that it lies in, even if copied."""
    if path is None:
        return {}, "the settings"
    path = Path(path)
    values = read_yaml(path)
    if path.name == "config.yaml" and (path.parent / "labels.csv").is_file():
        run = values.get("run")
        values["run"] = {**(run if isinstance(run, dict) else {}), "dir": str(path.parent)}
    return values, str(path)


def parse_config(values: Mapping[str, Any], where: str = "the settings") -> Config:
    """Check plain values; see `load_config`."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        try:
            items = error.errors()
        except UnicodeEncodeError:  # pydantic quotes what is wrong
            raise ConfigError(f"{where}: \\ud800 to \\udfff are no characters; write the character itself") from None
        wrong = "; ".join(_sentence(item, values) for item in items)
        raise ConfigError(f"{where}: {wrong}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping. Raises `ConfigError` when the file is missing, not YAML, or no mapping."""
    try:
        with path.open("rb") as file:
            values = load_yaml(decode_text(file.read(MAX_YAML_BYTES + 1)))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold keys and values, found a {type(values).__name__}")
    return values


def to_yaml(config: Settings) -> str:
    """The settings as YAML that `load_config` reads back to the same value."""
    return dump_yaml(config.model_dump(mode="json"))


def _listed(overrides: Iterable[str]) -> list[str]:
    """The overrides as a list. Text is rejected: as an iterable it would be single letters."""
    if isinstance(overrides, str):
        raise ConfigError(f"overrides must be a list of settings, found the text '{overrides}'; give ['{overrides}']")
    return list(overrides)


def _apply(values: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise ConfigError(f"'{override}' is not of the form key=value, such as optim.lr=1e-3")
    *parents, last = key.split(".")
    inner = values
    for parent in parents:
        if not isinstance(inner.get(parent), dict):
            inner[parent] = {}
        inner = inner[parent]
    inner[last] = text.strip()
    path = _is_path(values, parents, last)
    try:
        value = load_yaml(text)
    except ValueError as error:
        if path:
            return
        raise ConfigError(f"the value of '{override}' cannot be read as YAML: {error}") from error
    if not (path and isinstance(value, bool | int | float)):
        inner[last] = value


def _is_path(values: Mapping[str, Any], parents: Iterable[str], last: str) -> bool:
    """Whether a key means a path, in the settings classes that the values choose."""
    model: Any = Config
    inner: Any = values
    for parent in parents:
        model, inner = _inner(model, parent, inner)
    field = _fields(model).get(last)
    return field is not None and takes_path(field.annotation)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200
_SHORT.maxlist = _SHORT.maxdict = 20


def _sentence(item: Any, values: Any) -> str:
    """One of pydantic's errors for a person: the key as typed, what was expected, what was found."""
    model: Any = Config
    *parents, last = item["loc"] or ("",)
    for part in parents:
        model, values = _inner(model, part, values)
    key = ".".join(map(str, item["loc"]))
    if item["type"] == "removed":
        name = ".".join([*map(str, item["loc"]), item["ctx"]["key"]])
        return f"'{name}' is {_SHORT.repr(item['ctx']['found'])}, but {item['msg']}; remove the key"
    if item["type"] == "extra_forbidden":
        return f"unknown key '{key}'{did_you_mean(str(last), _fields(model))}"
    if item["type"] == "union_tag_invalid":
        found, tags = item["ctx"]["tag"], item["ctx"]["expected_tags"].split(", ")
        return f"'{key}' has no '{found}'{did_you_mean(found, tags)}; expected one of: {', '.join(tags)}"
    if item["type"] == "path_type" and isinstance(item["input"], float):
        return f"'{key}': a path that looks like a number must be in quotes, found {item['input']}"
    return f"'{key}': {item['msg'][0].lower()}{item['msg'][1:]}, found {_SHORT.repr(item['input'])}"


def _inner(model: Any, part: Any, values: Any) -> tuple[Any, Any]:
    """The settings class and the plain values of a part of others; None where the part is no section."""
    inner = values.get(part) if isinstance(values, Mapping) else None
    if isinstance(part, int):
        inner = values[part] if isinstance(values, Sequence) and part < len(values) else None
        return model, inner
    field = _fields(model).get(part)
    if field is None:
        return (model if model is TaskOptions else None), inner
    for metadata in field.metadata:
        if isinstance(metadata, Chosen):
            return metadata.classes().get(metadata.tag_of(inner if isinstance(inner, Mapping) else {})), inner
    return _settings_in(field.annotation), inner


def _settings_in(annotation: Any) -> Any:
    """The settings class that a field holds, be it in a list, a mapping or beside None."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation
    return next((found for each in get_args(annotation) if (found := _settings_in(each)) is not None), None)


def _fields(model: Any) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = getattr(model, "model_fields", {})
    return fields
