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
from pathlib import Path
from typing import Any

from tasktokens.config import read_yaml
from tasktokens.data.collection import Collection, ImageFile, LabelFile
from tasktokens.data.partial import Split, load_split
from tasktokens.errors import ConfigError, DataError, did_you_mean
from tasktokens.tasks import build_task

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
LABEL_ENDINGS = (".png", ".npy", ".tif", ".tiff", ".bmp")


def open_folder(root: Path) -> Collection:
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
        files = _files(folder, LABEL_ENDINGS)
        labels[name] = {id: LabelFile(file, tasks[name].read, plain=True) for id, file in files.items() if id in images}
    splits = _splits(root, values.get("splits"), images)
    published = _published(root, values.get("labels"), splits.get("train", ()), tasks)
    return Collection(root, {id: ImageFile(path) for id, path in images.items()}, tasks, labels, splits, published)


_KEYS = ("name", "images", "splits", "labels", "tasks")


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


def _published(root: Path, declared: Any, ids: tuple[str, ...], tasks: Mapping[str, Any]) -> dict[str, Split]:
    """The label splits that the folder brings along. That each label has its file is checked when one is chosen."""
    if not declared:
        return {}
    if not isinstance(declared, dict):
        raise ConfigError(f"dataset.yaml of {root}: 'labels' must name a CSV file a rule, such as one: labels_one.csv")
    return {
        str(rule): load_split(root / str(file), ids, dict.fromkeys(tasks, dict.fromkeys(ids)))
        for rule, file in declared.items()
    }
