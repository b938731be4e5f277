"""Tasks whose label is a class id a pixel: semantic segmentation and human parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tasktokens.errors import LabelError
from tasktokens.metrics.confusion import ConfusionMatrix
from tasktokens.tasks.base import Array, Task, known_keys
from tasktokens.tasks.colours import class_palette
from tasktokens.tasks.files import read_plane, write_png


@dataclass(frozen=True)
class Segmentation(Task):
    """One class id a pixel, 0 to ``len(classes) - 1``; ids in ``void`` are ignored.

    Labels are uint8 (1, H, W). Loss: cross-entropy. Confidence: the largest softmax probability.
    """

    classes: tuple[str, ...] = ()
    void: tuple[int, ...] = (255,)

    kind: ClassVar[str] = "classes"

    @property
    def num_tokens(self) -> int:
        return len(self.classes)

    def spec(self) -> dict[str, Any]:
        return {"kind": self.kind, "classes": list(self.classes), "void": list(self.void)}

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        known_keys(values, "classes", "void")
        if isinstance(values["classes"], str):
            raise ValueError("classes, which must be a list of names")
        return {"classes": tuple(map(str, values["classes"])), "void": tuple(map(int, values.get("void", [255])))}

    def mistake(self) -> str | None:
        if not self.classes:
            return "needs at least one class"
        if len(self.classes) > 256:
            return f"at most 256 classes, found {len(self.classes)}"
        return super().mistake()

    def class_names(self) -> tuple[str, ...]:
        return self.classes

    def read(self, path: Path) -> tuple[Array, Array]:
        ids, valid = read_plane(path)
        if np.issubdtype(ids.dtype, np.floating):
            raise LabelError(f"label file {path} of task '{self.name}' must hold whole class ids, found {ids.dtype}")
        valid = valid & ~np.isin(ids, self.void)
        found = ids[valid]
        if found.size and (found.min() < 0 or found.max() >= len(self.classes)):
            wrong = sorted({int(i) for i in np.unique(found) if not 0 <= i < len(self.classes)})
            raise LabelError(
                f"label file {path} of task '{self.name}' holds class id {wrong[:5]}; expected 0 to "
                f"{len(self.classes) - 1} or void {list(self.void)}: add the class or the void id to dataset.yaml"
            )
        return np.where(valid, ids, 0).astype(np.uint8)[None], valid

    def write(self, path: Path, value_CHW: Array, valid_HW: Array | None = None) -> None:
        ids = value_CHW[0].astype(np.uint8)
        if valid_HW is not None:
            ids = np.where(valid_HW, ids, np.uint8(self.void[0] if self.void else 255))
        write_png(path, ids)

    def colourise(self, value_CHW: Array, valid_HW: Array | None = None) -> Array:
        colours = class_palette(len(self.classes))[value_CHW[0].astype(np.int64).clip(0, len(self.classes) - 1)]
        return colours if valid_HW is None else np.where(valid_HW[..., None], colours, np.uint8(0))

    def crop_ok(self, value_CHW: Tensor, valid_1HW: Tensor, share: float) -> bool:
        """As in MMSegmentation's ``cat_max_ratio``; a crop without a valid pixel is not enough either."""
        ids = value_CHW.flatten().long()
        counts = torch.bincount(ids, weights=valid_1HW.flatten().float(), minlength=len(self.classes))
        return bool(counts.sum() > 0 and counts.max() <= share * counts.sum())

    def pixel_loss(self, logits_BKHW: Tensor, target_BCHW: Tensor) -> Tensor:
        return F.cross_entropy(logits_BKHW, target_BCHW[:, 0].long(), reduction="none")[:, None]

    def decode(self, logits_BKHW: Tensor) -> Tensor:
        return logits_BKHW.argmax(dim=1, keepdim=True).to(torch.uint8)

    def confidence(self, logits_BKHW: Tensor) -> Tensor:
        return F.softmax(logits_BKHW.float(), dim=1).amax(dim=1, keepdim=True)

    def correct(self, prediction_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
        """The same class."""
        return prediction_BCHW == target_BCHW

    def metric(self) -> ConfusionMatrix:
        return ConfusionMatrix(self.classes)
