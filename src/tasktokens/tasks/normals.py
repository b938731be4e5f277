"""Unit vectors a pixel, above all surface normals, as an expectation over fixed directions (HTT, section 3.2)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tasktokens.errors import LabelError
from tasktokens.metrics.normals import AngularErrors
from tasktokens.tasks.base import KINDS, Array, Task, channel_matmul, expectation, known_keys, largest_probability
from tasktokens.tasks.directions import direction_sums, length_sums, summarise_directions
from tasktokens.tasks.examine import Summary, Sums
from tasktokens.tasks.files import write_png
from tasktokens.tasks.stored import StoredLabel, describe_shape
from tasktokens.tasks.void import is_void, parse_void
from tasktokens.utils.legends import Legend

Triple = tuple[float, float, float]
"""The three stored components of a vector."""
_COS_RIGHT = math.cos(math.radians(22.5))


@dataclass(frozen=True)
class UnitVectors(Task):
    """One unit vector per pixel, float32 (3, H, W).

    Files are 8-bit RGB, ``n = 2 v / 255 - 1``, or npy of floats; a vector whose length is not near 1 is void, as is an
    alpha of zero.

    Attributes:
        centres_count: K, number of fixed directions.
        void: further stored vectors that mean "no label"; a number stands for three of it.

    Loss: L1 of the three channels, summed, after normalisation, plus 0.1 x cross-entropy to the nearest
    centre.
    """

    threshold: float = 0.4
    centres_count: int = 40
    void: tuple[Triple, ...] = ()

    storage: ClassVar[tuple[str, ...]] = ("void",)
    label_channels: ClassVar[int] = 3
    neutral: ClassVar[tuple[float, ...]] = (0.0, 0.0, -1.0)
    confidence_weighted: ClassVar[bool] = True
    shortest: ClassVar[float] = 1e-6
    """Length below which the loss does not stretch a mean vector to 1."""

    @property
    def num_tokens(self) -> int:
        """One logit per centre."""
        return self.centres_count

    @abstractmethod
    def centres(self) -> Tensor:
        """Unit vectors (K, 3)."""

    def void_spec(self) -> dict[str, Any]:
        """The setting ``void``, where there is one."""
        return {"void": [list(triple) for triple in self.void]} if self.void else {}

    def token_names(self) -> tuple[str, ...]:
        """The components of each centre."""
        return tuple("({:+.2f} {:+.2f} {:+.2f})".format(*centre) for centre in self.centres().tolist())

    def interpret(self, stored: StoredLabel) -> tuple[Array, Array]:
        """Unit vectors; void where alpha is 0, the vector is declared void, or its length is not near 1."""
        stored.check_lossless()
        array, alpha = _vectors(stored), stored.valid
        if array.ndim != 3 or array.shape[-1] != 3:
            raise LabelError(f"label file {stored.where} must have 3 channels, found {describe_shape(array.shape)}")
        if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
            raise LabelError(f"label file {stored.where} must be 8-bit or float, found {array.dtype}")
        alpha &= ~self.is_declared_void(array)
        # Channels first, for numpy is slow along a last axis of three, and in place, for fresh memory is slow too.
        vectors = np.ascontiguousarray(np.moveaxis(array, -1, 0)).astype(np.float32)
        if array.dtype == np.uint8:
            vectors *= np.float32(2 / 255)
            vectors -= 1
        length = np.sqrt(vectors[0] ** 2 + vectors[1] ** 2 + vectors[2] ** 2)
        # NaN compares false, so it is void too.
        valid = alpha & (length > 0.5) & (length < 1.5)
        vectors /= np.where(valid, length, np.float32(1))
        np.copyto(vectors, np.array([0, 0, -1], np.float32)[:, None, None], where=~valid)
        return vectors, valid

    def is_declared_void(self, array_HW3: Array) -> Array:
        """Where a stored vector is one of ``void``, (H, W) bool."""
        found = np.zeros(array_HW3.shape[:2], dtype=bool)
        for triple in self.void:
            found |= np.logical_and.reduce([is_void(array_HW3[..., c], (triple[c],)) for c in range(3)])
        return found

    def write(self, path: Path, value_CHW: Array, valid_HW: Array | None = None) -> None:
        """Write 8-bit RGB PNG, v = (n + 1) x 127.5; void is (128, 128, 128)."""
        stored = np.rint((np.moveaxis(value_CHW, 0, -1).clip(-1, 1) + 1) * 127.5).astype(np.uint8)
        write_png(path, stored if valid_HW is None else np.where(valid_HW[..., None], stored, np.uint8(128)))

    directions: ClassVar[tuple[str, ...]] = ("+x", "-x", "+y", "-y", "+z", "-z")
    """What vectors along and against each axis are called in a legend; without a name, they are left out."""

    def legend(self, value_CHW: Array | None = None) -> Legend:
        """Colours of the named axis directions."""
        axes = np.stack([sign * axis for axis in np.eye(3, dtype=np.float32) for sign in (1, -1)], axis=1)
        colours = self.colourise(axes[:, None])[0]
        named = zip(colours.tolist(), self.directions, strict=True)
        return Legend(self.name, tuple(((r, g, b), name) for (r, g, b), name in named if name))

    def examine(self, value_CHW: Array, valid_HW: Array) -> dict[str, Array]:
        """Sums of the vectors, their nearest axes, and the share that faces the camera in each frame."""
        return direction_sums(value_CHW, valid_HW)

    def examine_stored(self, stored: StoredLabel) -> dict[str, Array]:
        """Counts of stored vectors with and without length 1."""
        array = _vectors(stored)
        return length_sums(array, ~stored.valid | self.is_declared_void(array))

    def summarise(self, sums: Sums) -> Summary:
        """Mean direction, share of each axis, and length of the vectors."""
        return summarise_directions(sums)

    def pixel_loss(self, logits_BKHW: Tensor, target_BCHW: Tensor) -> Tensor:
        """L1 to the normalised mean vector plus 0.1 x cross-entropy to the nearest centre, (B, 1, H, W)."""
        target = target_BCHW.float()
        log_p = F.log_softmax(logits_BKHW.float(), dim=1)
        centres = self.centres().to(log_p)
        predicted = F.normalize(channel_matmul(centres.T, log_p.exp()), dim=1, eps=self.shortest)
        nearest = channel_matmul(centres, target).argmax(dim=1, keepdim=True)
        return (predicted - target).abs().sum(dim=1, keepdim=True) - 0.1 * log_p.gather(1, nearest)

    def decode(self, logits_BKHW: Tensor) -> Tensor:
        """Normalised mean of the centres, (B, 3, H, W), of length 1."""
        return F.normalize(expectation(logits_BKHW, self.centres()), dim=1, eps=1e-6)

    def confidence(self, logits_BKHW: Tensor) -> Tensor:
        """The probability of being right (within 22.5 degrees) if directions are von Mises-Fisher distributed.

        The concentration is that of a mean vector as long as the prediction's, approximated as by Banerjee et al.
        (JMLR 2005): 1 where all the mass is on one centre, 0.04 where it is spread over the sphere.
        """
        mean = expectation(logits_BKHW, self.centres())
        squared = mean.square().sum(dim=1, keepdim=True).clamp(1e-6, 1 - 1e-6)
        concentration = squared.sqrt() * (3 - squared) / (1 - squared)
        probability: Tensor = torch.expm1(-concentration * (1 - _COS_RIGHT)) / torch.expm1(-2 * concentration)
        return probability

    def correct(self, prediction_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
        """Within 22.5 degrees."""
        return (prediction_BCHW * target_BCHW).sum(dim=1, keepdim=True) > _COS_RIGHT

    def paper_confidence(self, logits_BKHW: Tensor) -> Tensor:
        """Largest probability of the softmax of 5 x logits."""
        return largest_probability(logits_BKHW, sharpness=5)

    def metric(self) -> AngularErrors:
        """Angular errors in degrees."""
        return AngularErrors()


def _vectors(stored: StoredLabel) -> Array:
    """The stored array; of a palette its colours."""
    return stored.array if stored.palette is None else stored.palette[stored.array]


def parse_void_vectors(values: Any) -> tuple[Triple, ...]:
    """The setting ``void`` of unit vectors: numbers, or lists of three. Raises `ValueError` for anything else."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ValueError(f"void, which must be a list such as [0] or [[127, 127, 255]], found {values!r}")
    triples = []
    for value in values:
        triple = parse_void(value if isinstance(value, list | tuple) else [value] * 3)
        if len(triple) != 3:
            raise ValueError(f"void, whose vectors must have three components, found {value!r}")
        triples.append((triple[0], triple[1], triple[2]))
    return tuple(triples)


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

    def write(self, path: Path, value_CHW: Array, valid_HW: Array | None = None) -> None:
        """As `UnitVectors.write`, turned to the files' frame."""
        theirs = [(-1 if axis[0] == "-" else 1) * value_CHW["xyz".index(axis[-1])] for axis in self.frame]
        super().write(path, np.stack(theirs), valid_HW)

    def colourise(self, value_CHW: Array, valid_HW: Array | None = None) -> Array:
        """The usual colours of normals: a wall that faces the camera is light blue; void is black."""
        # The customary colours: a wall that faces the camera is light blue.
        display = np.moveaxis(value_CHW, 0, -1) * np.array([1, -1, -1], np.float32)
        colours = np.rint((display.clip(-1, 1) + 1) * 127.5).astype(np.uint8)
        return colours if valid_HW is None else np.where(valid_HW[..., None], colours, np.uint8(0))

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
