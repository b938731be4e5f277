"""Mean intersection over union from one confusion matrix over the whole set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from tasktokens.metrics.base import METRICS, Metric


@METRICS.register("mean_iou")
class MeanIoU(Metric):
    """mIoU, pixel accuracy and IoU per class, in percent.

    A class that occurs neither in the predictions nor in the truth is left out of the mean. Some published code counts
    it as 0, and so does `compute_paper`.

    Args:
        num_classes: predictions and targets are ids from 0 to ``num_classes - 1``; a void id such as 255 in the target
            has to be invalid in the mask.
        class_names: for ``IoU/NAME``; default: the ids.
        labelled: sets of classes that alone were labelled in some images: a target of ``num_classes + k`` means "a
            class that is not in set k". Such pixels are in no confusion matrix, since nobody knows their class; their
            ``openAcc`` is the share that is predicted as one of the classes that were not labelled.

    Raises:
        ValueError: from ``update``: a valid pixel holds another id.

    Examples:
        >>> metric = MeanIoU(num_classes=2)
        >>> metric.update(torch.tensor([[[[0, 0, 1, 1]]]]), torch.tensor([[[[0, 0, 0, 1]]]]))
        >>> {name: round(value, 1) for name, value in metric.compute().items()}
        {'mIoU': 58.3, 'pixAcc': 75.0, 'IoU/0': 66.7, 'IoU/1': 50.0}
    """

    name: ClassVar[str] = "mean_iou"
    higher_is_better: ClassVar[dict[str, bool]] = {"mIoU": True, "pixAcc": True, "IoU": True, "openAcc": True}
    units: ClassVar[dict[str, str]] = {"mIoU": "%", "pixAcc": "%", "IoU": "%", "openAcc": "%"}

    def __init__(
        self, num_classes: int, class_names: Sequence[str] | None = None, labelled: Sequence[Sequence[int]] = ()
    ) -> None:
        self._check_count(num_classes, class_names)
        super().__init__(num_classes**2 + (2 if labelled else 0))
        self.labelled = tuple(map(tuple, labelled))
        self.classes = tuple(map(str, range(num_classes))) if class_names is None else tuple(class_names)

    @property
    def primary(self) -> str:
        """mIoU."""
        return "mIoU"

    def statistics(self, prediction_BCHW: Tensor, target_BCHW: Tensor, valid_B1HW: Tensor) -> Tensor:
        """The confusion matrix, flattened, true classes in rows. Raises `ValueError` for an unknown id."""
        count = len(self.classes)
        most = {"prediction": count, "target": count + len(self.labelled)}
        for what, ids in (("prediction", prediction_BCHW), ("target", target_BCHW)):
            wrong = valid_B1HW & ((ids < 0) | (ids >= most[what]) | (ids != ids.long()))
            if wrong.any():
                raise ValueError(
                    f"a {what} is {ids[wrong][0].item():g}, not a class id from 0 to {count - 1}; "
                    f"mark void pixels in the mask"
                )
        outside = valid_B1HW & (target_BCHW >= count)
        matrix = self._confusion(prediction_BCHW, target_BCHW, valid_B1HW & ~outside)
        return torch.cat([matrix, self._outside(prediction_BCHW, target_BCHW, outside)]) if self.labelled else matrix

    def _outside(self, prediction_BCHW: Tensor, target_BCHW: Tensor, outside_B1HW: Tensor) -> Tensor:
        """Pixels of a class that was not labelled, and how many of them are predicted as such a one, float64 (2,)."""
        hits = torch.zeros_like(outside_B1HW)
        for number, labelled in enumerate(self.labelled):
            inside = torch.isin(prediction_BCHW, torch.tensor(labelled, device=prediction_BCHW.device))
            hits |= (target_BCHW == len(self.classes) + number) & ~inside
        return torch.stack([outside_B1HW.sum(), (hits & outside_B1HW).sum()]).double()

    def _confusion(self, prediction_BCHW: Tensor, target_BCHW: Tensor, valid_B1HW: Tensor) -> Tensor:
        count = len(self.classes)
        pair = target_BCHW.long() * count + prediction_BCHW.long()
        # Invalid pixels go to a bin of their own.
        pair = torch.where(valid_B1HW, pair, torch.full_like(pair, count**2))
        return torch.bincount(pair.flatten(), minlength=count**2 + 1)[: count**2].double()

    def compute(self) -> dict[str, float]:
        """mIoU, pixAcc and IoU per class, in percent."""
        matrix = self.state[: len(self.classes) ** 2].reshape(len(self.classes), -1)
        hit, truth, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
        union = truth + predicted - hit
        iou = 100 * hit / union
        values = {"mIoU": iou[union > 0].mean().item(), "pixAcc": (100 * hit.sum() / truth.sum()).item()}
        if self.labelled:
            pixels, hits = self.state[-2:]
            values["openAcc"] = (100 * hits / pixels).item()
        return values | {f"IoU/{name}": value.item() for name, value in zip(self.classes, iou, strict=True)}

    def paper_values(self) -> dict[str, float]:
        """As `compute`, with classes that never occur counted as 0 in mIoU."""
        values = super().paper_values()
        seen = sum(values[f"IoU/{name}"] == values[f"IoU/{name}"] for name in self.classes)
        return values | {"mIoU": values["mIoU"] * seen / len(self.classes)}

    @staticmethod
    def _check_count(num_classes: int, class_names: Sequence[str] | None) -> None:
        if num_classes < 1 or (class_names is not None and len(class_names) != num_classes):
            names = "" if class_names is None else f", with {len(class_names)} class names"
            raise ValueError(f"num_classes must be at least 1 and that of the class names; it is {num_classes}{names}")
