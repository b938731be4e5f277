"""Unit vectors of any direction, one per pixel: flow directions, orientations, illumination."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from tasktokens.tasks.base import KINDS, known_keys
from tasktokens.tasks.unit_vectors import UnitVectors, parse_void_vectors


@dataclass(frozen=True)
@KINDS.register("vectors")
class Vectors(UnitVectors):
    """Unit vectors in the user's own frame. Files, loss and metrics as for normals, but over the whole sphere.

    Attributes:
        centres_count: number of centres, a multiple of 8: they come in every combination of signs.
        flip_signs: factor of each component when the picture is mirrored left to right: ``(-1, 1, 1)`` where the
            first component points right in the picture, ``(1, 1, 1)`` where the frame is not the picture's.

    Examples:
        >>> task = Vectors("flow", centres_count=8)
        >>> task.centres().shape
        torch.Size([8, 3])
    """

    centres_count: int = 64
    flip_signs: tuple[int, int, int] = (-1, 1, 1)

    kind: ClassVar[str] = "vectors"
    # Over the whole sphere the mean of an undecided network is near 0; the gradient of making it a unit vector, which
    # is one over its length, would drown all others.
    shortest: ClassVar[float] = 0.1

    def spec(self) -> dict[str, Any]:
        """Number of centres and flip signs; ``void`` where it is set."""
        return {"kind": self.kind, "centres": self.centres_count, "flip": list(self.flip_signs)} | self.void_spec()

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """As `Task.parse`, for ``centres``, ``flip`` and ``void``."""
        known_keys(values, "centres", "flip", "void")
        flip = values.get("flip")
        return {
            "centres_count": values.get("centres"), "flip_signs": None if flip is None else tuple(flip),
            "void": parse_void_vectors(values.get("void", ())),
        }  # fmt: skip

    def validate(self) -> str | None:
        """An error message unless ``centres`` is a multiple of 8 and ``flip`` holds three signs."""
        if not isinstance(self.centres_count, int) or self.centres_count < 8 or self.centres_count % 8:
            return f"centres must be a multiple of 8, found {self.centres_count!r}"
        if len(self.flip_signs) != 3 or any(sign not in (-1, 1) for sign in self.flip_signs):
            return f"flip must be three signs, such as [-1, 1, 1], found {list(self.flip_signs)}"
        return super().validate()

    def centres(self) -> Tensor:
        """Unit vectors (K, 3) all around."""
        return _sphere(self.centres_count)

    def flip(self, value_CHW: Tensor) -> Tensor:
        """Mirror the map and multiply the components by ``flip_signs``."""
        return value_CHW.flip(-1) * torch.tensor(self.flip_signs, dtype=torch.float32)[:, None, None]

    def flip_logits(self, logits_BKHW: Tensor) -> Tensor:
        """Mirror the map and swap each centre with its mirror image."""
        # Bit c of a centre's number is the sign of its component c.
        mask = sum(1 << component for component, sign in enumerate(self.flip_signs) if sign < 0)
        swapped = torch.arange(self.num_tokens, device=logits_BKHW.device) ^ mask
        return logits_BKHW.flip(-1).index_select(1, swapped)


@cache
def _sphere(count: int) -> Tensor:
    """A nearly even lattice: count / 8 points in an octant, each with all eight combinations of signs."""
    index = torch.arange(count // 8, dtype=torch.float64)
    z = (index + 0.5) / (count // 8)
    # The golden ratio spreads the angles over the octant, but for a margin between mirrored points.
    angle = math.pi / 2 * (0.05 + 0.9 * ((index * (math.sqrt(5) - 1) / 2 + 0.3) % 1))
    radius = (1 - z**2).sqrt()
    octant = torch.stack([radius * angle.cos(), radius * angle.sin(), z], dim=1).float()
    signs = torch.tensor([[1.0 - 2 * (number >> component & 1) for component in range(3)] for number in range(8)])
    return (octant[:, None] * signs).flatten(0, 1)
