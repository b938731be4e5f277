"""Examine one image and its labels: what is wrong with the files, and their statistics. No file makes it fail."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from tasktokens.datasets.index import (
    ImageFile,
    LabelFile,
    PictureFacts,
    exif_orientation,
    picture_facts,
    read_image,
)
from tasktokens.datasets.upright import UPRIGHT, describe_orientation, turned_label
from tasktokens.errors import TaskTokensError
from tasktokens.inspection.report import Finding
from tasktokens.tasks import Task
from tasktokens.tasks.base import Array
from tasktokens.tasks.stored import recorded_reads

SMALLEST, LARGEST = 16, 100_000_000
"""Side in pixels below which, and pixels above which, an image is suspicious."""


@dataclass(frozen=True)
class SurveyJob:
    """An image to examine and its labels with their tasks; picklable.

    Attributes:
        id: of the image.
        image: its file.
        labels: task and label file by name of the task.
    """

    id: str
    image: ImageFile
    labels: Mapping[str, tuple[Task, LabelFile]]

    @cached_property
    def facts(self) -> PictureFacts:
        """What the image's file says beside its pixels, where the image is all that it holds."""
        return picture_facts(self.image.path) if self.image.reader is read_image else PictureFacts()


@dataclass(frozen=True)
class LabelSurvey:
    """A label that could be read: (width, height), its pixels that are not void, and its task's sums.

    Attributes:
        size: (width, height).
        valid: number of pixels that are not void.
        sums: what `Task.examine` and `Task.examine_stored` return.
    """

    size: tuple[int, int]
    valid: int
    sums: Mapping[str, Array]


@dataclass(frozen=True)
class FileSurvey:
    """What a job found; ``size`` (width, height) and ``digest`` of the image's pixels are None if it is unreadable.

    ``peak_of_16_bits`` is the largest value, as read with 8 bits, of an image file of 16 bits; else None.

    Attributes:
        id: of the image.
        size: (width, height), or None.
        digest: of the image's pixels, or None.
        labels: of those that could be read, by task.
        findings: errors and warnings of these files.
        peak_of_16_bits: largest value of a 16-bit image as read with 8 bits, else None.
    """

    id: str
    size: tuple[int, int] | None = None
    digest: bytes | None = None
    labels: Mapping[str, LabelSurvey] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    peak_of_16_bits: int | None = None


def examine_job(job: SurveyJob) -> FileSurvey:
    """Read the image and its labels once each."""
    findings: list[Finding] = []
    labels = {}
    with np.errstate(all="ignore"):
        image = _examine_image(job, findings)
        for name, (task, file) in job.labels.items():
            survey = _examine_label(job, task, name, file, image[0] if image else None, findings)
            if survey is not None:
                labels[name] = survey
    if job.facts.orientation > 1 and not any(finding.code == "exif-orientation" for finding in findings):
        advice = "and its labels, which lie on the stored pixels" if job.labels else f"with {UPRIGHT}"
        text = f"the image has {describe_orientation(job.facts.orientation)}: it is seen unturned; turn it {advice}"
        findings.append(Finding("warning", "exif-orientation", text, id=job.id, path=str(job.image.path)))
    size, digest, peak = image if image else (None, None, None)
    return FileSurvey(job.id, size, digest, labels, tuple(findings), peak)


