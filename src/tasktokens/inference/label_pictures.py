"""One picture of an image and its labels or predictions in colours, with legends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tasktokens.tasks import Task
from tasktokens.tasks.base import Array
from tasktokens.tasks.colours import colour_map, confidence_legend
from tasktokens.utils.legends import Legend
from tasktokens.utils.pictures import LARGEST, Picture, Strip, reduced, save_strips


@dataclass(frozen=True, eq=False)
class Shown:
    """A label or prediction: value (C, H, W), valid (H, W) bool (None: all), confidence (H, W) in [0, 1] or None.

    Attributes:
        task: whose colours are used.
        value: (C, H, W).
        valid: (H, W) bool; None: all pixels.
        confidence: (H, W) in [0, 1], or None.
        caption: above the picture.
    """

    task: Task
    value: Array
    valid: Array | None = None
    confidence: Array | None = None
    caption: str = ""


def save_label_picture(path: Path, title: str, image_HW3: Array, shown: Sequence[Shown]) -> Path:
    """Draw image | labels in colours | their confidences as one PNG, each at most `LARGEST` pixels per side."""
    panels, below = [Picture("image", reduced(image_HW3))], []
    for one in shown:
        name = one.task.name
        panels.append(Picture(one.caption or name, reduced(one.task.colourise(one.value, one.valid))))
        if one.confidence is not None:
            below.append(Picture(f"{name}, confidence", reduced(colour_map(one.confidence))))
    legends = [_legend(one) for one in shown]
    legends += [confidence_legend()] if below else []
    strips = [Strip(title, tuple(panels)), *([Strip("", tuple(below))] if below else [])]
    path.parent.mkdir(parents=True, exist_ok=True)
    return save_strips(path, strips, legends=legends)


def _legend(one: Shown) -> Legend:
    """That of the task, with the colour of void where there is some."""
    if one.valid is None or one.valid.all():
        return one.task.legend(one.value)
    legend = one.task.legend(one.value[:, one.valid])
    red, green, blue = one.task.colourise(one.value[:, :1, :1], np.zeros((1, 1), dtype=bool))[0, 0].tolist()
    return replace(legend, swatches=(*legend.swatches, ((red, green, blue), "void")))


def is_reduced(image_HW3: Array) -> bool:
    """Whether an image is too large to be drawn at its own size."""
    return bool(max(image_HW3.shape[:2]) > LARGEST)
