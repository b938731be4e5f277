"""Surface normals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from tasktokens.tasks.base import KINDS, Array, known_keys
from tasktokens.tasks.directions import summarise_directions
from tasktokens.tasks.examine import Summary, Sums
from tasktokens.tasks.stored import StoredLabel
from tasktokens.tasks.unit_vectors import UnitVectors, parse_void_vectors
from tasktokens.utils.label_maps import VectorMaps


@dataclass(frozen=True)
@KINDS.register("normals")
class Normals(UnitVectors):
    """Surface normals in camera coordinates: x right, y down, z forward, pointing to the camera.

    The published centres are k-means clusters of training normals; ours are a fixed, nearly even lattice on the half
    sphere that faces the camera, so that no label, hidden or not, has to be read to build the network. They come in
    mirrored pairs, so their number is even.

    Attributes:
        centres_count: number of centres.
        frame: what the three channels of the files are in our axes: ``("x", "-y", "-z")`` for x right, y up and z
            backward, ``("x", "z", "-y")`` for x right, y forward and z up.

    Examples:
        >>> task = Normals("normals", centres_count=10)
        >>> normal = task.decode(torch.zeros(1, 10, 2, 2))
        >>> normal.shape, normal[0, :, 0, 0].norm().item()
        (torch.Size([1, 3, 2, 2]), 1.0)
    """

    frame: tuple[str, str, str] = ("x", "y", "z")

    kind: ClassVar[str] = "normals"
    storage: ClassVar[tuple[str, ...]] = ("frame", "void")
    directions: ClassVar[tuple[str, ...]] = ("to the right", "to the left", "down", "up", "", "to the camera")

    def spec(self) -> dict[str, Any]:
        """Number of centres; ``frame`` and ``void`` where they are set."""
        frame = {} if self.frame == ("x", "y", "z") else {"frame": list(self.frame)}
        return {"kind": self.kind, "centres": self.centres_count} | frame | self.void_spec()

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """As `Task.parse`, for ``centres``, ``frame`` and ``void``."""
        known_keys(values, "centres", "frame", "void")
        frame = values.get("frame")
        return {
            "centres_count": values.get("centres"), "frame": None if frame is None else tuple(map(str, frame)),
            "void": parse_void_vectors(values.get("void", ())),
        }  # fmt: skip

    def validate(self) -> str | None:
        """An error message unless ``centres`` is even and ``frame`` names each axis once."""
        if not isinstance(self.centres_count, int) or self.centres_count < 2 or self.centres_count % 2:
            return f"centres must be an even whole number above 0, found {self.centres_count!r}"
        if sorted(axis.removeprefix("-") for axis in self.frame) != ["x", "y", "z"]:
            return f"frame must have x, y and z once each, each perhaps with a minus, found {list(self.frame)}"
        return super().validate()

    def centres(self) -> Tensor:
        """Unit vectors (K, 3) that face the camera."""
        return _half_sphere(self.centres_count)

    def interpret(self, stored: StoredLabel) -> tuple[Array, Array]:
        """As `UnitVectors.interpret`, turned from the files' frame to x right, y down, z away."""
        value, valid = super().interpret(stored)
        if self.frame == ("x", "y", "z"):
            return value, valid
        ours = np.empty_like(value)
        for channel, axis in enumerate(self.frame):
            ours["xyz".index(axis[-1])] = -value[channel] if axis[0] == "-" else value[channel]
        return np.where(valid, ours, np.array([0, 0, -1], np.float32)[:, None, None]), valid

    def maps(self) -> VectorMaps:
        """The customary colours, in which a wall that faces the camera is light blue; bytes in the files' frame."""
        return VectorMaps((1, -1, -1), self.frame, self.directions)

    def summarise(self, sums: Sums) -> Summary:
        """As `UnitVectors.summarise`, with a check of the declared frame."""
        return summarise_directions(sums, self.frame)

    def flip(self, value_CHW: Tensor) -> Tensor:
        """Mirror the map and negate x."""
        mirrored = value_CHW.flip(-1)
        mirrored[0].neg_()
        return mirrored

    def flip_logits(self, logits_BKHW: Tensor) -> Tensor:
        """Mirror the map and swap each centre with its mirror image."""
        # Centre 2i+1 is the mirror image of centre 2i.
        swapped = torch.arange(self.num_tokens, device=logits_BKHW.device) ^ 1
        return logits_BKHW.flip(-1).index_select(1, swapped)


@cache
def _half_sphere(count: int) -> Tensor:
    """A nearly even lattice on the half sphere z < 0, in mirrored pairs: (x, y, z) is followed by (-x, y, z)."""
    index = torch.arange(count // 2, dtype=torch.float64)
    z = -(index + 0.5) / (count // 2)
    # The golden ratio spreads the angles over the quarter sphere x > 0, but for a margin between a pair.
    angle = 0.95 * math.pi * ((index * (math.sqrt(5) - 1) / 2 + 0.1) % 1 - 0.5)
    radius = (1 - z**2).sqrt()
    half = torch.stack([radius * angle.cos(), radius * angle.sin(), z], dim=1).float()
    return torch.stack([half, half * torch.tensor([-1.0, 1.0, 1.0])], dim=1).flatten(0, 1)
