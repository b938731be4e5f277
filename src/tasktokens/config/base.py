"""What all settings share, and fields whose settings class a registered component brings along."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, field_validator, model_validator
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from tasktokens.errors import ConfigError


@dataclass(frozen=True)
class Removed:
    """A setting that earlier versions had.

    Attributes:
        what: the feature that it turned on.
        off: the value that turned it off; None for a setting that had no effect unless another turned it on.
    """

    what: str
    off: Any = None


class Settings(BaseModel):
    """Base of all settings: unknown keys are errors, values do not change after checking."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    removed: ClassVar[Mapping[str, Removed]] = {}
    """Settings of earlier versions, such as a run's ``config.yaml`` holds: left out where they were off."""

    @model_validator(mode="before")
    @classmethod
    def _without_removed(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        for key in values.keys() & cls.removed.keys():
            gone, found = cls.removed[key], values[key]
            if gone.off is not None and found != gone.off:
                raise PydanticCustomError(
                    "removed", "{what} was removed after version 0.1, since it brought no gain (docs/dev/lab-log.md)",
                    {"what": gone.what, "key": key, "found": found},
                )  # fmt: skip
        return {key: value for key, value in values.items() if key not in cls.removed}

    @model_validator(mode="before")
    @classmethod
    def _paths_as_text(cls, values: Any) -> Any:
        """A folder may be called 20241128 or true. (Of 1.50 the text is lost: it has to be in quotes.)"""
        if not isinstance(values, dict):
            return values
        paths = [key for key, field in cls.model_fields.items() if takes_path(field.annotation)]
        return values | {key: str(values[key]).lower() for key in paths if isinstance(values.get(key), int)}

    @field_validator("*")
    @classmethod
    def _usable_path(cls, value: Any) -> Any:
        if isinstance(value, Path):
            if "\0" in str(value):
                raise ValueError("a path cannot hold the character NUL")
            os.fsencode(value)  # a ValueError for text that no file system can hold
        return value


class MethodSettings(Settings):
    """Settings of a method: each has a ``name``, a ``Literal`` whose default is that of its registration."""

    as_published: ClassVar[Mapping[str, Any]] = {}
    """Defaults of a network that is built to the letter of its paper (``model.variant=paper``), where ours differ."""

    name: str

    @property
    def uses_holdout(self) -> bool:
        """Whether the method measures something on visible labels of the held-out images."""
        return False

    @classmethod
    def step_settings(cls) -> list[str]:
        """The settings that say how long stages are: ``steps``, and all that end with ``_steps``."""
        return [name for name in cls.model_fields if name == "steps" or name.endswith("_steps")]

    def scaled(self, factor: float) -> Self:
        """The same method with every number of steps times a factor, at least 1 where there was one.

        Raises `ConfigError` where it has no such setting.
        """
        found = {name: getattr(self, name) for name in self.step_settings()}
        steps = {name: max(1, round(factor * value)) for name, value in found.items() if value}
        if not steps:
            raise ConfigError(f"method '{self.name}' has no setting of steps that minutes could set")
        return self.model_copy(update=steps)


def takes_path(annotation: Any) -> bool:
    """Whether a setting of this type may be a path, such as ``Path | None``."""
    return Path in _members(annotation)


def _members(annotation: Any) -> Iterator[Any]:
    """The types that an annotation joins by ``|`` and `Annotated`."""
    if get_origin(annotation) not in (Annotated, Union, UnionType):
        yield annotation
        return
    for member in get_args(annotation):
        yield from _members(member)


# Bounds are far above useful values: they turn a typing error into a message before memory runs out.
Side = Annotated[int, Field(ge=1, le=2**15)]
"""A height or width in pixels."""
Seed = Annotated[int, Field(ge=0, lt=2**29)]
"""A seed; small enough that those derived from it are valid for every generator."""


@dataclass(frozen=True)
class Chosen:
    """Metadata of a field whose value says by a tag which settings class it has: ``Annotated[Base, Chosen(...)]``.

    Classes are looked up when a value is checked, so components that are registered later are known too.

    Args:
        tag: the key that chooses, such as ``kind``.
        classes: settings class by tag.
        default: the tag of values that have none.
        aliases: former tags, as older configurations have them.
    """

    tag: str
    classes: Callable[[], Mapping[str, type[Settings]]]
    default: Callable[[Mapping[str, Any]], str] = lambda values: ""
    aliases: tuple[tuple[str, str], ...] = ()

    def tag_of(self, value: Mapping[str, Any]) -> str:
        """The tag of plain values."""
        tag = str(value[self.tag]) if self.tag in value else self.default(value)
        return dict(self.aliases).get(tag, tag)

    def validate(self, value: Any) -> Any:
        """Check plain values by the class that they choose; settings stay as they are."""
        if isinstance(value, Settings):
            return value
        if not isinstance(value, Mapping):
            raise PydanticCustomError("dict_type", "Input should be keys and values")
        tag, classes = self.tag_of(value), self.classes()
        if tag not in classes:
            context = {"tag": tag, "expected_tags": ", ".join(classes), "key": self.tag}
            raise PydanticCustomError("union_tag_invalid", "unknown tag '{tag}'", context)
        return classes[tag].model_validate({**value, self.tag: tag})

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def dump(value: Settings, info: core_schema.SerializationInfo) -> dict[str, Any]:
            return value.model_dump(
                mode=info.mode,
                exclude_unset=info.exclude_unset,
                exclude_defaults=info.exclude_defaults,
                exclude_none=info.exclude_none,
            )

        serializer = core_schema.plain_serializer_function_ser_schema(dump, info_arg=True)
        return core_schema.no_info_plain_validator_function(self.validate, serialization=serializer)
