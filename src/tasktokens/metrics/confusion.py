"""Mean intersection over union from one confusion matrix over the whole set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from tasktokens.metrics.base import Metric


class ConfusionMatrix(Metric):
    """mIoU, pixel accuracy and IoU per class, in percent.

    A class that occurs neither in the predictions nor in the truth is left out of the mean. Some published code counts
    it as 0, and so does `compute_paper`.
    """

    higher_is_better: ClassVar[dict[str, bool]] = {"mIoU": True, "pixAcc": True, "IoU": True}
    units: ClassVar[dict[str, str]] = {"mIoU": "%", "pixAcc": "%", "IoU": "%"}

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        super().__init__(len(self.classes) ** 2)

    @property
    def primary(self) -> str:
        return "mIoU"

    def statistics(self, prediction_BCHW: Tensor, target_BCHW: Tensor, valid_B1HW: Tensor) -> Tensor:
        count = len(self.classes)
        pair = target_BCHW.long() * count + prediction_BCHW.long()
        # Invalid pixels go to a bin of their own: no boolean indexing, hence no host sync.
        pair = torch.where(valid_B1HW, pair, torch.full_like(pair, count**2))
        return torch.bincount(pair.flatten(), minlength=count**2 + 1)[: count**2].double()

    def compute(self) -> dict[str, float]:
        matrix = self.state.reshape(len(self.classes), -1)
        hit, truth, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
        union = truth + predicted - hit
        iou = 100 * hit / union
        values = {"mIoU": iou[union > 0].mean().item(), "pixAcc": (100 * hit.sum() / truth.sum()).item()}
        return values | {f"IoU/{name}": value.item() for name, value in zip(self.classes, iou, strict=True)}

    def compute_paper(self) -> dict[str, float]:
        values = self.compute()
        seen = sum(values[f"IoU/{name}"] == values[f"IoU/{name}"] for name in self.classes)
        return values | {"mIoU": values["mIoU"] * seen / len(self.classes)}
