"""The plan of a discovery in shards: what is read, which labels are given, and how the work is divided."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any, NamedTuple

from tasktokens.config import Config
from tasktokens.datasets.file_table import FileRow, write_rows, write_table
from tasktokens.datasets.files_by_id import iter_paths
from tasktokens.datasets.folder_description import described_folders, described_tasks
from tasktokens.datasets.index import read_image
from tasktokens.datasets.prepared import sha256
from tasktokens.datasets.provenance import TRUSTED, ProvenanceRow, now, read_provenance
from tasktokens.datasets.tars import find_tars
from tasktokens.errors import ConfigError, DataError
from tasktokens.inference.chosen_thresholds import thresholds_of
from tasktokens.inference.given_labels import GivenLabels, given_labels
from tasktokens.inference.predictor import Predictor
from tasktokens.inference.shards.plan import FORMAT, Layout, Plan, WorkFolder
from tasktokens.models.files import model_folder
from tasktokens.tasks import Task
from tasktokens.tasks.same import require_same_tasks
from tasktokens.utils import strict_json
from tasktokens.utils.atomic import writing
from tasktokens.utils.file_kinds import ARRAY_ENDINGS, IMAGE_ENDINGS, LABEL_ENDINGS

IMAGES_PER_SHARD = 1000
"""Of a folder, where the number of shards is not given."""


class Source(NamedTuple):
    """What is read.

    Attributes:
        path: the images; None: the data of the run.
        tars: the tar files, where it is some.
        tasks: of the label files.
        notes: what a user should know.
        given: the labels of the run's data; they are listed by the process that plans, and by no other.
    """

    path: Path | None
    tars: list[Path]
    tasks: Mapping[str, Task]
    notes: list[str]
    given: GivenLabels | None = None

    def listed(self, run: Path, config: Config) -> Source:
        """With the labels of the run's data, where those are meant."""
        if self.path is not None:
            return self
        given = given_labels(run, config)
        return self._replace(tasks=given.tasks, notes=list(given.notes), given=given)


def find_source(run: Path, config: Config, images: str | Path | None, model: Mapping[str, Task]) -> Source:
    """What ``images`` means: tar files, a data folder, a folder of images, or the data of the run.

    Raises:
        DataError: nothing is there. ConfigError: its label files are not those of the model's tasks, it has a layout
            that shards do not know, or it is the run's own data.
    """
    if images is None:
        return Source(None, [], model, [])
    path, tars = Path(images), find_tars(images)
    root = path if path.is_dir() else path.parent
    own = getattr(config.data, "root", None)
    if own is not None and not tars and root.resolve() == Path(own).resolve():
        raise ConfigError(f"{path} is the data of the run, some of whose labels may be hidden: leave out --images")
    if not tars and not path.is_dir():
        raise DataError(f"--images must be a folder, a tar file or a pattern that matches tar files, found '{images}'")
    if not (root / "dataset.yaml").is_file():
        return Source(path, tars, model, [])
    described = described_tasks(root) if tars else described_folders(root)[0]
    known = {name: task for name, task in described.items() if name in model}
    left_out = [name for name in described if name not in model]
    _check_same({name: model[name] for name in known}, known, run, root, config.data.augmentation.widest)
    notes = [f"task '{name}' of {root} is not one of the model's: left out" for name in left_out]
    return Source(path, tars, {name: known.get(name, task) for name, task in model.items()}, notes)


def _check_same(
    model: Mapping[str, Task], data: Mapping[str, Task], run: Path, root: Path, widest: tuple[float, float]
) -> None:
    """Ranges of numbers are those of the labels, or, as this package writes them, those that training widened."""
    try:
        require_same_tasks(model, data, run, root, widest)
    except ConfigError as first:
        try:
            require_same_tasks(model, data, run, root)
        except ConfigError:
            raise first from None


class Wanted(NamedTuple):
    """What decides the content of the folder, and by which name a user knows it."""

    model: str
    threshold: float | Mapping[str, float] | None
    views: dict[str, Any]
    to: Layout
    settings: dict[str, Any]


def settings_of(
    source: Source, run: Path, predictor: Predictor, threshold: float | Mapping[str, float] | None, to: Layout | None
) -> Wanted:
    """What is asked for. Raises `ConfigError` for a threshold out of range or of no task."""
    thresholds_of(source.tasks, threshold)  # or an error
    views = predictor.views_by_task
    model = sha256(model_folder(run) / "model.safetensors")
    to = to or ("tars" if source.tars else "folder")
    settings = {
        "run": model,
        "threshold": dict(threshold) if isinstance(threshold, Mapping) else threshold,
        "choice of views": views,
        "choice of images": "the data of the run" if source.path is None else str(source.path.absolute()),
        "list of tar files": [str(path.absolute()) for path in source.tars],
        "layout of what is written": to,
        "version of the format": FORMAT,
    }
    return Wanted(model, threshold, views, to, settings)


