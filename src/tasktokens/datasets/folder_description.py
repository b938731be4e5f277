"""What the ``dataset.yaml`` of a folder says: its tasks, and where their files lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasktokens.config import read_yaml
from tasktokens.errors import ConfigError, DataError, did_you_mean
from tasktokens.tasks import Task, build_task
from tasktokens.tasks.names import check_distinct
from tasktokens.utils.listing import existing_form


def described_tasks(root: Path) -> dict[str, Task]:
    """The tasks that the ``dataset.yaml`` of a folder describes. Raises `DataError` or `ConfigError`."""
    return read_description(root)[1]


def described_folders(root: Path) -> tuple[dict[str, Task], Path, dict[str, Path]]:
    """The tasks of a folder, where its images lie and the labels of each task, for those who list them themselves.

    Raises `ConfigError` for a folder of which listing the files does not say all: with a manifest, labels to be
    resized, or classes that were labelled in some images only.
    """
    values, tasks, settings = read_description(root)
    special = [key for key in ("manifest", "labelled") if values.get(key)]
    special += ["resize" for options in settings.values() if options["resize"]]
    if special:
        raise ConfigError(
            f"dataset.yaml of {root} has '{special[0]}', which shards do not know; train on it and discover without "
            f"--images and --shards, or give the folder of the images alone"
        )
    images = folder_below(root, values.get("images", "images"), "the images")
    return tasks, images, {name: folder_below(root, options["folder"] or name, f"task '{name}'")
                           for name, options in settings.items()}  # fmt: skip


def read_description(root: Path) -> tuple[dict[str, Any], dict[str, Task], dict[str, dict[str, Any]]]:
    """What ``dataset.yaml`` says: all of it, the tasks, and where their files lie."""
    description = root / "dataset.yaml"
    if not description.is_file():
        raise DataError(
            f"{root} has no dataset.yaml that names its tasks; `tasktokens init {root}` writes one by looking at the "
            f"folder (docs/reference/data.md)"
        )
    values = read_yaml(description)
    for key in values:
        if key not in _KEYS:
            raise ConfigError(f"{description}: unknown key '{key}'{did_you_mean(key, _KEYS)}")
    specs = values.get("tasks")
    if not isinstance(specs, dict) or not specs:
        raise ConfigError(f"{description} must list at least one task under 'tasks'")
    for name, spec in specs.items():
        if not isinstance(spec, dict):
            raise ConfigError(f"{description}: task '{name}' must have settings such as kind: depth, found {spec!r}")

    settings = {name: {key: spec.get(key) for key in _FILE_KEYS} for name, spec in specs.items()}
    for name, options in settings.items():
        if options["resize"] not in (None, True, False):
            raise ConfigError(
                f"{description}: 'resize' of task '{name}' must be true or false, found {options['resize']!r}"
            )
    tasks = {name: build_task(name, {k: v for k, v in spec.items() if k not in _FILE_KEYS})
             for name, spec in specs.items()}  # fmt: skip
    check_distinct(tasks)
    return values, tasks, settings


_KEYS = ("name", "images", "manifest", "splits", "labels", "labelled", "tasks")

_FILE_KEYS = ("folder", "resize")
"""Settings of a task that say where its files lie and how they fit the images, not what they mean."""


def path_below(root: Path, value: Any) -> Path:
    """A path that ``dataset.yaml`` gives."""
    if "\0" in str(value):
        raise ConfigError(f"dataset.yaml of {root}: a path cannot hold the character NUL, found {str(value)[:50]!r}")
    return Path(existing_form(str(root / str(value))))


def folder_below(root: Path, value: Any, of: str) -> Path:
    """A folder that ``dataset.yaml`` gives; not one that the data lies in, which may hold a whole disk."""
    folder = path_below(root, value)
    if folder.resolve() in root.resolve().parents:
        raise ConfigError(
            f"dataset.yaml of {root}: the folder '{value}' of {of} is {folder.resolve()}, in which the data folder "
            f"itself lies; name the folder that holds only these files"
        )
    return folder
