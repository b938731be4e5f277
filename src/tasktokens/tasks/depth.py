"""Depth, or inverse depth, as an expectation over log-spaced bins (HTT, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tasktokens.errors import ConfigError, LabelError
from tasktokens.metrics.depth import DepthErrors
from tasktokens.metrics.inverse_depth import InverseDepthErrors
from tasktokens.tasks.base import (
    KINDS,
    MAX_TOKENS,
    Array,
    channel_matmul,
    known_keys,
    parse_range,
)
from tasktokens.tasks.bins import Binned
from tasktokens.tasks.examine import Summary, Sums
from tasktokens.tasks.examine_numbers import amount_sums, summarise_depth, unusual_distance
from tasktokens.tasks.files import to_float32
from tasktokens.tasks.marks import judge_marks, mark_sums
from tasktokens.tasks.stored import StoredLabel
from tasktokens.tasks.void import is_void, parse_void
from tasktokens.utils.colours import colour_table
from tasktokens.utils.label_maps import DepthMaps


@dataclass(frozen=True)
@KINDS.register("depth")
class Depth(Binned):
    """Distance along the optical axis in metres, or its inverse up to a factor, float32 (1, H, W).

    Attributes:
        minimum, maximum: range that the labels have, in their unit; the bins span it.
        bins: number of log-spaced bins.
        scale, offset: a stored integer v means ``(v + offset) * scale``. Void are a stored 0, NaN, and what means 0
            metres; what means less is an error. In a ``dataset.yaml`` the scale of inverse depth is 1/65535 unless
            given.
        void: further stored values that mean "no label", such as 65535.
        inverse: the labels grow towards the camera (disparity, 1 / metres), in the files' unit. Zooming
            in by s brings everything s times nearer, so it divides depth and multiplies inverse depth; published
            code for Cityscapes divides both.

    Loss: L1 in the labels' unit plus 0.1 x cross-entropy to the nearest bin. Targets outside the bins are clamped to
    them.

    Examples:
        >>> task = Depth("depth", minimum=1.0, maximum=4.0, bins=3)
        >>> [round(centre, 2) for centre in task.centres().tolist()]
        [1.0, 2.0, 4.0]
        >>> round(task.decode(torch.zeros(1, 3, 1, 1)).item(), 2)
        2.33
    """

    threshold: float = 0.85
    minimum: float = 0.67
    maximum: float = 10.0
    bins: int = 30
    scale: float = 0.001
    offset: float = 0.0
    inverse: bool = False
    void: tuple[float, ...] = ()

    kind: ClassVar[str] = "depth"
    pipeline_tag: ClassVar[str] = "depth-estimation"
    storage: ClassVar[tuple[str, ...]] = ("scale", "offset", "void")
    neutral: ClassVar[tuple[float, ...]] = (1.0,)
    confidence_weighted: ClassVar[bool] = True
    continuous: ClassVar[bool] = True

    @property
    def num_tokens(self) -> int:
        """One logit per bin."""
        return self.bins

    def spec(self) -> dict[str, Any]:
        """Range, bins, scale and offset; ``inverse`` and ``void`` where they are set."""
        spec = {
            "kind": self.kind, "range": [self.minimum, self.maximum], "bins": self.bins,
            "scale": self.scale, "offset": self.offset,
        }  # fmt: skip
        void = {"void": list(self.void)} if self.void else {}
        return spec | ({"inverse": True} if self.inverse else {}) | void

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """As `Task.parse`; the range may be left out for depth in metres, not for inverse depth."""
        known_keys(values, "range", "bins", "scale", "offset", "inverse", "void")
        if values.get("inverse") is True:
            if "range" not in values:
                raise ConfigError("inverse depth needs its range, such as [0.004, 0.5]: its unit is that of the files")
            values = {"scale": 1 / 65535, **values}
        low, high = parse_range(values["range"]) if "range" in values else (None, None)
        others = {name: value for name, value in values.items() if name != "range"}
        return {"minimum": low, "maximum": high, **others, "void": parse_void(values.get("void", ()))}

    def validate(self) -> str | None:
        """An error message unless 0 < minimum < maximum, bins > 1, and scale and offset can be used."""
        if not 0 < self.minimum < self.maximum < math.inf:
            order = "[far, near] with 0 < far < near" if self.inverse else "[near, far] with 0 < near < far"
            return f"range must be {order}, found [{self.minimum}, {self.maximum}]"
        if not isinstance(self.bins, int) or self.bins < 2:
            return f"bins must be a whole number above 1, found {self.bins!r}"
        if not isinstance(self.inverse, bool):
            return f"inverse must be true or false, found {self.inverse!r}"
        if not 0 < self.scale < math.inf or not math.isfinite(self.offset):
            return f"scale must be above 0 and both scale and offset finite, found {self.scale} and {self.offset}"
        return super().validate()

    def centres(self) -> Tensor:
        """Bin centres (K,) in the labels' unit."""
        return _log_space(self.minimum, self.maximum, self.bins)

    def token_names(self) -> tuple[str, ...]:
        """The value at the centre of each bin."""
        return tuple(f"{centre:.3g}{'' if self.inverse else ' m'}" for centre in self.centres().tolist())

    def interpret(self, stored: StoredLabel) -> tuple[Array, Array]:
        """Depth (1, H, W) float32: integers as (stored + ``offset``) x ``scale``, floats as they are.

        Void: 0, declared void values, numbers that are not finite, and what is 0 after scaling.

        Raises:
            LabelError: a valid pixel is negative, or the file cannot hold depth.
        """
        plane = stored.numbers(lossless=True)
        valid = stored.valid & np.isfinite(plane) & (plane != 0) & ~is_void(plane, self.void)
        amount = np.where(valid, plane, plane.dtype.type(1))
        if not np.issubdtype(plane.dtype, np.floating):
            amount = (amount.astype(np.float32) + self.offset) * np.float32(self.scale)
        value, held = to_float32(amount, neutral=1)
        valid &= held
        if (value[valid] < 0).any():
            lowest = plane[valid & (value < 0)].min()
            raise LabelError(
                f"label file {stored.where} holds negative depth on {(value[valid] < 0).sum()} pixels (a stored "
                f"{lowest:g} means {value[valid].min():g}); use 0 for void, or list the stored value under void"
            )
        # 0 metres are no distance, and what a float32 rounds to 0 is none either.
        positive = value > 0
        return np.where(positive, value, np.float32(1))[None], valid & positive

    def maps(self) -> DepthMaps:
        """Colours of the logarithm, 16-bit files."""
        ends = self.minimum, self.maximum
        return DepthMaps(*ends, colour_table(), self.inverse, self.scale, self.offset, self.void)

    def encode(self, value_CHW: Array, valid_HW: Array | None = None) -> Array:
        """16 bits, or floats where the values do not fit."""
        return self.maps().encode(value_CHW, valid_HW)

    def storable(self) -> Depth:
        """The task with a scale under which ``maximum`` fits into 16 bits."""
        if self.maximum / self.scale - self.offset <= 65535:
            return self
        least = self.maximum / 65535
        power = 10.0 ** math.floor(math.log10(least))
        step = next(step for step in (1, 2, 5, 10) if step * power >= least)
        return replace(self, scale=float(f"{step * power:g}"), offset=0.0)

    def colourise(self, value_CHW: Array, valid_HW: Array | None = None) -> Array:
        """Colours of the logarithm, near at the upper end of the colour scale; void is black."""
        return self.maps().colourise(value_CHW, valid_HW)

    def examine(self, value_CHW: Array, valid_HW: Array) -> dict[str, Array]:
        """A log histogram, pixels outside the range, and whether values grow down the picture."""
        return amount_sums(value_CHW[0], valid_HW, self.minimum, self.maximum)

    def examine_stored(self, stored: StoredLabel) -> dict[str, Array]:
        """Counts of stored numbers that usually mark missing measurements."""
        return mark_sums(stored, self.void, self.minimum, self.maximum, self.scale, self.offset)

    def summarise(self, sums: Sums) -> Summary:
        """Quantiles, histogram, and signs of another unit or of unmarked void values."""
        found = summarise_depth(sums, self.minimum, self.maximum, self.inverse).joined(judge_marks(sums))
        return found if self.inverse else found.joined(unusual_distance(sums, self.scale))

    def zoom(self, value_CHW: Tensor, scale: float) -> Tensor:
        """Magnified by ``scale``, everything is nearer: depth is divided by it, inverse depth multiplied."""
        return value_CHW * scale if self.inverse else value_CHW / scale

    def zoom_logits(self, logits_BKHW: Tensor, scale: float) -> Tensor:
        """The bins are evenly spaced in the logarithm: a factor is a shift. What leaves the range goes to its end."""
        step = math.log(self.maximum / self.minimum) / (self.bins - 1)
        shift, last = (-1 if self.inverse else 1) * math.log(scale) / step, self.bins - 1
        bins = torch.arange(self.bins, device=logits_BKHW.device)
        source = (bins - shift).clamp(0, last)
        below = source.long().clamp(max=last - 1)
        share = (source - below).to(logits_BKHW.dtype)[:, None, None]
        shifted = logits_BKHW[:, below].lerp(logits_BKHW[:, below + 1], share)
        for end, leaving in ((0, -shift - bins), (last, shift + bins - last)):
            gone = torch.logsumexp(logits_BKHW + leaving.clamp(0, 1).log()[:, None, None], dim=1)
            shifted[:, end] = torch.logaddexp(shifted[:, end], gone)
        return shifted

    def widened(self, scale: tuple[float, float]) -> Depth:
        """Extend the bins by the zoom range at the same log spacing (`zoom`)."""
        nearer, farther = max(scale[1], 1.0), max(1 / scale[0], 1.0)
        if self.inverse:
            low, high = self.minimum / farther, self.maximum * nearer
        else:
            low, high = self.minimum / nearer, self.maximum * farther
        step = math.log(self.maximum / self.minimum) / (self.bins - 1)
        count = math.ceil(math.log(high / low) / step - 1e-9) + 1
        if count > MAX_TOKENS:
            raise ConfigError(
                f"task '{self.name}': {self.bins} bins over [{self.minimum}, {self.maximum}] would be {count} when the "
                f"zoom widens the range; give a wider range or fewer bins"
            )
        return replace(self, minimum=low, maximum=low * math.exp(step * (count - 1)), bins=count)

    def label_map(self, value_BCHW: Tensor) -> Tensor:
        """The share of ``maximum``, (B, 1, H, W)."""
        return value_BCHW.float().clamp(self.minimum, self.maximum) / self.maximum

    def pixel_loss(self, logits_BKHW: Tensor, target_BCHW: Tensor) -> Tensor:
        """L1 in the labels' unit plus 0.1 x cross-entropy to the nearest bin, (B, 1, H, W)."""
        target = target_BCHW.float().clamp(self.minimum, self.maximum)
        step = math.log(self.maximum / self.minimum) / (self.bins - 1)
        nearest = ((target.log() - math.log(self.minimum)) / step).round().long().clamp_(0, self.bins - 1)
        log_p = F.log_softmax(logits_BKHW.float(), dim=1)
        predicted = channel_matmul(self.centres()[None], log_p.exp())
        return (predicted - target).abs() - 0.1 * log_p.gather(1, nearest)

    def places(self) -> Tensor:
        """The logarithms of the centres."""
        return self.centres().log()

    def sure(self, deviation_B1HW: Tensor) -> Tensor:
        """One minus the standard deviation of log depth: 0.85 says "within about 15 %"."""
        return (1 - deviation_B1HW).clamp(0, 1)

    def correct(self, prediction_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
        """Within a factor of 1.25."""
        return torch.maximum(prediction_BCHW / target_BCHW, target_BCHW / prediction_BCHW) < 1.25

    @property
    def unit(self) -> str:
        """Metres; none for inverse depth, whose unit is that of the files."""
        return "" if self.inverse else "m"

    @property
    def difference_unit(self) -> str:
        """That of the values."""
        return self.unit

    def metric(self) -> DepthErrors:
        """Depth errors, or errors of inverse depth."""
        return InverseDepthErrors() if self.inverse else DepthErrors()


@cache
def _log_space(low: float, high: float, count: int) -> Tensor:
    return torch.logspace(math.log10(low), math.log10(high), count)
