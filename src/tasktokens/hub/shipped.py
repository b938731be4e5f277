"""The model that ships with the package, and what its name means."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

SHIPPED = "demo"
"""Its name wherever a model is taken. A file or folder of this name in the working directory comes before it."""


def shipped_model() -> Path:
    """The folder of the model that ships with the package."""
    return Path(str(files("tasktokens") / "assets" / "demo_model"))


def names_shipped(path: str | Path) -> bool:
    """Whether a path that a user gave means the model that ships: it is its name, and nothing here is called so."""
    return Path(path) == Path(SHIPPED) and not os.path.lexists(path)
