"""The settings of a run as others may read them: without paths, which are nobody's business and lie nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasktokens.config import Config
from tasktokens.hub.address import is_address, parse_address
from tasktokens.utils.safe_io import load_yaml, read_text

_LEFT_OUT = object()


def public_settings(config: Config, changed: bool = False) -> dict[str, Any]:
    """The settings as plain values that `load_config` reads, without paths and without the section ``run``.

    Args:
        config: of a run.
        changed: only those that differ from their defaults, and ``kind`` and ``name``, which say what the others mean.
    """
    sections = config.model_dump(mode="python", exclude={"run"}, exclude_defaults=changed)
    plain = config.model_dump(mode="json", exclude={"run"}, exclude_defaults=changed)
    found: dict[str, Any] = _without_paths(sections, plain)
    data, method = found.setdefault("data", {}), found.setdefault("method", {})
    data["kind"], method["name"] = config.data.kind, config.method.name
    if Path(str(data.get("labels", ""))).suffix:  # the file of a split
        del data["labels"]
    if config.run.evaluate not in (None, "auto"):
        found["run"] = {"evaluate": config.run.evaluate}
    return found


def _without_paths(value: Any, plain: Any) -> Any:
    """The plain form of a value without the paths in it; a path itself is `_LEFT_OUT`."""
    if isinstance(value, Path):
        return _LEFT_OUT
    if isinstance(value, dict):
        pairs = {key: _without_paths(each, plain[key]) for key, each in value.items()}
        return {key: each for key, each in pairs.items() if each is not _LEFT_OUT}
    if isinstance(value, list | tuple):
        parts = [_without_paths(each, of_plain) for each, of_plain in zip(value, plain, strict=True)]
        return [each for each in parts if each is not _LEFT_OUT]
    return plain


def data_name(config: Config) -> str:
    """What the data of a run is called: the name in its ``dataset.yaml``, else its kind."""
    root = getattr(config.data, "root", None)
    if root is None:
        return config.data.kind
    if is_address(root):
        return str(parse_address(root))
    try:
        name = load_yaml(read_text(Path(root) / "dataset.yaml"))["name"]
    except (OSError, ValueError, TypeError, KeyError):
        return config.data.kind
    return str(name)
