"""One image of a data set, with its labels, as files of the own-folder layout."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tasktokens.data.sample import Label, Sample
from tasktokens.data.transforms import resize
from tasktokens.datasets.index import ImageFile, LabelFile, exif_orientation, read_image, read_upright
from tasktokens.datasets.prepared import Record, sha256, unfinished_folder
from tasktokens.datasets.resized import read_resized
from tasktokens.errors import DataError, LabelError
from tasktokens.tasks import Task
from tasktokens.tasks.base import Array
from tasktokens.utils.atomic import atomically

JPEG = (".jpg", ".jpeg")
"""Endings of JPEG files."""
LABELS = (".png", ".npy")
"""Endings of written label files."""
Reader = Callable[[Path], tuple[Array, Array]]
"""From a path to value (C, H, W) and valid (H, W)."""


@dataclass(frozen=True)
class ConversionJob:
    """An image and its labels.

    Attributes:
        id: of the image.
        image: its file.
        labels: label file by task; none of a hidden label.
    """

    id: str
    image: ImageFile
    labels: Mapping[str, LabelFile]


@dataclass(frozen=True)
class Writer:
    """Writes the files of a job; called in the worker processes.

    Attributes:
        out: the folder.
        tasks: the tasks of the labels by name.
        size: (height, width) to stretch to, or None.
        jpeg: quality of images that are not copied; None writes PNG.
        skip_corrupt: list what cannot be read instead of raising `DataError`.
        upright: turn images as their EXIF orientation says; labels are those of the turned picture.
    """

    out: Path
    tasks: Mapping[str, Task]
    size: tuple[int, int] | None
    jpeg: int | None
    skip_corrupt: bool
    upright: bool = False

    def __call__(self, job: ConversionJob) -> Record:
        """Write the files of one image, in place of any that a run before left."""
        if self.upright:
            job = _upright(job)
        self._remove_old(job)
        left_out: list[Mapping[str, str | None]] = []

        def cannot(task: str | None, path: Path, error: DataError) -> None:
            if not self.skip_corrupt:
                raise error
            left_out.append({"task": task, "file": path.as_posix(), "reason": str(error)})

        files: dict[str, str] = {}
        rounding = {}
        try:
            image = job.image.read()
        except DataError as error:
            cannot(None, job.image.path, error)
            return Record(job.id, {}, {}, tuple(left_out))
        path = self._write_image(job, image)
        files[path.relative_to(self.out).as_posix()] = sha256(path)
        for name, label in job.labels.items():
            try:
                path, rounding[name] = self._write_label(self.tasks[name], label, job, image)
                files[path.relative_to(self.out).as_posix()] = sha256(path)
            except DataError as error:
                cannot(name, label.path, error)
        return Record(job.id, files, rounding, tuple(left_out))

    def _remove_old(self, job: ConversionJob) -> None:
        """Remove what an earlier attempt wrote from a source that has been repaired since."""
        for ending in (*JPEG, ".png"):
            (self.out / "images" / f"{job.id}{ending}").unlink(missing_ok=True)
        for name in self.tasks:
            for ending in LABELS:
                (self.out / name / f"{job.id}{ending}").unlink(missing_ok=True)

    def _resizes(self, image: Array) -> bool:
        return self.size is not None and image.shape[:2] != self.size

    def _write_image(self, job: ConversionJob, image: Array) -> Path:
        ending = job.image.path.suffix.lower()
        whole = job.image.reader is read_image and not self._resizes(image)
        copied = whole and ending in (JPEG if self.jpeg else (*JPEG, ".png"))
        path = self.out / "images" / f"{job.id}{ending if copied else '.jpg' if self.jpeg else '.png'}"
        with atomically(path) as new:
            if copied:
                shutil.copyfile(job.image.path, new)
                return path
            if self._resizes(image):
                image = self._resized(job.id, image, {}).image.numpy().transpose(1, 2, 0)
            picture = Image.fromarray(np.ascontiguousarray(image))
            if self.jpeg:
                picture.save(new, quality=self.jpeg)
            else:
                picture.save(new)
        return path

    def _write_label(self, task: Task, label: LabelFile, job: ConversionJob, image: Array) -> tuple[Path, float]:
        """Write a label and read it again: its path, and the largest difference of a value."""
        value, valid = label.read_for(job.image, (image.shape[0], image.shape[1]))
        path = self.out / task.name / f"{job.id}.png"
        if label.plain and label.path.suffix.lower() == ".png" and not self._resizes(image):
            with atomically(path) as new:
                shutil.copyfile(label.path, new)
            return path, 0.0
        if self._resizes(image):
            given = Label(torch.from_numpy(value.copy()), torch.from_numpy(valid.copy())[None])
            resized = self._resized(job.id, image, {task.name: given}).labels[task.name]
            value, valid = resized.value.numpy(), resized.valid[0].numpy()
        with unfinished_folder(path.parent) as folder:
            task.write(folder / "label.png", value, None if valid.all() else valid)
            new = next(folder.iterdir())  # the ending is the task's choice: PNG or npy
            difference = _difference(task.reading(label.labelled), new, label.path, value, valid)
            path = path.with_name(f"{path.stem}{new.suffix}")
            new.replace(path)
        return path, difference

    def _resized(self, id: str, image: Array, labels: Mapping[str, Label]) -> Sample:
        assert self.size is not None
        pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())
        sample = Sample(id, pixels, torch.ones(1, *pixels.shape[1:], dtype=torch.bool), labels)
        return resize(sample, self.tasks, self.size)


def _upright(job: ConversionJob) -> ConversionJob:
    """The same job on the image as it is shown; one whose image needs no turning is given back as it is."""
    if job.image.reader is not read_image or exif_orientation(job.image.path) == 1:
        return job
    return replace(
        job,
        image=job.image._replace(reader=read_upright),
        labels={name: file._replace(reader=_upright_reader(file.reader)) for name, file in job.labels.items()},
    )


def _upright_reader(reader: Reader) -> Reader:
    """A label of another size is brought to that of the turned image."""
    if isinstance(reader, partial) and reader.func is read_resized:
        return partial(read_resized, **(reader.keywords | {"upright": True}))
    return reader


def _difference(task: Task, written: Path, source: Path, value: Array, valid: Array) -> float:
    """The largest difference between a label and what its written file says.

    Raises `LabelError` when other pixels are void, or a whole number (a class) has changed: the label cannot be stored.
    """
    refused = f"label file {source} cannot be stored as a label of task '{task.name}' with the settings {task.spec()}: "
    try:
        again, again_valid = task.read(written)
    except LabelError as error:
        raise LabelError(f"{refused}{error}") from error
    if not np.array_equal(again_valid, valid):
        raise LabelError(f"{refused}other pixels would be void when it is read again")
    difference = np.abs(again.astype(np.float64) - value)[:, valid]
    largest = float(difference.max()) if difference.size else 0.0
    if largest > 0 and np.issubdtype(value.dtype, np.integer):
        raise LabelError(f"{refused}its classes would be others when it is read again")
    return largest