def write_plan(work: WorkFolder, source: Source, wanted: Wanted, shards: int | None) -> Plan:
    """List the images, decide on everything and write it into the work folder."""
    with writing(work.path):
        work.path.mkdir(parents=True, exist_ok=True)
    count = None if source.tars else _write_images(work, source)
    if count is not None and wanted.to == "tars":
        _check_keys(work)
    if count is not None and shards is not None and shards > count:
        raise ConfigError(f"--shards must not exceed the number of images, {count}, found {shards}")
    root = source.given.index.root if source.given is not None else source.path
    assert root is not None
    name = root.resolve().name if root.is_dir() else source.tars[0].resolve().parent.name
    plan = Plan(
        settings=wanted.settings,
        to=wanted.to,
        shards=len(source.tars) or shards or max(1, math.ceil((count or 0) / IMAGES_PER_SHARD)),
        images=count,
        tars=wanted.settings["list of tar files"],
        specs={name: task.spec() | task.training() for name, task in source.tasks.items()},
        thresholds=thresholds_of(source.tasks, wanted.threshold),
        views={name: strict_json.dumps(views) for name, views in wanted.views.items()},
        model=wanted.model,
        date=now()[:10],
        name=f"{name}-discovered",
        splits=[] if source.given is None else ["train", *source.given.others],
        notes=source.notes,
    )
    work.write(plan)
    return plan


def _write_images(work: WorkFolder, source: Source) -> int:
    """The table of a folder's images, or of the run's data with the lists of its splits; how many they are."""
    with writing(work.table):
        if source.given is not None:
            write_rows(work.table, _rows(source.given))
            for name, ids in {"train": source.given.train, **source.given.others}.items():
                work.split(name).write_text("".join(f"{id}\n" for id in ids), encoding="utf-8", newline="\n")
        else:
            assert source.path is not None
            _write_listed(work.table, source.path)
    table = work.open_table()
    try:
        if not len(table):
            raise DataError(f"no images in {source.path} ({', '.join(IMAGE_ENDINGS + ARRAY_ENDINGS)})")
        return len(table)
    finally:
        table.close()


def _write_listed(table: Path, root: Path) -> None:
    """Images below a folder, or of a data folder with its given labels; discovered and rejected ones are none."""
    if not (root / "dataset.yaml").is_file():
        write_table(table, iter_paths(root, IMAGE_ENDINGS + ARRAY_ENDINGS), {})
        return
    _, images, folders = described_folders(root)
    origins = read_provenance(root)
    no_labels = {key for key, row in origins.items() if row.source not in TRUSTED}
    decided = {key: row for key, row in origins.items() if row.source in TRUSTED and row.source != "given"}
    labels = {name: _given_files(folder, name, no_labels) for name, folder in folders.items()}
    write_table(table, iter_paths(images, IMAGE_ENDINGS + ARRAY_ENDINGS), labels, _by_id(decided))


def _given_files(folder: Path, task: str, no_labels: set[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    return ((id, path) for id, path in iter_paths(folder, LABEL_ENDINGS) if (id, task) not in no_labels)


def _by_id(rows: Mapping[tuple[str, str], ProvenanceRow]) -> dict[str, dict[str, list[Any]]]:
    by_id: dict[str, dict[str, list[Any]]] = {}
    for (id, name), row in rows.items():
        by_id.setdefault(id, {})[name] = list(astuple(row))
    return by_id


def _rows(given: GivenLabels) -> Iterator[FileRow]:
    """Of the run's data: images whose labels are discovered first. Raises `ConfigError` for files of other layouts."""
    index = given.index
    for number, (id, names) in enumerate(given.all_labels().items()):
        labels = {name: index.labels[name][id] for name in names}
        if index.images[id].reader is not read_image or not all(
            file.plain and not file.labelled for file in labels.values()
        ):
            raise ConfigError(
                f"the files of '{id}' are not in the layout of an own folder, or not all classes were labelled in "
                f"them, which shards do not know; discover without --shards, or convert them by 'tasktokens prepare'"
            )
        origins = {name: index.provenance.get(name, {}).get(id) for name in names}
        values = {name: list(astuple(row)) for name, row in origins.items() if row is not None}
        paths = {name: file.path for name, file in labels.items()}
        yield FileRow(number, id, index.images[id].path, paths, values, id in given.train)


def _check_keys(work: WorkFolder) -> None:
    """Raise `DataError` for ids that cannot be keys of tar files: with a dot in the last part of their name."""
    table = work.open_table()
    try:
        for row in table.rows(0, len(table)):
            if "." in row.id.rpartition("/")[2]:
                raise DataError(
                    f"'{row.id}' has a dot in its name, at which a key of a tar file would end; rename the file, or "
                    f"write a folder (--to folder)"
                )
    finally:
        table.close()
