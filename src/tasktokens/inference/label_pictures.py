"""One picture of an image and its labels or predictions in colours, with legends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tasktokens.tasks import Task
from tasktokens.tasks.base import Array
from tasktokens.tasks.colours import colour_map, confidence_legend
from tasktokens.utils.pictures import LARGEST, Picture, Strip, reduced, save_strips


@dataclass(frozen=True, eq=False)
class Shown:
    """A label or prediction: value (C, H, W), valid (H, W) bool (None: all), confidence (H, W) in [0, 1] or None."""

    task: Task
    value: Array
    valid: Array | None = None
    confidence: Array | None = None
    caption: str = ""


def save_label_picture(path: Path, title: str, image_HW3: Array, shown: Sequence[Shown]) -> Path:
    """Draw image | labels in colours | their confidences as one PNG, each at most `LARGEST` pixels a side."""
    panels, below = [Picture("image", reduced(image_HW3))], []
    for one in shown:
        name = one.task.name
        panels.append(Picture(one.caption or name, reduced(one.task.colourise(one.value, one.valid))))
        if one.confidence is not None:
            below.append(Picture(f"{name}, confidence", reduced(colour_map(one.confidence))))
    legends = [one.task.legend(one.value if one.valid is None else one.value[:, one.valid]) for one in shown]
    legends += [confidence_legend()] if below else []
    strips = [Strip(title, tuple(panels)), *([Strip("", tuple(below))] if below else [])]
    path.parent.mkdir(parents=True, exist_ok=True)
    return save_strips(path, strips, legends=legends)


def is_reduced(image_HW3: Array) -> bool:
    """Whether an image is too large to be drawn at its own size."""
    return bool(max(image_HW3.shape[:2]) > LARGEST)
