"""What all settings share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Settings(BaseModel):
    """Base of all settings: unknown keys are errors, values do not change after checking."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _usable_path(cls, value: Any) -> Any:
        if isinstance(value, Path):
            if "\0" in str(value):
                raise ValueError("a path cannot hold the character NUL")
            os.fsencode(value)  # a ValueError for text that no file system can hold
        return value


# Bounds are far above what is useful: they turn a slip of the finger into an error, not into a machine without memory.
Side = Annotated[int, Field(ge=1, le=2**15)]
Seed = Annotated[int, Field(ge=0, lt=2**29)]
