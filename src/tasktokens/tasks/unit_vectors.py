"""Unit vectors per pixel as an expectation over fixed directions (HTT, section 3.2)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tasktokens.errors import ConfigError, LabelError
from tasktokens.metrics.normals import AngularErrors
from tasktokens.tasks.base import Array, Task, channel_matmul, distribution, expectation, largest_probability, moments
from tasktokens.tasks.directions import direction_sums, length_sums, summarise_directions
from tasktokens.tasks.examine import Summary, Sums
from tasktokens.tasks.stored import StoredLabel, describe_shape
from tasktokens.tasks.void import is_void, parse_void
from tasktokens.utils.label_maps import VectorMaps

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
    continuous: ClassVar[bool] = True
    unit_length: ClassVar[bool] = True
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

    def maps(self) -> VectorMaps:
        """Three bytes in the files' frame."""
        return VectorMaps(directions=self.directions)

    def encode(self, value_CHW: Array, valid_HW: Array | None = None) -> Array:
        """8-bit RGB, v = (n + 1) x 127.5, in the files' frame; void is (128, 128, 128)."""
        return self.maps().encode(value_CHW, valid_HW)

    def colourise(self, value_CHW: Array, valid_HW: Array | None = None) -> Array:
        """RGB = (v + 1) x 127.5, of normals in the customary colours; void is black."""
        return self.maps().colourise(value_CHW, valid_HW)

    directions: ClassVar[tuple[str, ...]] = ("+x", "-x", "+y", "-y", "+z", "-z")
    """What vectors along and against each axis are called in a legend; without a name, they are left out."""

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

    def label_map(self, value_BCHW: Tensor) -> Tensor:
        """(n + 1) / 2 for each component, (B, 3, H, W)."""
        return (value_BCHW.float() + 1) / 2

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
        return F.normalize(self._mean(logits_BKHW), dim=1, eps=1e-6)

    def confidence(self, logits_BKHW: Tensor) -> Tensor:
        """The probability of being right (within 22.5 degrees) if directions are von Mises-Fisher distributed.

        The concentration is that of a mean vector as long as the prediction's, approximated as by Banerjee et al.
        (JMLR 2005): 1 where all the mass is on one centre, 0.04 where it is spread over the sphere.
        """
        return _certainty(self._mean(logits_BKHW).square().sum(dim=1, keepdim=True))

    def decode_with_confidence(self, logits_BKHW: Tensor) -> tuple[Tensor, Tensor]:
        """Both from one mean vector; its direction up to rounding."""
        mean = moments(logits_BKHW, self.centres())
        squared = mean.square().sum(dim=1, keepdim=True)
        return mean.mul_(squared.clamp(min=1e-12).rsqrt_()), _certainty(squared)

    def _mean(self, logits_BKHW: Tensor) -> Tensor:
        """Mean of the centres (B, 3, H, W); the shorter, the less certain its direction."""
        return expectation(distribution(logits_BKHW), self.centres())

    def enlarge(self, prediction_CHW: Tensor, size: tuple[int, int]) -> Tensor:
        """Bilinear, then of length 1 again."""
        vectors = super().enlarge(prediction_CHW, size)
        squared = vectors[0].square()
        for component in vectors[1:]:  # plane by plane, in place: a photograph's vectors are hundreds of MB
            squared.addcmul_(component, component)
        return vectors.mul_(squared.clamp_(min=1e-12).rsqrt_())

    def correct(self, prediction_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
        """Within 22.5 degrees."""
        return (prediction_BCHW * target_BCHW).sum(dim=1, keepdim=True) > _COS_RIGHT

    def difference(self, first_BCHW: Tensor, second_BCHW: Tensor) -> Tensor:
        """The angle between them in degrees, exact for small angles too, (B, 1, H, W)."""
        apart = torch.linalg.vector_norm(first_BCHW - second_BCHW, dim=1, keepdim=True)
        whole = torch.linalg.vector_norm(first_BCHW + second_BCHW, dim=1, keepdim=True)
        return 2 * torch.atan2(apart, whole).rad2deg()

    @property
    def difference_unit(self) -> str:
        """Degrees."""
        return "°"

    def paper_confidence(self, logits_BKHW: Tensor) -> Tensor:
        """Largest probability of the softmax of 5 x logits."""
        return largest_probability(logits_BKHW, sharpness=5)

    def metric(self) -> AngularErrors:
        """Angular errors in degrees."""
        return AngularErrors()


def _certainty(squared_B1HW: Tensor) -> Tensor:
    """`UnitVectors.confidence` from the squared length of the mean vector."""
    squared = squared_B1HW.clamp(1e-6, 1 - 1e-6)
    concentration = squared.sqrt() * (3 - squared) / (1 - squared)
    probability: Tensor = torch.expm1(-concentration * (1 - _COS_RIGHT)) / torch.expm1(-2 * concentration)
    return probability


def _vectors(stored: StoredLabel) -> Array:
    """The stored array; of a palette its colours."""
    return stored.array if stored.palette is None else stored.palette[stored.array]


def parse_void_vectors(values: Any) -> tuple[Triple, ...]:
    """The setting ``void`` of unit vectors: numbers, or lists of three. Raises `ConfigError` for anything else."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ConfigError(f"void must be a list such as [0] or [[127, 127, 255]], found {values!r}")
    triples = []
    for value in values:
        triple = parse_void(value if isinstance(value, list | tuple) else [value] * 3)
        if len(triple) != 3:
            raise ConfigError(f"void must be a list of numbers, or of vectors of three components, found {value!r}")
        triples.append((triple[0], triple[1], triple[2]))
    return tuple(triples)
