"""Answers to programs: JSON with pictures, one PNG, or an npz of arrays."""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image
from pydantic import BaseModel, Field

from tasktokens.inference.label_pictures import Kept, Shown, show
from tasktokens.inference.results import Prediction
from tasktokens.serving.service import Asked
from tasktokens.tasks.base import Array
from tasktokens.utils.legends import Legend
from tasktokens.utils.pictures import LARGEST, Picture, Strip, draw_strips, png


class Swatch(BaseModel):
    """A colour and what it means."""

    colour: str = Field(examples=["#7f8da3"])
    name: str


class LegendAnswer(BaseModel):
    """What the colours of a picture mean: named colours, or a bar from low to high with what its ends stand for."""

    swatches: list[Swatch]
    bar: list[str] | None = Field(description="colours from the low to the high end")
    ends: tuple[str, str]


class TaskAnswer(BaseModel):
    """The prediction of one task."""

    kind: str = Field(examples=["depth"])
    unit: str = Field(description="of the values; empty for classes, directions and probabilities", examples=["m"])
    classes: list[str] | None = Field(description="names of the values 0, 1, …; null for tasks without classes")
    mean_confidence: float = Field(description="over all pixels, 0 to 1")
    valid: float = Field(description="share of pixels whose confidence exceeds the threshold; 1 without one")
    picture: str = Field(description=f"PNG in base64, at most {LARGEST} pixels per side; pixels below are void (black)")
    legend: LegendAnswer


class PredictionAnswer(BaseModel):
    """All tasks of one image."""

    model: str
    width: int
    height: int
    threshold: float | None
    notes: list[str] = Field(description="such as an EXIF orientation that was not applied")
    tasks: dict[str, TaskAnswer]


class Problem(BaseModel):
    """Why there is no prediction."""

    error: str = Field(examples=["an image may have 16777216 pixels, found 50000x50000; send a smaller one"])


class Health(BaseModel):
    """What the server is."""

    status: str = Field(examples=["ok"])
    version: str
    model: str
    device: str
    tasks: dict[str, str] = Field(description="kind of each task", examples=[{"depth": "depth"}])


def json_answer(asked: Asked, model: str, threshold: float | None) -> bytes:
    """A `PredictionAnswer` as JSON."""
    height, width = asked.size
    tasks = {name: _task(asked, name, threshold) for name in asked.predictor.tasks}
    answer = PredictionAnswer(
        model=model, width=width, height=height, threshold=threshold, notes=list(asked.notes), tasks=tasks
    )
    return answer.model_dump_json().encode()


def png_answer(asked: Asked, threshold: float | None) -> bytes:
    """The image beside every task in colours, with legends, as ``tasktokens predict`` draws it."""
    shown = [show_task(asked, name, threshold) for name in asked.predictor.tasks]
    pictures = [Picture("image", asked.shown_HW3), *(Picture(one.name, one.colours) for one in shown)]
    return png(draw_strips([Strip("", tuple(pictures))], legends=[one.legend for one in shown]))


def npz_answer(asked: Asked, threshold: float | None) -> bytes:
    """For each task ``{task}``, (H, W) or (H, W, C) as `Prediction.value`, ``{task}.confidence``, (H, W) float32, and
    with a threshold ``{task}.valid``, (H, W) bool, at the image's own size."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in asked.predictor.tasks:  # one task in memory at a time
            prediction = asked.predictor.decode_task(name, asked.logits[name], asked.size)
            _add(archive, name, prediction.value)
            _add(archive, f"{name}.confidence", prediction.confidence)
            if threshold is not None:
                _add(archive, f"{name}.valid", prediction.valid(threshold))
    return buffer.getvalue()


def show_task(asked: Asked, name: str, threshold: float | None) -> Shown:
    """The picture of one task; pixels whose confidence does not exceed the threshold are void."""
    kept = keep(asked, name)
    return show(asked.predictor.tasks[name], kept.value_CHW, _valid(kept.confidence_HW, threshold))


def keep(asked: Asked, name: str) -> Kept:
    """Values and confidences of one task at the pixels that a picture shows."""
    kept, top = Kept(asked.predictor.tasks[name], asked.size), 0
    for band in _bands(asked, name):
        kept.add(top, band.value_CHW, None, band.confidence)
        top += len(band.confidence)
    return kept


def _valid(confidence_HW: Array, threshold: float | None) -> Array | None:
    if threshold is None:
        return None
    valid: Array = confidence_HW > threshold
    return valid


def _task(asked: Asked, name: str, threshold: float | None) -> TaskAnswer:
    task, (height, width) = asked.predictor.tasks[name], asked.size
    kept, total, above, top = Kept(task, asked.size), 0.0, 0, 0
    for band in _bands(asked, name):
        kept.add(top, band.value_CHW, None, band.confidence)
        total += float(band.confidence.sum(dtype=np.float64))
        above += band.confidence.size if threshold is None else int((band.confidence > threshold).sum())
        top += len(band.confidence)
    shown = show(task, kept.value_CHW, _valid(kept.confidence_HW, threshold))
    names, picture = task.class_names(), png(Image.fromarray(np.ascontiguousarray(shown.colours)))
    return TaskAnswer(
        kind=task.kind, unit=task.unit, classes=None if names is None else list(names),
        mean_confidence=total / (height * width), valid=above / (height * width),
        picture=base64.b64encode(picture).decode(), legend=legend_answer(shown.legend),
    )  # fmt: skip


def legend_answer(legend: Legend) -> LegendAnswer:
    """A legend with colours as a page writes them."""
    swatches = [Swatch(colour=_hex(colour), name=name) for colour, name in legend.swatches]
    bar = None if legend.bar is None else [_hex(colour) for colour in legend.bar.tolist()]
    return LegendAnswer(swatches=swatches, bar=bar, ends=legend.ends)


def _bands(asked: Asked, name: str) -> Iterator[Prediction]:
    return asked.predictor.decode_bands(name, asked.logits[name], asked.size)


def _hex(colour: Any) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _add(archive: zipfile.ZipFile, name: str, array: Array) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
