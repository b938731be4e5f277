"""Any scalar per pixel, as an expectation over evenly spaced bins."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tasktokens.metrics.regression import RegressionErrors
from tasktokens.tasks.base import (
    KINDS,
    Array,
    channel_matmul,
    known_keys,
    parse_range,
)
from tasktokens.tasks.bins import Binned
from tasktokens.tasks.examine import Summary, Sums
from tasktokens.tasks.examine_numbers import range_sums, summarise_range
from tasktokens.tasks.files import to_float32
from tasktokens.tasks.marks import judge_marks, mark_sums
from tasktokens.tasks.stored import StoredLabel
from tasktokens.tasks.void import is_void, parse_void
from tasktokens.utils.colours import colour_table
from tasktokens.utils.label_maps import ScalarMaps


@dataclass(frozen=True)
@KINDS.register("regression")
class Regression(Binned):
    """One scalar per pixel in the user's unit (temperature, height, a score), float32 (1, H, W).

    Attributes:
        minimum, maximum: the range that the labels have; the bins span it.
        unit: for tables, such as ``K``.
        bins: number of evenly spaced bins.
        scale, offset: the value of a stored integer v is ``(v + offset) * scale``; floats are values.
        void: stored values that mean "no label"; NaN, infinity and an alpha of zero do too.

    Loss: L1 in tenths of the range (so that the loss does not depend on the unit) plus 0.1 x
    cross-entropy to the nearest bin. Targets outside the range are clamped to it. Zooming changes no value. Written
    labels are npy of floats, NaN for void.

    Examples:
        >>> task = Regression("height", minimum=0.0, maximum=2.0, bins=3, unit="m")
        >>> task.centres()
        tensor([0., 1., 2.])
        >>> task.decode(torch.zeros(1, 3, 1, 1)).item()
        1.0
    """

    threshold: float = 0.9
    minimum: float = 0.0
    maximum: float = 1.0
    unit: str = ""
    bins: int = 30
    scale: float = 1.0
    offset: float = 0.0
    void: tuple[float, ...] = ()

    kind: ClassVar[str] = "regression"
    storage: ClassVar[tuple[str, ...]] = ("scale", "offset", "void")
    confidence_weighted: ClassVar[bool] = True
    continuous: ClassVar[bool] = True

    @property
    def num_tokens(self) -> int:
        """One logit per bin."""
        return self.bins

    @property
    def span(self) -> float:
        """Width of the range."""
        return self.maximum - self.minimum

    def spec(self) -> dict[str, Any]:
        """Range, bins and file settings."""
        return {
            "kind": self.kind, "range": [self.minimum, self.maximum], "unit": self.unit, "bins": self.bins,
            "scale": self.scale, "offset": self.offset, "void": list(self.void),
        }  # fmt: skip

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """As `Task.parse`; ``range`` gives ``minimum`` and ``maximum``."""
        known_keys(values, "range", "unit", "bins", "scale", "offset", "void")
        low, high = parse_range(values["range"])
        others = {name: value for name, value in values.items() if name != "range"}
        return {"minimum": low, "maximum": high} | others | {"void": parse_void(values.get("void", ()))}

    def validate(self) -> str | None:
        """An error message for a range, number of bins, scale or offset that cannot be used."""
        if not -math.inf < self.minimum < self.maximum < math.inf:
            return f"range must be [low, high] with low < high, found [{self.minimum}, {self.maximum}]"
        if not isinstance(self.unit, str):
            return f"unit must be text, found {self.unit!r}"
        if not isinstance(self.bins, int) or self.bins < 2:
            return f"bins must be a whole number above 1, found {self.bins!r}"
        if not 0 < self.scale < math.inf or not math.isfinite(self.offset):
            return f"scale must be above 0 and both scale and offset finite, found {self.scale} and {self.offset}"
        return super().validate()

    def centres(self) -> Tensor:
        """Bin centres (K,) in the labels' unit."""
        return _line(self.minimum, self.maximum, self.bins)

    def token_names(self) -> tuple[str, ...]:
        """The value at the centre of each bin."""
        return tuple(f"{centre:.3g} {self.unit}".strip() for centre in self.centres().tolist())

    def interpret(self, stored: StoredLabel) -> tuple[Array, Array]:
        """Values (1, H, W) float32: integers as (stored + ``offset``) x ``scale``, floats as they are.

        Void: declared void values, and numbers that are not finite.
        """
        stored.check_exact()
        plane = stored.numbers(lossless=bool(self.void))
        valid = stored.valid & np.isfinite(plane) & ~is_void(plane, self.void)
        whole = not np.issubdtype(plane.dtype, np.floating)
        # In double precision: a 32-bit integer does not fit a float.
        value = (plane.astype(np.float64) + self.offset) * self.scale if whole else plane
        value, held = to_float32(np.where(valid, value, 0), neutral=0)
        return value[None], valid & held

    def maps(self) -> ScalarMaps:
        """Colours of the range, files of floats."""
        return ScalarMaps(self.minimum, self.maximum, colour_table())

    def encode(self, value_CHW: Array, valid_HW: Array | None = None) -> Array:
        """Floats in the user's unit; pixels that are not valid become void."""
        return self.maps().encode(value_CHW, valid_HW)

    def colourise(self, value_CHW: Array, valid_HW: Array | None = None) -> Array:
        """Colours from the lower to the upper end of the range; void is black."""
        return self.maps().colourise(value_CHW, valid_HW)

    def examine(self, value_CHW: Array, valid_HW: Array) -> dict[str, Array]:
        """A histogram of the range, and pixels outside it."""
        return range_sums(value_CHW[0], valid_HW, self.minimum, self.maximum)

    def examine_stored(self, stored: StoredLabel) -> dict[str, Array]:
        """Counts of stored numbers that usually mark missing measurements."""
        return mark_sums(stored, self.void, self.minimum, self.maximum, self.scale, self.offset)

    def summarise(self, sums: Sums) -> Summary:
        """Quantiles, histogram, and signs of a wrong range or of unmarked void values."""
        return summarise_range(sums, self.minimum, self.maximum, self.unit).joined(judge_marks(sums))

    def label_map(self, value_BCHW: Tensor) -> Tensor:
        """The place within the range, (B, 1, H, W)."""
        return (value_BCHW.float().clamp(self.minimum, self.maximum) - self.minimum) / self.span

    def pixel_loss(self, logits_BKHW: Tensor, target_BCHW: Tensor) -> Tensor:
        """L1 in tenths of the range plus 0.1 x cross-entropy to the nearest bin, (B, 1, H, W)."""
        target = target_BCHW.float().clamp(self.minimum, self.maximum)
        nearest = ((target - self.minimum) * ((self.bins - 1) / self.span)).round().long().clamp_(0, self.bins - 1)
        log_p = F.log_softmax(logits_BKHW.float(), dim=1)
        predicted = channel_matmul(self.centres()[None], log_p.exp())
        return (predicted - target).abs() * (10 / self.span) - 0.1 * log_p.gather(1, nearest)

    def places(self) -> Tensor:
        """From 0 to 1."""
        return torch.linspace(0, 1, self.bins)

    def sure(self, deviation_B1HW: Tensor) -> Tensor:
        """One minus twice the standard deviation as a share of the range: 0 when torn between its two ends."""
        return (1 - 2 * deviation_B1HW).clamp(0, 1)

    def correct(self, prediction_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
        """Within 5 % of the range."""
        return (prediction_BCHW - target_BCHW).abs() < 0.05 * self.span

    @property
    def difference_unit(self) -> str:
        """That of the labels."""
        return self.unit

    def metric(self) -> RegressionErrors:
        """MAE, RMSE and the share of pixels within 5 % of the range."""
        return RegressionErrors(self.span, self.unit)


@cache
def _line(low: float, high: float, count: int) -> Tensor:
    return torch.linspace(low, high, count)
