"""Tasks whose label is a probability a pixel: saliency (two logits), edges and any other yes or no (one logit)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tasktokens.metrics.binary import BinaryOverlap
from tasktokens.metrics.boundary import Annotators
from tasktokens.metrics.edge import EdgeF
from tasktokens.metrics.fmeasure import FMeasure
from tasktokens.metrics.saliency import SaliencyF
from tasktokens.tasks.base import KINDS, Array, Task, known_keys, largest_probability
from tasktokens.tasks.examine import Summary, Sums, probability_sums, summarise_probabilities, white_sums
from tasktokens.tasks.files import unit_interval, write_floats, write_png
from tasktokens.tasks.stored import StoredLabel
from tasktokens.tasks.void import is_void, parse_void
from tasktokens.utils.legends import Legend


@dataclass(frozen=True)
class _Probability(Task):
    """One label in [0, 1] per pixel, float32 (1, H, W); void: alpha 0, NaN. Of a palette the colour counts.

    Attributes:
        white: the stored integer that means 1; None: 255 in 8 bits, 65535 in 16 bits. Floats are probabilities.
        void: stored values that mean "no label".
    """

    white: float | None = None
    void: tuple[float, ...] = ()

    storage: ClassVar[tuple[str, ...]] = ("white", "void")
    settings: ClassVar[tuple[str, ...]] = ()
    """Its own settings besides those of the files."""

    def interpret(self, stored: StoredLabel) -> tuple[Array, Array]:
        # Lossy compression hardly changes a probability, but it changes exact numbers such as void values.
        plane = stored.numbers(lossless=bool(self.void) or self.white is not None)
        valid = stored.valid & np.isfinite(plane) & ~is_void(plane, self.void)
        value = unit_interval(stored.path, np.where(valid, plane, plane.dtype.type(0)), self.white)
        return value[None], valid

    def write(self, path: Path, value_CHW: Array, valid_HW: Array | None = None) -> None:
        if self.white is not None or self.void:
            # Grey values have another meaning here; floats always have the same.
            write_floats(path, value_CHW[0].clip(0, 1), valid_HW)
            return
        grey = np.rint(value_CHW[0].clip(0, 1) * 255).astype(np.uint8)
        alpha = None if valid_HW is None else np.where(valid_HW, np.uint8(255), np.uint8(0))
        write_png(path, grey if alpha is None else np.stack([grey, alpha], axis=-1))

    def colourise(self, value_CHW: Array, valid_HW: Array | None = None) -> Array:
        grey = np.rint(value_CHW[0].clip(0, 1) * 255).astype(np.uint8)
        rgb = np.repeat(grey[..., None], 3, axis=-1)
        # Void is dark blue here, since black means "no".
        return rgb if valid_HW is None else np.where(valid_HW[..., None], rgb, np.array([25, 25, 70], np.uint8))

    def legend(self, value_CHW: Array | None = None) -> Legend:
        values = np.linspace(0, 1, 64, dtype=np.float32)
        return Legend(self.name, bar=self.colourise(values[None, None])[0], ends=("no, 0", "yes, 1"))

    def examine(self, value_CHW: Array, valid_HW: Array) -> dict[str, Array]:
        return probability_sums(value_CHW[0], valid_HW)

    def examine_stored(self, stored: StoredLabel) -> dict[str, Array]:
        return white_sums(stored, self.white)

    def summarise(self, sums: Sums) -> Summary:
        return summarise_probabilities(sums, rare=self.num_tokens == 1)

    def seen(self, sums: Sums) -> dict[str, int]:
        return {"below 0.5": int(sums["steps"][:128].sum()), "above 0.5": int(sums["steps"][128:].sum())}

    def correct(self, prediction_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
        """The same side of 0.5."""
        return (prediction_BCHW > 0.5) == (target_BCHW > 0.5)

    @property
    def num_groups(self) -> int:
        return 2

    def group(self, prediction_BCHW: Tensor) -> Tensor:
        return (prediction_BCHW > 0.5).long()

    def spec(self) -> dict[str, Any]:
        stored = {"white": self.white} if self.white is not None else {}
        return {"kind": self.kind} | stored | ({"void": list(self.void)} if self.void else {})

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        known_keys(values, "white", "void", *cls.settings)
        return dict(values) | {"void": parse_void(values.get("void", ()))}

    def validate(self) -> str | None:
        if self.white is not None and not self.white > 0:
            return f"white must be above 0, found {self.white}"
        return super().validate()


@dataclass(frozen=True)
@KINDS.register("saliency")
class Saliency(_Probability):
    """Salient or not. Loss: cross-entropy, the two classes balanced within each image. Prediction: P(salient).

    Examples:
        >>> task = Saliency("saliency")
        >>> logits = torch.tensor([0.0, 2.0]).view(1, 2, 1, 1)
        >>> round(task.decode(logits).item(), 2)
        0.88
    """

    threshold: float = 0.7
    kind: ClassVar[str] = "saliency"

    @property
    def num_tokens(self) -> int:
        """2 logits per pixel: not salient, salient."""
        return 2

    def token_names(self) -> tuple[str, ...]:
        """``not NAME`` and ``NAME``."""
        return f"not {self.name}", self.name

    def pixel_loss(self, logits_BKHW: Tensor, target_BCHW: Tensor) -> Tensor:
        """Cross-entropy (B, 1, H, W) with soft targets in [0, 1]."""
        log_p = F.log_softmax(logits_BKHW.float(), dim=1)
        return -(target_BCHW * log_p[:, 1:2] + (1 - target_BCHW) * log_p[:, 0:1])

    def pixel_weight(self, target_BCHW: Tensor, valid_B1HW: Tensor) -> Tensor:
        """Weights (B, 1, H, W) in [0, 2] that balance the two classes within each image."""
        # An image (or crop) with one class only, or with nothing valid, keeps weights of 1.
        valid = valid_B1HW.float()
        share = (target_BCHW * valid).sum((1, 2, 3), keepdim=True) / valid.sum((1, 2, 3), keepdim=True).clamp(min=1)
        balanced = target_BCHW * (1 - share) * 2 + (1 - target_BCHW) * share * 2
        return torch.where((share > 0) & (share < 1), balanced, torch.ones_like(balanced))

    def decode(self, logits_BKHW: Tensor) -> Tensor:
        """P(salient), (B, 1, H, W) in [0, 1]."""
        return F.softmax(logits_BKHW.float(), dim=1)[:, 1:2]

    def confidence(self, logits_BKHW: Tensor) -> Tensor:
        """Probability of the likelier class, (B, 1, H, W) in [0.5, 1]."""
        return largest_probability(logits_BKHW)

    def metric(self) -> SaliencyF:
        """maxF and meanF with β² = 0.3."""
        return SaliencyF()


@dataclass(frozen=True)
class _OneLogit(_Probability):
    """The probability is the sigmoid of one logit; confidence: how far it is from 0.5.

    Attributes:
        positive_weight: relative weight of "yes" pixels in the loss on given labels, in (0, 1); "no" has the rest.
            Discovered labels are not weighted: with a soft target, the minimum of a weighted loss is not the target.
    """

    threshold: float = 0.9
    has_distribution: ClassVar[bool] = False
    positive_weight: float = 0.5
    settings: ClassVar[tuple[str, ...]] = ("positive_weight",)

    @property
    def num_tokens(self) -> int:
        return 1

    def token_names(self) -> tuple[str, ...]:
        return (self.name,)

    def spec(self) -> dict[str, Any]:
        return super().spec() | {"positive_weight": self.positive_weight}

    def validate(self) -> str | None:
        if not 0 < self.positive_weight < 1:
            return f"positive_weight must lie between 0 and 1, found {self.positive_weight}"
        return super().validate()

    def decode(self, logits_BKHW: Tensor) -> Tensor:
        return logits_BKHW.float().sigmoid()

    def confidence(self, logits_BKHW: Tensor) -> Tensor:
        return (logits_BKHW.float().sigmoid() - 0.5).abs() * 2


@dataclass(frozen=True)
@KINDS.register("binary")
class Binary(_OneLogit):
    """Yes or no, or a probability. Loss: binary cross-entropy. Prediction: sigmoid. Metrics: IoU, best F1.

    Examples:
        >>> task = Binary("roof")
        >>> logits = torch.zeros(1, 1, 1, 1)
        >>> task.decode(logits).item(), task.confidence(logits).item()
        (0.5, 0.0)
    """

    kind: ClassVar[str] = "binary"

    def pixel_loss(self, logits_BKHW: Tensor, target_BCHW: Tensor) -> Tensor:
        """Binary cross-entropy (B, 1, H, W) with soft targets in [0, 1]."""
        return F.binary_cross_entropy_with_logits(logits_BKHW.float(), target_BCHW.float(), reduction="none")

    def pixel_weight(self, target_BCHW: Tensor, valid_B1HW: Tensor) -> Tensor:
        """Weights (B, 1, H, W): 2 x ``positive_weight`` for yes, 2 x (1 - ``positive_weight``) for no."""
        return 2 * (target_BCHW * self.positive_weight + (1 - target_BCHW) * (1 - self.positive_weight))

    def summarise(self, sums: Sums) -> Summary:
        """Histogram of the probabilities; where yes is weighted up, mostly-yes labels may be inverted."""
        return summarise_probabilities(sums, rare=self.positive_weight > 0.5)

    def metric(self) -> BinaryOverlap:
        """IoU, best F1, precision and recall."""
        return BinaryOverlap()


@dataclass(frozen=True)
@KINDS.register("edge")
class Edge(_OneLogit):
    """Boundary probability. Loss: binary cross-entropy, positive weight 0.95. Prediction: sigmoid.

    Discovered labels have the factor 0.05 of the release on all pixels. Metrics: odsF, oisF, AP, pixelF.

    Attributes:
        max_distance: how far apart boundaries may lie that match in odsF, as a share of the image's diagonal: 0.0075 on
            PASCAL and BSDS500, 0.011 on NYUD. 0: no matching, which costs time; pixelF only.
        annotators: labels hold the lines of ``one`` person, or the ``mean`` over several, as BSDS500 is often stored.

    Examples:
        >>> task = Edge("edge", max_distance=0.011)
        >>> task.decode(torch.zeros(1, 1, 1, 1)).item(), task.metric().primary
        (0.5, 'odsF')
    """

    positive_weight: float = 0.95
    max_distance: float = 0.0075
    annotators: Annotators = "one"
    kind: ClassVar[str] = "edge"
    settings: ClassVar[tuple[str, ...]] = ("positive_weight", "max_distance", "annotators")

    def spec(self) -> dict[str, Any]:
        """The values of the probability kinds, with ``max_distance`` and ``annotators``."""
        return super().spec() | {"max_distance": self.max_distance, "annotators": self.annotators}

    def validate(self) -> str | None:
        """An error message for a matching distance outside [0, 1) or an unknown ``annotators``."""
        if not 0 <= self.max_distance < 1:
            return f"max_distance must be at least 0 and below 1 (a share of the diagonal), found {self.max_distance}"
        if self.annotators not in get_args(Annotators):
            return f"annotators must be one of {', '.join(get_args(Annotators))}, found {self.annotators!r}"
        return super().validate()

    def resize(self, value_CHW: Tensor, valid_1HW: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """One-pixel lines would fall between the samples of a smaller grid: there, take the area's maximum."""
        height, width = value_CHW.shape[-2:]
        shrunk = (min(size[0], height), min(size[1], width))
        if shrunk != (height, width):
            value_CHW = F.adaptive_max_pool2d(value_CHW, shrunk)
            valid_1HW = F.adaptive_max_pool2d(valid_1HW.float(), shrunk) > 0
        return super().resize(value_CHW, valid_1HW, size)

    def pixel_loss(self, logits_BKHW: Tensor, target_BCHW: Tensor) -> Tensor:
        """Binary cross-entropy (B, 1, H, W), times 1 - ``positive_weight`` on every pixel."""
        loss = F.binary_cross_entropy_with_logits(logits_BKHW.float(), target_BCHW.float(), reduction="none")
        return loss * (1 - self.positive_weight)

    def pixel_weight(self, target_BCHW: Tensor, valid_B1HW: Tensor) -> Tensor:
        """Weights (B, 1, H, W) of given labels: p / (1 - p) on edges, 1 elsewhere, where p is ``positive_weight``."""
        return 1 + target_BCHW * (self.positive_weight / (1 - self.positive_weight) - 1)

    def metric(self) -> EdgeF | FMeasure:
        """odsF, oisF, AP and pixelF; pixelF only where ``max_distance`` is 0."""
        if self.max_distance == 0:
            return FMeasure()
        return EdgeF(self.max_distance, self.annotators)
