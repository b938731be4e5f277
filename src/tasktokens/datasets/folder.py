"""The own-folder layout: ``images/``, one folder per task with any subset of label files, and a ``dataset.yaml``.

    images/kitchen/0001.jpg
    semseg/kitchen/0001.png      class ids
    depth/kitchen/0001.png       16-bit, (v + offset) * scale metres, 0 void; or npy in metres
    normals/kitchen/0001.png     8-bit RGB, n = 2 v / 255 - 1; or npy
    train.txt  test.txt          ids, one per line; an id is the path below images/ without its ending
    dataset.yaml                 name, tasks, splits (docs/reference/data.md)
    provenance.csv               of a folder with discovered labels: which ones those are (`datasets.provenance`)

A missing label file is a missing label; nothing else has to be declared. Instead of folders, a table (CSV or
Parquet, `tasktokens.datasets.manifest`) can name the files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

from tasktokens.config import read_yaml
from tasktokens.data.ids import check_id, read_ids
from tasktokens.data.visibility import VisibleLabels, load_visible
from tasktokens.datasets.base import DATASETS, FolderOfFiles
from tasktokens.datasets.index import DatasetIndex, ImageFile, LabelFile, exif_orientation, image_size
from tasktokens.datasets.labelled_classes import LabelledClasses, read_labelled, reading_tasks
from tasktokens.datasets.manifest import read_manifest
from tasktokens.datasets.told_apart import completions, told_apart
from tasktokens.datasets.upright import is_turned, same_shape, turned_label
from tasktokens.errors import ConfigError, DataError, LabelError, did_you_mean
from tasktokens.tasks import Task, build_task
from tasktokens.tasks.base import Array
from tasktokens.tasks.names import check_distinct
from tasktokens.utils.file_kinds import ARRAY_ENDINGS, CONFIDENCE_ENDINGS, IMAGE_ENDINGS, LABEL_ENDINGS
from tasktokens.utils.listing import check_id as check_written
from tasktokens.utils.listing import composed, existing_form, ids_and_paths, iter_files, list_paths
from tasktokens.utils.orientation import swaps_sides


def open_folder(root: Path) -> DatasetIndex:
    """List a data folder. Raises `DataError` or `ConfigError` saying what is missing and what to do."""
    if not root.is_dir():
        raise DataError(f"data folder {root} does not exist")
    values, tasks, settings = _described(root)
    labelled: LabelledClasses = {}
    if values.get("manifest"):
        images, files, splits, labelled = _from_manifest(root, values, settings)
    else:
        images, files = _from_folders(root, values, settings)
        splits = _splits(root, values.get("splits"), images)
    if values.get("labelled"):
        if labelled:
            raise ConfigError(f"dataset.yaml of {root} has 'labelled', and so has its manifest; keep one of them")
        labelled = read_labelled(_below(root, values["labelled"]), images, tasks)
    labels: dict[str, dict[str, LabelFile]] = {}
    for name, task in tasks.items():
        tasks[name], readers = reading_tasks(task, labelled[name]) if name in labelled else (task, {})
        labels[name] = {
            id: _label(path, readers.get(id, tasks[name]), images[id], settings[name]["resize"])
            for id, path in files[name].items()
        }
    published = _published(root, values.get("labels"), splits.get("train", ()), images, tasks)
    pictures = {id: ImageFile(path) for id, path in images.items()}
    told = told_apart(root, labels, images, lambda folder: list_files(folder, CONFIDENCE_ENDINGS))
    return DatasetIndex(
        root, pictures, tasks, told.labels, splits, published, told.discovered,
        completions(root, tasks, told.labels, lambda folder: list_files(folder, CONFIDENCE_ENDINGS)), told.provenance,
    )  # fmt: skip


def described_tasks(root: Path) -> dict[str, Task]:
    """The tasks that the ``dataset.yaml`` of a folder describes. Raises `DataError` or `ConfigError`."""
    return _described(root)[1]


def described_folders(root: Path) -> tuple[dict[str, Task], Path, dict[str, Path]]:
    """The tasks of a folder, where its images lie and the labels of each task, for those who list them themselves.

    Raises `ConfigError` for a folder of which listing the files does not say all: with a manifest, labels to be
    resized, or classes that were labelled in some images only.
    """
    values, tasks, settings = _described(root)
    special = [key for key in ("manifest", "labelled") if values.get(key)]
    special += ["resize" for options in settings.values() if options["resize"]]
    if special:
        raise ConfigError(
            f"dataset.yaml of {root} has '{special[0]}', which shards do not know; train on it and discover without "
            f"--images and --shards, or give the folder of the images alone"
        )
    images = _folder(root, values.get("images", "images"), "the images")
    return tasks, images, {name: _folder(root, options["folder"] or name, f"task '{name}'")
                           for name, options in settings.items()}  # fmt: skip


def _described(root: Path) -> tuple[dict[str, Any], dict[str, Task], dict[str, dict[str, Any]]]:
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

_Files = dict[str, Path]


def _from_folders(
    root: Path, values: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]]
) -> tuple[_Files, dict[str, _Files]]:
    folder = _folder(root, values.get("images", "images"), "the images")
    images = list_files(folder, IMAGE_ENDINGS + ARRAY_ENDINGS)
    if not images:
        packed = any(path.suffix == ".tar" for path in root.iterdir())
        advice = (
            "; the tar files beside it are unpacked by 'tasktokens discover --images … --to folder'" if packed else ""
        )
        raise DataError(f"no images in {folder} ({', '.join(IMAGE_ENDINGS + ARRAY_ENDINGS)}){advice}")
    files = {
        name: list_files(_folder(root, options["folder"] or name, f"task '{name}'"), LABEL_ENDINGS)
        for name, options in settings.items()
    }
    return images, {name: {id: path for id, path in found.items() if id in images} for name, found in files.items()}


def _from_manifest(
    root: Path, values: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]]
) -> tuple[_Files, dict[str, _Files], dict[str, tuple[str, ...]], LabelledClasses]:
    path = _below(root, values["manifest"])
    if not path.is_file():
        raise DataError(f"dataset.yaml of {root} names the manifest {path}, which does not exist")
    for name, options in settings.items():
        if options["folder"]:
            raise ConfigError(f"dataset.yaml of {root}: task '{name}' has a folder, but the files are those of {path}")
    if values.get("images"):
        raise ConfigError(f"dataset.yaml of {root} has both 'images' and 'manifest'; the manifest names the images")
    manifest = read_manifest(path, list(settings), IMAGE_ENDINGS + ARRAY_ENDINGS, LABEL_ENDINGS)
    if manifest.splits and values.get("splits"):
        raise ConfigError(f"{path} has a column 'split' and dataset.yaml has 'splits'; keep one of them")
    splits = manifest.splits or _splits(root, values.get("splits"), manifest.images)
    return manifest.images, manifest.labels, splits, manifest.labelled


def _below(root: Path, value: Any) -> Path:
    """A path that ``dataset.yaml`` gives."""
    if "\0" in str(value):
        raise ConfigError(f"dataset.yaml of {root}: a path cannot hold the character NUL, found {str(value)[:50]!r}")
    return Path(existing_form(str(root / str(value))))


def _folder(root: Path, value: Any, of: str) -> Path:
    """A folder that ``dataset.yaml`` gives; not one that the data lies in, which may hold a whole disk."""
    folder = _below(root, value)
    if folder.resolve() in root.resolve().parents:
        raise ConfigError(
            f"dataset.yaml of {root}: the folder '{value}' of {of} is {folder.resolve()}, in which the data folder "
            f"itself lies; name the folder that holds only these files"
        )
    return folder


def list_files(folder: Path, endings: Iterable[str]) -> dict[str, Path]:
    """Files below a folder by id, which is the relative path without its ending, in Unicode's composed form.

    Linked folders are followed, hidden files and folders left out (`tasktokens.utils.listing.walk_files`). Raises
    `DataError` where two files have one id, or a name cannot be listed.
    """
    found: dict[str, Path] = {}
    for id, path in list_paths(folder, endings):
        check_id(id, path)
        if id in found:
            raise DataError(
                f"{found[id]} and {path} have the same id '{id}'{_why_same(found[id], path)}; keep one of them, or "
                f"rename one and the files that belong to it"
            )
        found[id] = path
    return found


def iter_paths(folder: Path, endings: Iterable[str]) -> Iterator[tuple[str, str]]:
    """`list_paths` in no order, of any number of files; ids are checked as `list_files` and `DatasetIndex` do."""
    for id, path in ids_and_paths(folder, endings, iter_files(folder)):
        check_id(id, Path(path))
        check_written(id, folder)
        yield id, path


def _why_same(a: Path, b: Path) -> str:
    return " (their names differ in their Unicode form only)" if a.suffix == b.suffix else ""


def _label(path: Path, task: Task, image: Path, resize: Any) -> LabelFile:
    if not resize:
        return LabelFile(path, task.read, plain=True, labelled=task.labelled_names())
    # Not plain: a copy would need the setting, too.
    return LabelFile(path, partial(read_resized, task=task, image=image), labelled=task.labelled_names())


def read_resized(path: Path, task: Task, image: Path, upright: bool = False) -> tuple[Array, Array]:
    """Read a label and bring it to its image's size by the task's own rule (``resize: true``).

    With ``upright`` that is the size of the picture as it is shown (`exif_orientation`).

    Raises `LabelError` where the two have another shape: then one is cropped, and no rule can know where.
    """
    value, valid = task.read(path)
    (height, width), (new_height, new_width) = valid.shape, image_size(image)
    orientation = exif_orientation(image)
    if upright and swaps_sides(orientation):
        new_height, new_width = new_width, new_height
    if (height, width) == (new_height, new_width):
        return value, valid
    if not upright and is_turned(orientation, (height, width), (new_height, new_width)):
        raise LabelError(f"label file {path}: {turned_label(orientation, (height, width), (new_height, new_width))}")
    if not same_shape((height, width), (new_height, new_width)):
        raise LabelError(
            f"label file {path} is {width}x{height} pixels, its image {image.name} is {new_width}x{new_height}: "
            f"another shape, which resizing would distort; crop one of them"
        )
    resized = task.resize(torch.from_numpy(value), torch.from_numpy(valid)[None], (new_height, new_width))
    return resized[0].numpy(), resized[1][0].numpy()


def _splits(root: Path, declared: Any, images: Mapping[str, Path]) -> dict[str, tuple[str, ...]]:
    """Ids by split: those that a text file lists, or, of a name that ends in a slash, all below that folder."""
    if not declared:
        return {"train": tuple(images)}
    if not isinstance(declared, dict):
        raise ConfigError(f"dataset.yaml of {root}: 'splits' must name a file a split, such as train: train.txt")
    splits = {}
    for name, file in declared.items():
        if str(file).endswith(("/", "\\")):
            prefix = composed(str(file).replace("\\", "/"))
            splits[str(name)] = tuple(id for id in images if id.startswith(prefix))
            if not splits[str(name)]:
                raise DataError(f"dataset.yaml of {root}: no image's id begins with '{file}', the split '{name}'")
            continue
        path = _below(root, file)
        if not path.is_file():
            raise DataError(f"dataset.yaml of {root} names the split file {file}, which does not exist")
        splits[str(name)] = read_ids(path, images)
    return splits


def _published(
    root: Path, declared: Any, ids: tuple[str, ...], images: Mapping[str, Path], tasks: Mapping[str, Any]
) -> dict[str, VisibleLabels]:
    """The label splits that the folder brings along. That each label has its file is checked when one is chosen."""
    if not declared:
        return {}
    if not isinstance(declared, dict):
        raise ConfigError(f"dataset.yaml of {root}: 'labels' must name a CSV file a rule, such as one: labels_one.csv")
    return {
        str(rule): load_visible(_below(root, file), ids, dict.fromkeys(tasks, dict.fromkeys(ids)), images)
        for rule, file in declared.items()
    }


@DATASETS.register("folder")
class FolderSource(FolderOfFiles):
    """A folder in the own-folder layout (docs/reference/data.md), or the CSV or Parquet manifest of one."""

    kind: Literal["folder"] = "folder"
    root: Path | None = Field(None, description="the folder with dataset.yaml; required")
    how_to_get: ClassVar[str] = "your own: images/ and one folder per task; `tasktokens init` describes it"

    def open_index(self, size: tuple[int, int], progress: bool = False) -> DatasetIndex:
        """List the folder; its ``dataset.yaml`` defines the tasks."""
        return open_folder(self.folder())
