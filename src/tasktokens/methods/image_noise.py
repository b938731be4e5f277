"""Noise maps of a step, which belong to images: how a batch is shared out does not change them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tasktokens.data.sharding import BatchShard


@dataclass(frozen=True)
class ImageNoise:
    """A seed (B,) int64 for each image of a batch, drawn once in `Method.prepare`; maps are made of it where needed."""

    seeds: tuple[int, ...]
    """One per image of the batch."""

    @classmethod
    def draw(cls, generator: torch.Generator, shard: BatchShard, count: int) -> ImageNoise:
        """Seeds of the ``count`` images at hand; the generator goes on as it does for the undivided batch."""
        return cls(tuple((shard.rand(generator, count, 1).flatten().double() * 2**24).long().tolist()))

    def normal(self, kind: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Standard normal numbers (B, *shape); ``kind`` tells several maps of an image apart."""
        return torch.stack([torch.randn(shape, generator=g, device=device) for g in self._generators(kind, device)])

    def gumbel(self, kind: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Standard Gumbel numbers (B, *shape)."""
        uniform = torch.stack([torch.rand(shape, generator=g, device=device) for g in self._generators(kind, device)])
        return -(-uniform.clamp(1e-6, 1 - 1e-6).log()).log()

    def _generators(self, kind: int, device: torch.device) -> list[torch.Generator]:
        return [torch.Generator(device).manual_seed(seed + (kind << 24)) for seed in self.seeds]