def _examine_image(job: SurveyJob, findings: list[Finding]) -> tuple[tuple[int, int], bytes, int | None] | None:
    """Its (width, height), the digest of its pixels, and the largest value where the file has 16 bits."""
    where = {"id": job.id, "path": str(job.image.path)}
    facts = job.facts
    if facts.frames > 1:
        text = f"the image file holds {facts.frames} pages or frames, of which the first is taken; store it alone"
        findings.append(Finding("warning", "image-many-pages", text, **where))
    try:
        pixels = job.image.read()
    except Exception as error:  # whatever a file does to a decoder, it is the file that is named
        findings.append(_failure(error, "image", where))
        return None
    height, width = pixels.shape[:2]
    if min(height, width) < SMALLEST:
        text = f"the image is {width}x{height} pixels; expected at least {SMALLEST} a side: is it a thumbnail?"
        findings.append(Finding("warning", "image-tiny", text, **where))
    elif height * width > LARGEST:
        text = f"the image is {width}x{height} pixels, which takes long to decode; store a smaller one"
        findings.append(Finding("warning", "image-huge", text, **where))
    if pixels.size and (pixels == pixels[:1, :1]).all():
        text = f"all pixels of the image are {tuple(int(v) for v in pixels[0, 0])}; is it an empty picture? remove it"
        findings.append(Finding("warning", "image-constant", text, **where))
    digest = hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16, salt=f"{width}x{height}".encode()[:16])
    peak = int(pixels.max()) if pixels.size and job.facts.sixteen_bits else None
    return (width, height), digest.digest(), peak


def _examine_label(
    job: SurveyJob, task: Task, name: str, file: LabelFile, size: tuple[int, int] | None, findings: list[Finding]
) -> LabelSurvey | None:
    """Its statistics; None where it cannot be used."""
    where = {"task": name, "id": job.id, "path": str(file.path)}
    if file.plain and (own := exif_orientation(file.path)) > 1:
        text = f"the label file itself has {describe_orientation(own)}; turn its pixels and remove the tag"
        findings.append(Finding("error", "exif-orientation", text, **where))
        return None
    try:
        with recorded_reads() as reads:
            value, valid = file.read()
        # A file in the task's own format says more than its values; it is not decoded again for that.
        stored = next((each for each in reads if each.path == file.path and each.task == name), None)
        if value.shape[1:] != valid.shape or len(value) != task.label_channels:
            raise ValueError(f"its reader gave shapes {value.shape} and {valid.shape}")
        height, width = valid.shape
        finite = bool(np.isfinite(value[:, valid]).all())
        sums = dict(task.examine(value, valid)) if finite else {}
        if stored is not None and finite:
            sums |= task.examine_stored(stored)
    except Exception as error:
        findings.append(_failure(error, f"label of task '{name}'", where))
        return None
    if size is not None and (why := turned_label(job.facts.orientation, (height, width), size[::-1])):
        findings.append(Finding("error", "exif-orientation", why, **where))
        return None
    if size is not None and (width, height) == size[::-1] != size:
        text = (f"the label is {width}x{height} pixels, its image {job.image.path.name} is {size[0]}x{size[1]}: one of "
                f"them is turned by 90 degrees; turn it back")  # fmt: skip
        findings.append(Finding("error", "size-mismatch", text, **where))
        return None
    if size is not None and (width, height) != size:
        text = (f"the label is {width}x{height} pixels, its image {job.image.path.name} is {size[0]}x{size[1]}; "
                f"labels must have the size of their image: resize it with nearest neighbour")  # fmt: skip
        findings.append(Finding("error", "size-mismatch", text, **where))
        return None
    if not finite:
        text = "values that are not void are NaN or infinite; expected finite numbers: mark these pixels as void"
        findings.append(Finding("error", "not-finite", text, **where))
        return None
    if not valid.any():
        text = "every pixel is void, so the label teaches nothing; remove the file, or check the void value"
        findings.append(Finding("warning", "all-void", text, **where))
    return LabelSurvey((width, height), int(valid.sum()), sums)


def _failure(error: Exception, what: str, where: Mapping[str, str]) -> Finding:
    """Readers' own errors say enough; those that another error caused could not read the file, others its values."""
    if isinstance(error, TaskTokensError):
        code = "unreadable" if error.__cause__ is not None else "wrong-values"
        return Finding("error", code, str(error), **where)
    text = f"the {what} in {where['path']} cannot be used ({type(error).__name__}: {error}); replace it or remove it"
    return Finding("error", "unreadable", text, **where)
