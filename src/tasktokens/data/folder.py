"""The own-folder layout: ``images/``, one folder a task with any subset of label files, and a ``dataset.yaml``.

    images/kitchen/0001.jpg
    semseg/kitchen/0001.png      8-bit class ids
    depth/kitchen/0001.png       16-bit, (v + offset) * scale metres, 0 void; or npy in metres
    normals/kitchen/0001.png     8-bit RGB, n = 2 v / 255 - 1; or npy
    train.txt  test.txt          ids, one a line; an id is the path below images/ without its ending
    dataset.yaml                 name, tasks, splits (docs/data.md)

A missing label file is a missing label; nothing else has to be said about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tasktokens.config import read_yaml
from tasktokens.errors import ConfigError, DataError, did_you_mean
from tasktokens.tasks import Task, build_task
from tasktokens.tasks.base import Array

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
LABEL_ENDINGS = (".png", ".npy", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True)
class Folder:
    """What lies in a data folder; nothing is opened yet but ``dataset.yaml`` and the lists of ids.

    Attributes:
        root: the folder.
        images: image file by id.
        tasks: the tasks that ``dataset.yaml`` declares, by name.
        labels: label file by id, for each task; ids without a file are absent.
        splits: ids by split; without declared splits all images are ``train``.
    """

    root: Path
    images: Mapping[str, Path]
    tasks: Mapping[str, Task]
    labels: Mapping[str, Mapping[str, Path]]
    splits: Mapping[str, tuple[str, ...]]

    def split(self, name: str) -> tuple[str, ...]:
        """Ids of a split. Raises `DataError` naming the splits there are."""
        if name not in self.splits:
            raise DataError(
                f"{self.root} has no split '{name}'{did_you_mean(name, self.splits)}; found: {', '.join(self.splits)}"
            )
        return self.splits[name]


def open_folder(root: Path) -> Folder:
    """List a data folder. Raises `DataError` or `ConfigError` saying what is missing and what to do."""
    if not root.is_dir():
        raise DataError(f"data folder {root} does not exist")
    description = root / "dataset.yaml"
    if not description.is_file():
        raise DataError(f"{root} has no dataset.yaml that names its tasks; see docs/data.md for its few lines")
    values = read_yaml(description)
    for key in values:
        if key not in _KEYS:
            raise ConfigError(f"{description}: unknown key '{key}'{did_you_mean(key, _KEYS)}")
    specs = values.get("tasks")
    if not isinstance(specs, dict) or not specs:
        raise ConfigError(f"{description} must list at least one task under 'tasks'")

    images = _files(root / str(values.get("images", "images")), IMAGE_ENDINGS)
    if not images:
        raise DataError(f"no images in {root / str(values.get('images', 'images'))} ({', '.join(IMAGE_ENDINGS)})")
    tasks, labels = {}, {}
    for name, spec in specs.items():
        if not isinstance(spec, dict):
            raise ConfigError(f"{description}: task '{name}' must have settings such as kind: depth, found {spec!r}")
        spec = dict(spec)
        folder = root / str(spec.pop("folder", name))
        tasks[name] = build_task(name, spec)
        labels[name] = {id: file for id, file in _files(folder, LABEL_ENDINGS).items() if id in images}
    return Folder(root, images, tasks, labels, _splits(root, values.get("splits"), images))


_KEYS = ("name", "images", "splits", "tasks")


def _files(folder: Path, endings: tuple[str, ...]) -> dict[str, Path]:
    """Files below a folder by id: the relative path without its ending."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in endings and not path.name.startswith("."):
            id = path.relative_to(folder).with_suffix("").as_posix()
            if id in found:
                raise DataError(f"{found[id]} and {path.name} have the same id '{id}'; keep one of them")
            found[id] = path
    return found


def _splits(root: Path, declared: Any, images: Mapping[str, Path]) -> dict[str, tuple[str, ...]]:
    if not declared:
        return {"train": tuple(images)}
    if not isinstance(declared, dict):
        raise ConfigError(f"dataset.yaml of {root}: 'splits' must name a file a split, such as train: train.txt")
    splits = {}
    for name, file in declared.items():
        path = root / str(file)
        if not path.is_file():
            raise DataError(f"dataset.yaml of {root} names the split file {file}, which does not exist")
        ids = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
        missing = [id for id in ids if id not in images]
        if missing:
            raise DataError(f"{path} lists '{missing[0]}' ({len(missing)} such), for which there is no image in {root}")
        splits[name] = ids
    return splits


def read_image(path: Path) -> Array:
    """Read an image as (H, W, 3) uint8 RGB. Raises `DataError` naming the file when it cannot be read."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError as error:
        raise DataError(f"image {path} does not exist") from error
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"image {path} cannot be read ({error}); replace it or remove it") from error
