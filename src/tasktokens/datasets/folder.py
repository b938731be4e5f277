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

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from tasktokens.data.ids import read_ids
from tasktokens.data.visibility import VisibleLabels, load_visible
from tasktokens.datasets.base import DATASETS, FolderOfFiles
from tasktokens.datasets.files_by_id import list_files
from tasktokens.datasets.folder_description import folder_below, path_below, read_description
from tasktokens.datasets.index import DatasetIndex, ImageFile, LabelFile
from tasktokens.datasets.labelled_classes import LabelledClasses, read_labelled, reading_tasks
from tasktokens.datasets.manifest import read_manifest
from tasktokens.datasets.resized import read_resized
from tasktokens.datasets.told_apart import completions, told_apart
from tasktokens.errors import ConfigError, DataError
from tasktokens.tasks import Task
from tasktokens.utils.file_kinds import ARRAY_ENDINGS, CONFIDENCE_ENDINGS, IMAGE_ENDINGS, LABEL_ENDINGS
from tasktokens.utils.listing import composed


def open_folder(root: Path) -> DatasetIndex:
    """List a data folder. Raises `DataError` or `ConfigError` saying what is missing and what to do."""
    if not root.is_dir():
        raise DataError(f"data folder {root} does not exist")
    values, tasks, settings = read_description(root)
    labelled: LabelledClasses = {}
    if values.get("manifest"):
        images, files, splits, labelled = _from_manifest(root, values, settings)
    else:
        images, files = _from_folders(root, values, settings)
        splits = _splits(root, values.get("splits"), images)
    if values.get("labelled"):
        if labelled:
            raise ConfigError(f"dataset.yaml of {root} has 'labelled', and so has its manifest; keep one of them")
        labelled = read_labelled(path_below(root, values["labelled"]), images, tasks)
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


_Files = dict[str, Path]


def _from_folders(
    root: Path, values: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]]
) -> tuple[_Files, dict[str, _Files]]:
    folder = folder_below(root, values.get("images", "images"), "the images")
    images = list_files(folder, IMAGE_ENDINGS + ARRAY_ENDINGS)
    if not images:
        packed = any(path.suffix == ".tar" for path in root.iterdir())
        advice = (
            "; the tar files beside it are unpacked by 'tasktokens discover --images … --to folder'" if packed else ""
        )
        raise DataError(f"no images in {folder} ({', '.join(IMAGE_ENDINGS + ARRAY_ENDINGS)}){advice}")
    files = {
        name: list_files(folder_below(root, options["folder"] or name, f"task '{name}'"), LABEL_ENDINGS)
        for name, options in settings.items()
    }
    return images, {name: {id: path for id, path in found.items() if id in images} for name, found in files.items()}


def _from_manifest(
    root: Path, values: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]]
) -> tuple[_Files, dict[str, _Files], dict[str, tuple[str, ...]], LabelledClasses]:
    path = path_below(root, values["manifest"])
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


def _label(path: Path, task: Task, image: Path, resize: Any) -> LabelFile:
    if not resize:
        return LabelFile(path, task.read, plain=True, labelled=task.labelled_names())
    # Not plain: a copy would need the setting, too.
    return LabelFile(path, partial(read_resized, task=task, image=image), labelled=task.labelled_names())


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
        path = path_below(root, file)
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
        str(rule): load_visible(path_below(root, file), ids, dict.fromkeys(tasks, dict.fromkeys(ids)), images)
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
