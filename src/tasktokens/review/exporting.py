"""``tasktokens review export``: the labels to review as a zip that an annotation tool reads."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasktokens.datasets.formats import ExportItem, usable_format
from tasktokens.datasets.index import exif_orientation
from tasktokens.datasets.upright import REMOVE_TAG
from tasktokens.errors import DataError, RunExistsError
from tasktokens.review.folder import Key, ReviewFolder, class_map, vocabulary
from tasktokens.review.maps import MAPS, write_maps
from tasktokens.review.order import first_images, in_order
from tasktokens.utils.atomic import atomically
from tasktokens.utils.progress import track


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the zip.
        labels: how many labels.
        images: of how many images.
    """

    path: Path
    labels: int
    images: int

    def __str__(self) -> str:
        return f"{self.path}: {self.labels} labels of {self.images} images"


def export_labels(
    folder: str | Path,
    format: str,
    out: str | Path,
    top: int | None = None,
    task: str | None = None,
    given: bool = False,
    images: bool = True,
    overwrite: bool = False,
    quiet: bool = False,
) -> Exported:
    """Write labels that nobody has decided on, the most doubtful first, for an annotation tool.

    Args:
        folder: a data folder, such as ``discover`` writes.
        format: one of `tasktokens.datasets.formats.FORMATS`, of a task with classes; or ``maps``: files of any task
            with previews and a table for decisions.
        out: a zip.
        top: the labels of this many images; default: all.
        task: for ``maps``: default all tasks; else the task with classes, needed where there are several.
        given: also labels that were given.
        images: also the image files.
        overwrite: replace ``out``.
        quiet: do not show progress.

    Raises:
        DataError: there is nothing to review, or the format cannot hold a label.
        RunExistsError: ``out`` exists.

    Examples:
        >>> from tasktokens.review.exporting import export_labels
        >>> export_labels("filled", "coco", "annotations.zip", task="semseg", top=2, quiet=True).images
        2
    """
    opened, out = ReviewFolder(Path(folder)), Path(out)
    if out.exists() and not overwrite:
        raise RunExistsError(f"{out} exists and is kept; give --overwrite to replace it")
    maps = format == MAPS
    writer = None if maps else usable_format(format)
    if task is not None:
        opened.check_task(task)
    tasks = ([task] if task else list(opened.tasks)) if maps else [opened.class_task(task)]
    wanted = opened.to_review(tasks)
    if given:
        wanted += [key for key in opened.labels if key.task in tasks and opened.source(key) == "given"]
    if not wanted:
        also = "" if given else "; --given exports given labels too"
        raise DataError(f"{opened.root} has no discovered label of {', '.join(tasks)} that waits for review{also}")
    keys = [each.key for each in first_images(in_order(opened, wanted), top)]
    with atomically(out) as new, zipfile.ZipFile(new, "w") as file:
        if writer is None:
            write_maps(file, opened, keys, quiet)
        else:
            writer.write(file, vocabulary(opened.tasks[tasks[0]]), _items(opened, keys, images, quiet))
    return Exported(out, len(keys), len({key.id for key in keys}))


def _items(folder: ReviewFolder, keys: Sequence[Key], images: bool, quiet: bool) -> Iterator[ExportItem]:
    for key in track(keys, "exporting", not quiet):
        value, valid = folder.read(key)
        image = folder.index.images[key.id].path
        if exif_orientation(image) != 1:
            raise DataError(
                f"image {image} has an EXIF orientation, by which annotation tools turn it; its labels are of the "
                f"stored pixels: the masks would lie elsewhere; remove the tag ({REMOVE_TAG})"
            )
        source = folder.source(key)
        confidence = None if source == "given" else folder.confidence(key, valid.shape)
        file = f"{key.id}{image.suffix}"
        yield ExportItem(key.id, file, class_map(value, valid), confidence, source, image if images else None)
