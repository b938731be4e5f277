"""``tasktokens prepare``: any data set as a compact folder in the own-folder layout, readable without this package."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tasktokens.config import DataSettings, parse_config
from tasktokens.data.visibility import save_visible
from tasktokens.datasets.base import DATASETS, FolderOfFiles
from tasktokens.datasets.convert import ConversionJob, Writer
from tasktokens.datasets.index import DatasetIndex
from tasktokens.datasets.labelled_classes import LABELLED, labelled_rows, write_labelled
from tasktokens.datasets.prepared import (
    FORMAT,
    JOURNAL,
    Journal,
    check_settings,
    file_fault,
    finish,
    listed_files,
    unlisted_files,
)
from tasktokens.datasets.provenance import PROVENANCE, ProvenanceRow, write_provenance
from tasktokens.errors import ConfigError, DataError, did_you_mean
from tasktokens.utils import strict_json
from tasktokens.utils.atomic import atomically
from tasktokens.utils.console import say
from tasktokens.utils.lock import only_writer
from tasktokens.utils.processes import process_map
from tasktokens.utils.progress import bar
from tasktokens.utils.safe_io import dump_yaml

DESCRIPTION = """\
# Written by tasktokens prepare. One label file per image and task, {task}/{id}.png; a missing file is a missing label.
# classes: ids, `void` among them. depth: 16 bit, (v + offset) * scale, 0 void. normals: 8-bit RGB, n = 2 v / 255 - 1, x
# right, y down, z forward, towards the camera (or `frame`), (128, 128, 128) void. Probabilities: v / 255, alpha 0 void.
"""
"""Head of the written ``dataset.yaml``."""


def prepare(
    source: FolderOfFiles | Mapping[str, Any],
    out: str | Path,
    size: tuple[int, int] | None = None,
    jpeg: int | None = None,
    workers: int | None = None,
    skip_corrupt: bool = False,
    quiet: bool = False,
    upright: bool = False,
) -> Path:
    """Write a data set as a compact folder and return it.

    Interrupted at any time, the same call goes on: files that are there and have their checksums are kept. The folder
    is whole when ``prepared.json`` is there.

    Args:
        source: the data set, such as ``{"kind": "nyud", "root": "NYUD"}``; its ``root`` must be set.
        out: a new folder, or one that was begun with the same arguments.
        size: (height, width) to stretch everything to; None keeps the sizes. JPEG and PNG images that need no
            stretching are copied byte for byte, and so are label files that have the layout already.
        jpeg: write images that are not copied, and PNG images, as JPEG of this quality (1..100); None: as PNG.
        workers: processes; by default one per core.
        skip_corrupt: leave out labels and images that cannot be read, and list them in ``prepared.json``.
        upright: turn images that have an EXIF orientation as viewers show them. Their labels stay as they are, for they
            were drawn on that picture; one that has the size of the stored pixels instead is a `LabelError`.

    Raises:
        DataError: the source cannot be opened, a file of it cannot be read or stored (a `LabelError` for a label), or
            ``out`` was begun with other arguments or by another version, or is damaged.
        RunExistsError: ``out`` holds other files, or another process writes into it.

    Examples:
        >>> import tasktokens
        >>> out = tasktokens.prepare({"kind": "folder", "root": "mydata"}, "small", size=(16, 24), quiet=True)
        >>> sorted(path.name for path in out.iterdir() if path.is_dir())
        ['depth', 'images', 'semseg']
    """
    source, out = source_settings(source) if isinstance(source, Mapping) else source, Path(out)
    index = _storable(source.open_index(size or (1, 1)))
    _check_names(index)
    settings = _settings(source, index, size, jpeg, upright)
    if out.exists():
        check_settings(out, settings)  # before anything is touched
    try:
        with only_writer(out):
            if check_settings(out, settings):
                _check_undamaged(out, quiet)
                (out / JOURNAL).unlink(missing_ok=True)  # from a kill at the very end
                return out
            journal = Journal(out, settings)
            writer = Writer(out, index.tasks, size, jpeg, skip_corrupt, upright)
            _convert_all(index, journal, writer, workers, quiet)
            _finish(index, journal, out, settings)
    except OSError as error:
        raise DataError(f"preparing {out} failed ({error}); mended, the same command goes on from here") from error
    return out


def source_settings(values: Mapping[str, Any]) -> FolderOfFiles:
    """Settings such as ``{"kind": "nyud", "root": "NYUD"}`` as a source. Raises `ConfigError` naming what is wrong."""
    kind = str(values.get("kind"))
    kinds = {name: source for name, source in DATASETS.items() if issubclass(source, FolderOfFiles)}
    if kind not in kinds:
        raise ConfigError(f"--data must be one of {', '.join(kinds)}, found {kind}{did_you_mean(kind, kinds)}")
    if "root" not in values:
        how = kinds[kind].how_to_get
        raise ConfigError(
            f"--root is not set; name the folder in which the data set lies{'. How to get it: ' if how else ''}{how}"
        )
    source = parse_config({"data": {**values, "root": str(values["root"])}}, f"--data {kind}").data
    assert isinstance(source, FolderOfFiles)
    return source


def verify(out: Path, quiet: bool = False) -> list[str]:
    """What is wrong with the files of a prepared folder: missing, changed, or added.

    Raises `DataError` when the folder is no finished preparation.
    """
    listed = listed_files(out)
    faults = []
    with bar(len(listed), not quiet, "verifying") as step:
        for name, sum in listed.items():
            faults.append(file_fault(out, name, sum))
            step()
    return [fault for fault in faults if fault is not None] + unlisted_files(out, listed)


def _settings(
    source: FolderOfFiles, index: DatasetIndex, size: tuple[int, int] | None, jpeg: int | None, upright: bool
) -> Any:
    """All that decides what is written, as plain values."""
    own = source.model_dump(mode="json", exclude=set(DataSettings.model_fields) - {"kind"})
    values = {
        "format": FORMAT,
        "tasktokens": version("tasktokens"),
        "source": {**own, "root": str(Path(str(source.root)).resolve())},
        "size": size,
        "jpeg": jpeg,
        **({"upright": True} if upright else {}),  # folders that were prepared before it was a choice go on
        "tasks": {name: task.spec() for name, task in index.tasks.items()},
    }
    return json.loads(strict_json.dumps(values))


def _storable(index: DatasetIndex) -> DatasetIndex:
    """With tasks whose files can hold every label; files of a task that had to be changed for that are not copied."""
    tasks = {name: task.storable() for name, task in index.tasks.items()}
    labels = {
        name: {id: file._replace(plain=file.plain and tasks[name] == index.tasks[name]) for id, file in files.items()}
        for name, files in index.labels.items()
    }
    return replace(index, tasks=tasks, labels=labels)


def _check_names(index: DatasetIndex) -> None:
    """Splits and tasks become names of files and folders."""
    for name in (*index.splits, *index.published):
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise DataError(f"split '{name}' of {index.root} cannot be a file's name; use letters, digits, _, - and .")
    if "images" in index.tasks:
        raise DataError(f"a task of {index.root} is called 'images', which is where the images lie; rename it")


def _check_undamaged(out: Path, quiet: bool) -> None:
    faults = verify(out, quiet)
    if faults:
        raise DataError(
            f"{out} was prepared already and is damaged ({'; '.join(faults[:3])}; {len(faults)} in all); "
            "delete it and prepare it again"
        )


def _convert_all(index: DatasetIndex, journal: Journal, write: Writer, workers: int | None, quiet: bool) -> None:
    """Do what is not done yet. What is done of other labels than the source has now is done again."""
    jobs = []
    for id, image in index.images.items():
        labels = {name: files[id] for name, files in index.labels.items() if id in files}
        done = journal.records.get(id)
        if done is None or {name.split("/")[0] for name in done.files} != {"images", *labels}:
            jobs.append(ConversionJob(id, image, labels))
    with (
        bar(len(index.images), not quiet, "preparing") as step,
        contextlib.closing(process_map(write, jobs, workers)) as records,
    ):
        for _ in range(len(index.images) - len(jobs)):
            step()
        try:
            for record in records:
                journal.add(record)
                step()
        except DataError as error:
            hint = "mend it and start the same command to go on, or leave such files out with --skip-corrupt"
            raise type(error)(f"{error}. What is done is kept: {hint}") from error


def _finish(index: DatasetIndex, journal: Journal, out: Path, settings: Mapping[str, Any]) -> None:
    """The lists, the label splits and ``dataset.yaml``, then what marks the folder as whole."""
    for id in set(journal.records) - set(index.images):
        for name in journal.records[id].files:
            (out / name).unlink(missing_ok=True)
    records = [journal.records[id] for id in index.images]
    has = {record.id: {name.split("/")[0] for name in record.files} for record in records}
    images = {id for id, folders in has.items() if folders}
    if not images:
        raise DataError(f"no image of {index.root} could be read")
    splits = {name: [id for id in ids if id in images] for name, ids in index.splits.items()}
    lists, rules = (
        {name: f"{name}.txt" for name in splits},
        {rule: f"labels_{rule}.csv" for rule in index.published},
    )
    for name, ids in splits.items():
        with atomically(out / lists[name]) as new:
            new.write_text("".join(f"{id}\n" for id in ids), encoding="utf-8", newline="\n")
    for rule, split in index.published.items():
        shown = {id: tuple(task for task in tasks if task in has[id]) for id, tasks in split.items() if id in images}
        with atomically(out / rules[rule]) as new:
            save_visible(new, shown, list(index.tasks))
    labelled = {name: index.labelled_classes(name) for name in index.tasks}
    partial = write_labelled(out / LABELLED, labelled_rows(labelled, (id for id in index.images if id in images)))
    trusted = _trusted_rows(index, images, has)
    if trusted:
        write_provenance(out, trusted)
    others = [*([LABELLED] if partial else []), *([PROVENANCE] if trusted else [])]
    source = settings["source"]
    description: dict[str, Any] = {
        "name": index.root.name if source["kind"] == "folder" else source["kind"],
        "images": "images",
        "splits": lists,
        "labels": rules,
        "labelled": LABELLED if partial else None,
        "tasks": {name: task.reading(()).spec() for name, task in index.tasks.items()},
    }
    with atomically(out / "dataset.yaml") as new:
        text = dump_yaml({key: value for key, value in description.items() if value})
        new.write_text(DESCRIPTION + text, encoding="utf-8", newline="\n")
    facts = {
        "images": len(images),
        "splits": {name: len(ids) for name, ids in splits.items()},
        "labels": {task: sum(task in has[id] for id in images) for task in index.tasks},
    }
    if discovered := sum(len(files) for files in index.discovered.values()):
        facts["discovered_labels_left_out"] = discovered
        say(f"{discovered} discovered labels of {index.root} are left out; discover anew from the prepared folder")
    finish(out, settings, records, [*lists.values(), *rules.values(), *others, "dataset.yaml"], facts)


def _trusted_rows(
    index: DatasetIndex, images: Collection[str], has: Mapping[str, Collection[str]]
) -> list[ProvenanceRow]:
    """What a prepared folder still says of the origin of its labels; discovered ones it does not have."""
    return [
        row
        for name, rows in index.provenance.items()
        for id, row in rows.items()
        if id in images and (row.source == "rejected" or (row.trusted and name in has[id]))
    ]
