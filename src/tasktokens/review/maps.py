"""The exchange format ``maps``, for every kind of task: label files, previews, and a table for what a person decides.

    decisions.csv            id, task, decision (empty, accept, reject or mask), confidence, reason
    {task}/{id}.png or .npy  the label as it lies in the folder (depth: 16 bit or metres; docs/reference/data.md)
    preview/{task}/{id}.jpg  image, label and confidence side by side
    mask/{task}/{id}.png     to be painted: 255 keeps a pixel, 0 makes it void; counts where the decision is mask

Amounts such as depths are not repainted: they are accepted, rejected, or kept in part. A label file that comes back
with other values is refused.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from tasktokens.datasets.formats.archive import Archive
from tasktokens.datasets.formats.base import Decision, add_file
from tasktokens.datasets.formats.pictures import decode_png, encode_png
from tasktokens.errors import DataError, did_you_mean
from tasktokens.review.folder import Key, ReviewFolder
from tasktokens.review.order import in_order
from tasktokens.tasks.base import Array
from tasktokens.utils.colours import colour_map
from tasktokens.utils.pictures import reduced
from tasktokens.utils.progress import track

MAPS, TABLE = "maps", "decisions.csv"
_COLUMNS = ("id", "task", "decision", "confidence", "reason")
_WORDS: Mapping[str, Decision] = {"": "open", "accept": "accepted", "reject": "rejected", "mask": ""}
Keep = Callable[[tuple[int, int]], Array]
"""From (height, width) to the pixels that are kept, (H, W) bool."""


def write_maps(out: zipfile.ZipFile, folder: ReviewFolder, keys: Sequence[Key], quiet: bool) -> None:
    """Write the files of labels into a zip."""
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(_COLUMNS)
    for key, reason in track(in_order(folder, keys), "exporting", not quiet):
        label = folder.labels[key]
        value, valid = folder.read(key)
        size = valid.shape[0], valid.shape[1]
        confidence = None if folder.source(key) == "given" else folder.confidence(key, size)
        add_file(out, f"{key.task}/{key.id}{label.path.suffix}", label.path.read_bytes())
        add_file(out, f"preview/{key.task}/{key.id}.jpg", _preview(folder, key, value, valid, confidence))
        add_file(out, f"mask/{key.task}/{key.id}.png", encode_png(np.where(valid, np.uint8(255), np.uint8(0))))
        mean = "" if confidence is None or not valid.any() else f"{float(confidence[valid].mean()):.4f}"
        rows.writerow([*key, "", mean, reason])
    add_file(out, TABLE, table.getvalue())


def _preview(folder: ReviewFolder, key: Key, value: Array, valid: Array, confidence: Array | None) -> bytes:
    panels = [folder.index.images[key.id].read(), folder.tasks[key.task].colourise(value, valid)]
    panels += [] if confidence is None else [colour_map(confidence)]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate([reduced(panel) for panel in panels], axis=1)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def is_maps(archive: Archive) -> bool:
    """Whether an archive holds such a table."""
    return TABLE in archive.names


def read_maps(archive: Archive, folder: ReviewFolder) -> Iterator[tuple[Key, Decision, Keep | None]]:
    """Each label that the table lists, what was decided, and which pixels are kept where that is in part.

    Raises `DataError` for an unknown image, task or decision, a label listed twice, or changed values.
    """
    where, seen = archive.where(TABLE), set[Key]()
    try:
        rows = list(csv.DictReader(io.StringIO(archive.read(TABLE).decode("utf-8-sig"))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{where} is no CSV in UTF-8 ({error}); save it as such") from error
    files = {f"{PurePosixPath(name).with_suffix('')}": name for name in archive.names}
    for number, row in enumerate(rows, 2):
        task, word = (row.get("task") or "").strip(), (row.get("decision") or "").strip().lower()
        if row.get("id") is None:
            raise DataError(f"{where} must have the columns {', '.join(_COLUMNS)}")
        if task not in folder.tasks:
            raise DataError(f"{where} row {number} names the task '{task}'{did_you_mean(task, folder.tasks)}")
        if word not in _WORDS:
            raise DataError(f"{where} row {number}: decision must be empty, accept, reject or mask, found '{word}'")
        key = Key(folder.match(row["id"], f"{where} row {number}"), task)
        if key not in folder.labels:
            raise DataError(f"{where} row {number} is of task '{task}' for '{key.id}', which has no label to review")
        if key in seen:
            raise DataError(f"{where} lists the label of task '{task}' for '{key.id}' twice; keep one row")
        seen.add(key)
        _check_values(archive, folder, key, files.get(f"{task}/{key.id}"))
        yield key, _WORDS[word], _keep(archive, key) if word == "mask" else None


def _check_values(archive: Archive, folder: ReviewFolder, key: Key, name: str | None) -> None:
    """Raise `DataError` where a label file came back with other bytes than it has."""
    path = folder.labels[key].path
    if name is None or archive.read(name) == path.read_bytes():
        return
    raise DataError(
        f"{archive.where(name)} is not the label file {path} any more; a label of '{key.task}' can be accepted, "
        f"rejected or masked, not repainted (was the label changed since the export?)"
    )


def _keep(archive: Archive, key: Key) -> Keep:
    name = f"mask/{key.task}/{key.id}.png"
    if name not in archive.names:
        raise DataError(f"{archive.path} decides 'mask' for '{key.id}' of task '{key.task}' and has no {name}")
    read, where = archive.reader(name), archive.where(name)

    def keep(size: tuple[int, int]) -> Array:
        pixels, _ = decode_png(read(), where)
        plane = pixels if pixels.ndim == 2 else pixels[..., :3].max(axis=2)
        if plane.shape != size:
            raise DataError(
                f"{where} is {plane.shape[1]}x{plane.shape[0]} pixels, its image {size[1]}x{size[0]}; make them equal"
            )
        if not np.isin(plane, (0, 1, 255)).all():
            raise DataError(f"{where} must hold 255 (keep) and 0 (void) alone; paint without smoothing")
        return np.asarray(plane > 0)

    return keep
