"""One picture of an image and its labels or predictions in colours, with legends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasktokens.utils.colours import colour_map, confidence_legend
from tasktokens.utils.legends import Legend
from tasktokens.utils.pictures import LARGEST, Picture, Strip, nearest_pixels, reduced, save_strips

if TYPE_CHECKING:  # predictions of exported models are drawn where there is no torch
    from tasktokens.exported.task import ExportedTask
    from tasktokens.tasks import Task

Array = npt.NDArray[Any]


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


class Kept:
    """What can be seen of a label or prediction, gathered from its rows; the legend is of the whole.

    Args:
        size: (height, width) of the whole.
        confidence: also show how confident it is.
    """

    def __init__(self, task: Task | ExportedTask, size: tuple[int, int], confidence: bool = True) -> None:
        self.task, self.with_confidence = task, confidence
        rows, self.columns = nearest_pixels(*size)
        self.rows: Array = rows[:, 0]
        self.values: list[Array] = []
        self.valid: list[Array] = []
        self.confidences: list[Array] = []
        self.classes: set[int] = set()
        self.void = False

    def add(self, top: int, value_CnW: Array, valid_nW: Array | None, confidence_nW: Array | None) -> None:
        """Rows from ``top`` on; they come in order. ``valid_nW`` None: all of them."""
        rows = self.rows[(self.rows >= top) & (self.rows < top + value_CnW.shape[1])] - top
        kept = (rows[:, None], self.columns)
        self.values.append(value_CnW[:, *kept])
        self.valid.append(np.ones((len(rows), len(self.columns)), bool) if valid_nW is None else valid_nW[kept])
        self.void = self.void or not (valid_nW is None or bool(valid_nW.all()))
        if confidence_nW is not None and self.with_confidence:
            self.confidences.append(confidence_nW[kept])
        if np.issubdtype(value_CnW.dtype, np.integer):
            self.classes |= set(np.unique(value_CnW if valid_nW is None else value_CnW[:, valid_nW]).tolist())

    @property
    def value_CHW(self) -> Array:
        """The values of what was kept."""
        return np.concatenate(self.values, axis=1)

    @property
    def confidence_HW(self) -> Array:
        """The confidences of what was kept, in [0, 1]; only where they were given and asked for."""
        return np.concatenate(self.confidences)

    def shown(self, caption: str = "") -> Shown:
        """In colours."""
        value, valid = self.value_CHW, np.concatenate(self.valid)
        colours = self.task.colourise(value, valid if self.void else None)
        confidence = colour_map(self.confidence_HW) if self.confidences else None
        name = self.task.name
        return Shown(name, caption or name, colours, confidence, self._legend(value, valid))

    def _legend(self, value_CHW: Array, valid_HW: Array) -> Legend:
        """That of the task, with the colour of void where there is some."""
        present = np.array(sorted(self.classes), value_CHW.dtype)[None, None] if self.classes else value_CHW
        legend = self.task.legend(present if self.classes or not self.void else value_CHW[:, valid_HW])
        if not self.void:
            return legend
        red, green, blue = self.task.colourise(value_CHW[:, :1, :1], np.zeros((1, 1), dtype=bool))[0, 0].tolist()
        return replace(legend, swatches=(*legend.swatches, ((red, green, blue), "void")))


def show(
    task: Task | ExportedTask,
    value_CHW: Array,
    valid_HW: Array | None = None,
    confidence_HW: Array | None = None,
    caption: str = "",
) -> Shown:
    """Colour what can be seen of a label or prediction; ``valid_HW`` None: all of it. The legend is of the whole."""
    height, width = value_CHW.shape[1:]
    kept = Kept(task, (height, width))
    kept.add(0, value_CHW, valid_HW, confidence_HW)
    return kept.shown(caption)


def save_label_picture(path: Path, title: str, image_HW3: Array, shown: Sequence[Shown]) -> Path:
    """Draw image | labels in colours | their confidences as one PNG, each at most `LARGEST` pixels per side."""
    panels = [Picture("image", reduced(image_HW3)), *(Picture(one.caption, one.colours) for one in shown)]
    below = [Picture(f"{one.name}, confidence", one.confidence) for one in shown if one.confidence is not None]
    legends = [one.legend for one in shown]
    legends += [confidence_legend()] if below else []
    strips = [Strip(title, tuple(panels)), *([Strip("", tuple(below))] if below else [])]
    path.parent.mkdir(parents=True, exist_ok=True)
    return save_strips(path, strips, legends=legends)


def is_reduced(height: int, width: int) -> bool:
    """Whether an image is too large to be drawn at its own size."""
    return max(height, width) > LARGEST
