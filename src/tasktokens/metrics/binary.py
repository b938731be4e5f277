"""Overlap of yes-or-no maps, pooled over the set."""

from __future__ import annotations

from typing import ClassVar

from tasktokens.metrics.base import METRICS
from tasktokens.metrics.fmeasure import FMeasure


@METRICS.register("binary")
class BinaryOverlap(FMeasure):
    """IoU, precision and recall of "yes" at probability 0.5, and the best F1 over 19 thresholds, in percent.

    F1 at 0.5 is left out, since it is a function of the IoU. The truth is positive above 0.5. Precision is NaN where
    nothing is predicted, recall where nothing is true, IoU where neither is.

    Examples:
        >>> import torch
        >>> metric = BinaryOverlap()
        >>> metric.update(torch.tensor([[[[0.9, 0.8, 0.2]]]]), torch.tensor([[[[1.0, 0.0, 0.0]]]]))
        >>> metric.compute()["IoU"], metric.compute()["recall"]
        (50.0, 100.0)
    """

    name: ClassVar[str] = "binary"
    higher_is_better: ClassVar[dict[str, bool]] = dict.fromkeys(("IoU", "maxF1", "precision", "recall"), True)
    units: ClassVar[dict[str, str]] = dict.fromkeys(("IoU", "maxF1", "precision", "recall"), "%")

    def __init__(self) -> None:
        super().__init__("maxF1", beta2=1.0, thresholds=tuple(i / 20 for i in range(1, 20)))

    @property
    def primary(self) -> str:
        """IoU."""
        return "IoU"

    def compute(self) -> dict[str, float]:
        """IoU, maxF1, precision and recall, in percent."""
        negative, positive = self.state.reshape(2, -1)
        # Bin i holds what passes i thresholds; the tenth is 0.5.
        hit, false = positive[10:].sum(), negative[10:].sum()
        truth = positive.sum()
        values = {"IoU": hit / (truth + false), "precision": hit / (hit + false), "recall": hit / truth}
        first = {name: (100 * value).item() for name, value in values.items()}
        return {"IoU": first.pop("IoU")} | super().compute() | first
