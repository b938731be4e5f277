"""What all settings share."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError


@dataclass(frozen=True)
class Removed:
    """A setting that earlier versions had.

    Attributes:
        what: it turned on.
        off: the value that did so not; None for a setting that had no effect unless another turned it on.
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
                    "removed", "{what} left after version 0.1: it was measured to be worth nothing (docs/lab-log.md)",
                    {"what": gone.what, "key": key, "found": found},
                )  # fmt: skip
        return {key: value for key, value in values.items() if key not in cls.removed}

    @model_validator(mode="before")
    @classmethod
    def _paths_as_text(cls, values: Any) -> Any:
        """A folder may be called 20241128 or true. (Of 1.50 the text is lost: it has to be in quotes.)"""
        if not isinstance(values, dict):
            return values
        odd = {key: value for key, value in values.items() if isinstance(value, int) and takes_path(cls, [str(key)])}
        return values | {key: str(value).lower() for key, value in odd.items()}

    @field_validator("*")
    @classmethod
    def _usable_path(cls, value: Any) -> Any:
        if isinstance(value, Path):
            if "\0" in str(value):
                raise ValueError("a path cannot hold the character NUL")
            os.fsencode(value)  # a ValueError for text that no file system can hold
        return value


def takes_path(model: Any, key: Sequence[str]) -> bool:
    """Whether a setting is a path, in any of the models that a union allows.

    >>> from tasktokens.config import Config
    >>> takes_path(Config, ["run", "dir"]), takes_path(Config, ["data", "root"]), takes_path(Config, ["run", "keep"])
    (True, True, False)
    """
    allowed = list(_members(model))
    if not key:
        return Path in allowed
    fields = [member.model_fields for member in allowed if isinstance(member, type) and issubclass(member, BaseModel)]
    return any(takes_path(known[key[0]].annotation, key[1:]) for known in fields if key[0] in known)


def _members(annotation: Any) -> Iterator[Any]:
    """The types that an annotation joins by ``|`` and `Annotated`."""
    if get_origin(annotation) not in (Annotated, Union, UnionType):
        yield annotation
        return
    for member in get_args(annotation):
        yield from _members(member)


# Bounds are far above what is useful: they turn a slip of the finger into an error, not into a machine without memory.
Side = Annotated[int, Field(ge=1, le=2**15)]
Seed = Annotated[int, Field(ge=0, lt=2**29)]
