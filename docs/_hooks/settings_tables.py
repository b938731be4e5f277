"""Tables of all settings, made from the classes that check them."""

from __future__ import annotations

import json
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tasktokens.config.components import DATASETS, METHODS
from tasktokens.config.data import Augmentation, DataSettings
from tasktokens.config.settings import Config, ModelSettings, OptimSettings, RunSettings, TaskOptions

BOUNDS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}"}
NAMES = {bool: "true, false", int: "whole number", float: "number", str: "text", Path: "path", type(None): "null"}


def settings_page() -> str:
    """A heading and a table per section, for Markdown."""
    sections = [
        ("Top level", "", Config, ("seed",)),
        ("`data`: any data set", "data.", DataSettings, None),
        ("`data.augmentation`", "data.augmentation.", Augmentation, None),
        *((f"`data.kind: {kind}`", "data.", cls, _own(cls, DataSettings)) for kind, cls in DATASETS.items()),
        ("`tasks.NAME`", "tasks.NAME.", TaskOptions, None),
        ("`model`", "model.", ModelSettings, None),
        *((f"`method.name: {name}`", "method.", cls.settings_class, None) for name, cls in METHODS.items()),
        ("`optim`", "optim.", OptimSettings, None),
        ("`run`", "run.", RunSettings, None),
    ]
    return "\n\n".join(section(*each) for each in sections)


def section(title: str, prefix: str, cls: type[BaseModel], names: Iterable[str] | None) -> str:
    """The table of one class; ``names`` are the settings that it shows, in place of all."""
    lines = list(rows(prefix, cls, names))
    about = _first_sentence(cls.__doc__)
    table = ["| setting | values | default | meaning |", "|---|---|---|---|", *lines] if lines else ["No settings."]
    return "\n".join([f"## {title}", "", about, "", *table])


def rows(prefix: str, cls: type[BaseModel], names: Iterable[str] | None = None) -> Iterator[str]:
    """A line per setting; settings that are settings themselves are shown one by one."""
    tag = {"data.": "kind", "method.": "name"}.get(prefix)  # stands in the heading
    for name in cls.model_fields if names is None else names:
        field = cls.model_fields[name]
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            if inner is not Augmentation:  # which has a section of its own
                yield from rows(f"{prefix}{name}.", inner)
        elif name != tag:
            yield row(prefix + name, field)


def row(name: str, field: FieldInfo) -> str:
    """One line of a table."""
    default = "required" if field.is_required() else f"`{_plain(field.get_default(call_default_factory=True))}`"
    meaning = (field.description or "").replace("|", "\\|")
    return f"| `{name}` | {_values(field).replace('|', '&#124;')} | {default} | {meaning} |"


def _own(cls: type[BaseModel], shared: type[BaseModel]) -> list[str]:
    return [name for name in cls.model_fields if name not in shared.model_fields]


def _first_sentence(text: str | None) -> str:
    paragraph = " ".join((text or "").split("\n\n")[0].split())
    return paragraph.split(". ")[0].rstrip(".") + "." if paragraph else ""


def _values(field: FieldInfo) -> str:
    bounds = [
        text.format(limit) for each in field.metadata for key, text in BOUNDS.items()
        if (limit := getattr(each, key, None)) is not None
    ]  # fmt: skip
    return ", ".join([_type(field.annotation), *bounds])


def _type(annotation: Any) -> str:
    """A type in words that a writer of YAML knows."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inner[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(each) for each in inner))
    if origin is tuple:
        return "[" + ", ".join(_type(each) for each in inner if each is not Ellipsis) + "]"
    if origin in (list, dict) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return f"{'list' if origin is list else 'map'} of {_type(inner[-1])}" if inner else str(origin.__name__)
    return NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _plain(value: Any) -> str:
    """A default as YAML would have it, on one line."""
    return json.dumps(_simple(value), ensure_ascii=False).strip('"').replace("|", "\\|")


def _simple(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_defaults=True)
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, Mapping):
        return {str(key): _simple(each) for key, each in value.items()}
    return [_simple(each) for each in value] if isinstance(value, list | tuple) else value


def undescribed(cls: type[BaseModel]) -> Iterator[str]:
    """Settings of a class that have no description; a test wants none."""
    for name, field in cls.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from undescribed(inner)
        elif not field.description and name not in ("kind", "name"):
            yield name
