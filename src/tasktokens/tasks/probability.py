"""What tasks have in common whose label is a probability per pixel: files, colours, statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from tasktokens.tasks.base import Array, Task, known_keys
from tasktokens.tasks.examine import Summary, Sums, probability_sums, summarise_probabilities, white_sums
from tasktokens.tasks.files import unit_interval
from tasktokens.tasks.stored import StoredLabel
from tasktokens.tasks.void import is_void, parse_void
from tasktokens.utils.label_maps import ProbabilityMaps


@dataclass(frozen=True)
class Probability(Task):
    """One label in [0, 1] per pixel, float32 (1, H, W); void: alpha 0, NaN. Of a palette the colour counts.

    Attributes:
        white: the stored integer that means 1; None: 255 in 8 bits, 65535 in 16 bits. Floats are probabilities.
        void: stored values that mean "no label".
    """

    white: float | None = None
    void: tuple[float, ...] = ()

    storage: ClassVar[tuple[str, ...]] = ("white", "void")
    continuous: ClassVar[bool] = True
    settings: ClassVar[tuple[str, ...]] = ()
    """Its own settings besides those of the files."""

    def interpret(self, stored: StoredLabel) -> tuple[Array, Array]:
        """Probabilities (1, H, W) float32, and valid (H, W). Raises `LabelError` for numbers outside the range."""
        # Lossy compression hardly changes a probability, but it changes exact numbers such as void values.
        plane = stored.numbers(lossless=bool(self.void) or self.white is not None)
        valid = stored.valid & np.isfinite(plane) & ~is_void(plane, self.void)
        value = unit_interval(stored.path, np.where(valid, plane, plane.dtype.type(0)), self.white)
        return value[None], valid

    def maps(self) -> ProbabilityMaps:
        """Grey; floats where the files have other numbers for 1 or for void."""
        return ProbabilityMaps(self.white is not None or bool(self.void))

    def encode(self, value_CHW: Array, valid_HW: Array | None = None) -> Array:
        """Grey of 8 bits with alpha for void, or floats where the files have other numbers for 1 or for void."""
        return self.maps().encode(value_CHW, valid_HW)

    def colourise(self, value_CHW: Array, valid_HW: Array | None = None) -> Array:
        """Grey, from black for 0 to white for 1; void is dark blue."""
        return self.maps().colourise(value_CHW, valid_HW)

    def examine(self, value_CHW: Array, valid_HW: Array) -> dict[str, Array]:
        """Pixels by value."""
        return probability_sums(value_CHW[0], valid_HW)

    def examine_stored(self, stored: StoredLabel) -> dict[str, Array]:
        """Whether a file of integers goes to 1 or beyond."""
        return white_sums(stored, self.white)

    def summarise(self, sums: Sums) -> Summary:
        """Histogram of the probabilities; a task of one logit has few positive pixels."""
        return summarise_probabilities(sums, rare=self.num_tokens == 1)

    def seen(self, sums: Sums) -> dict[str, int]:
        """Pixels on either side of 0.5."""
        return {"below 0.5": int(sums["steps"][:128].sum()), "above 0.5": int(sums["steps"][128:].sum())}

    def correct(self, prediction_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
        """The same side of 0.5."""
        return (prediction_BCHW > 0.5) == (target_BCHW > 0.5)

    @property
    def num_groups(self) -> int:
        """Confidences are calibrated for no and for yes."""
        return 2

    def group(self, prediction_BCHW: Tensor) -> Tensor:
        """Whether the prediction is yes, (B, 1, H, W)."""
        return (prediction_BCHW > 0.5).long()

    def spec(self) -> dict[str, Any]:
        """The kind, with ``white`` and ``void`` where they are set."""
        stored = {"white": self.white} if self.white is not None else {}
        return {"kind": self.kind} | stored | ({"void": list(self.void)} if self.void else {})

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """As `Task.parse`, for ``white``, ``void`` and the settings of the kind."""
        known_keys(values, "white", "void", *cls.settings)
        return dict(values) | {"void": parse_void(values.get("void", ()))}

    def validate(self) -> str | None:
        """An error message unless ``white`` is above 0."""
        if self.white is not None and not self.white > 0:
            return f"white must be above 0, found {self.white}"
        return super().validate()


@dataclass(frozen=True)
class OneLogit(Probability):
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
        """1."""
        return 1

    def token_names(self) -> tuple[str, ...]:
        """The name of the task."""
        return (self.name,)

    def spec(self) -> dict[str, Any]:
        """The values of the probability kinds, with ``positive_weight``."""
        return super().spec() | {"positive_weight": self.positive_weight}

    def validate(self) -> str | None:
        """An error message unless ``positive_weight`` is between 0 and 1."""
        if not 0 < self.positive_weight < 1:
            return f"positive_weight must lie between 0 and 1, found {self.positive_weight}"
        return super().validate()

    def decode(self, logits_BKHW: Tensor) -> Tensor:
        """The sigmoid, (B, 1, H, W) in [0, 1]."""
        return logits_BKHW.float().sigmoid()

    def confidence(self, logits_BKHW: Tensor) -> Tensor:
        """Twice the distance of the probability from 0.5, (B, 1, H, W) in [0, 1]."""
        return (logits_BKHW.float().sigmoid() - 0.5).abs() * 2
