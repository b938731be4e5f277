"""What the shell completes: kinds of data sets, methods, backbones, settings, suites, tasks of a run.

Names come from the registries. Asking them imports torch, which is too slow for a key press: the names are kept in the
user's cache, one file per version of this package, of timm and of the packages that add components.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

from tasktokens.utils import strict_json
from tasktokens.utils.atomic import cache_folder


def data_kinds(incomplete: str) -> list[str]:
    """Kinds of data sets."""
    return _starting(incomplete, _names().get("data.kind", []))


def methods(incomplete: str) -> list[str]:
    """Names of methods, several separated by commas."""
    before, comma, last = incomplete.rpartition(",")
    return [before + comma + name for name in _starting(last, _names().get("method.name", []))]


def suites(incomplete: str) -> list[str]:
    """Suites that come with the package."""
    folder = Path(__file__).parents[1] / "assets" / "suites"
    return _starting(incomplete, sorted(file.stem for file in folder.glob("*.yaml") if file.stem != "methods"))


def settings(incomplete: str) -> list[str]:
    """``KEY=VALUE``: keys, and the values of those keys that take names."""
    key, equals, value = incomplete.partition("=")
    if not equals and (before := _key_before(incomplete)):
        return _starting(incomplete.lstrip("="), _names().get(before, []))
    if not equals:
        return _starting(incomplete, [f"{key}=" for key in _names().get("keys", [])])
    return [f"{key}={name}" for name in _starting(value, _names().get(key, []))]


def thresholds(incomplete: str) -> list[str]:
    """``TASK=``, of the tasks of the run that the command line names."""
    for word in _words():
        with contextlib.suppress(OSError, ValueError, KeyError):
            described = json.loads((Path(word) / "model" / "model.json").read_text(encoding="utf-8"))
            return _starting(incomplete, [f"{name}=" for name in described["tasks"]])
    return []


def _words() -> list[str]:
    """The command line so far, as the shell hands it over."""
    return (os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", "")).split()


def _starting(incomplete: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _key_before(incomplete: str) -> str:
    """Bash ends words at ``=``: the key that stands before the value."""
    words = _words()
    if words and words[-1] == incomplete and incomplete not in ("", "="):
        words.pop()
    return words[-2] if len(words) > 1 and words[-1] == "=" else ""


def _names() -> dict[str, list[str]]:
    """By setting the names that it takes, and under ``keys`` the settings; what fails completes nothing."""
    try:
        file = _cache()
        with contextlib.suppress(OSError, ValueError):
            found: dict[str, list[str]] = json.loads(file.read_text(encoding="utf-8"))
            return found
        found = _ask()
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", newline="\n", dir=file.parent, delete=False, encoding="utf-8") as new:
            new.write(strict_json.dumps(found))
        os.replace(new.name, file)
    except Exception:  # a shell that completes shows no errors
        return {}
    return found


def _cache() -> Path:
    groups = [group for group in entry_points().groups if group.startswith("tasktokens.")]
    outside = [str(each) for group in groups for each in entry_points(group=group)]
    state = strict_json.dumps([version("tasktokens"), version("timm"), str(Path(__file__).parents[1]), sorted(outside)])
    return cache_folder("completion") / f"{hashlib.sha256(state.encode()).hexdigest()[:16]}.json"


def _ask() -> dict[str, list[str]]:
    """From the registries."""
    import timm
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    from tasktokens.config import Config
    from tasktokens.datasets.base import DATASETS
    from tasktokens.methods import METHODS
    from tasktokens.models import DESIGNS

    names = {
        "data.kind": list(DATASETS), "method.name": list(METHODS), "model.variant": list(DESIGNS),
        "model.backbone": timm.list_models(), "run.track": list(LOGGER_TYPE_TO_CLASS),
    }  # fmt: skip
    return names | {"keys": sorted({*_keys(Config), *names})}


def _keys(settings: Any, prefix: str = "") -> list[str]:
    """The settings below a class of them, as they are written in a shell."""
    found = []
    for name, field in settings.model_fields.items():
        if hasattr(field.annotation, "model_fields"):
            found += _keys(field.annotation, f"{prefix}{name}.")
        else:
            found.append(prefix + name)
    return found
