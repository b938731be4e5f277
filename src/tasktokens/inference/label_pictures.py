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
from tasktokens.utils.pictures import LARGEST, Picture, Strip, nearest_pixels, reduced, save_strips


@dataclass(frozen=True, eq=False)
class Shown:
    """A label or prediction in colours, each picture at most `LARGEST` pixels per side.

    Attributes:
        name: of the task.
        caption: above the picture.
        colours: (H, W, 3) uint8.
        confidence: its confidence in colours, or None.
        legend: what the colours mean.
    """

    name: str
    caption: str
    colours: Array
    confidence: Array | None
    legend: Legend


def show(
    task: Task, value_CHW: Array, valid_HW: Array | None = None, confidence_HW: Array | None = None, caption: str = ""
) -> Shown:
    """Colour what can be seen of a label or prediction; ``valid_HW`` None: all of it. The legend is of the whole."""
    height, width = value_CHW.shape[1:]
    kept = nearest_pixels(height, width)
    colours = task.colourise(value_CHW[:, *kept], None if valid_HW is None else valid_HW[kept])
    confidence = None if confidence_HW is None else colour_map(confidence_HW[kept])
    return Shown(task.name, caption or task.name, colours, confidence, _legend(task, value_CHW, valid_HW))


def save_label_picture(path: Path, title: str, image_HW3: Array, shown: Sequence[Shown]) -> Path:
    """Draw image | labels in colours | their confidences as one PNG, each at most `LARGEST` pixels per side."""
    panels = [Picture("image", reduced(image_HW3)), *(Picture(one.caption, one.colours) for one in shown)]
    below = [Picture(f"{one.name}, confidence", one.confidence) for one in shown if one.confidence is not None]
    legends = [one.legend for one in shown]
    legends += [confidence_legend()] if below else []
    strips = [Strip(title, tuple(panels)), *([Strip("", tuple(below))] if below else [])]
    path.parent.mkdir(parents=True, exist_ok=True)
    return save_strips(path, strips, legends=legends)


def _legend(task: Task, value_CHW: Array, valid_HW: Array | None) -> Legend:
    """That of the task, with the colour of void where there is some."""
    if valid_HW is None or valid_HW.all():
        return task.legend(value_CHW)
    legend = task.legend(value_CHW[:, valid_HW])
    red, green, blue = task.colourise(value_CHW[:, :1, :1], np.zeros((1, 1), dtype=bool))[0, 0].tolist()
    return replace(legend, swatches=(*legend.swatches, ((red, green, blue), "void")))


def is_reduced(height: int, width: int) -> bool:
    """Whether an image is too large to be drawn at its own size."""
    return max(height, width) > LARGEST
