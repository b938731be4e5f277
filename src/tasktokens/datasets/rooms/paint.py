"""Patterns of surfaces, from integer hashes: the same everywhere but for the last bit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tasktokens.datasets.rooms.kit import PATTERNS, Piece
from tasktokens.datasets.rooms.shapes import Floats, Ints, Triple

Words = npt.NDArray[np.uint32]


class Palette:
    """The materials of all pieces of a scene as tables, ready to be looked up by piece number."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        """Take the tables from a scene's pieces."""
        boxes, materials = [piece.shape.bounds for piece in pieces], [piece.material for piece in pieces]
        self.centre = np.array([box.centre for box in boxes])
        self.half = np.array([box.half for box in boxes])
        self.turn = np.array([(box.cos, box.sin) for box in boxes])
        self.pattern = np.array([PATTERNS.index(material.pattern) for material in materials])
        self.first = np.array([material.first for material in materials])
        self.second = np.array([material.second for material in materials])
        self.scale = np.array([material.scale for material in materials])
        self.seed = np.array([material.seed for material in materials], np.uint32)
        self.gloss = np.array([material.gloss for material in materials])
        self.glow = np.array([material.glow for material in materials])

    def colours(self, which: Ints, point: Triple, normal: Triple, footprint: Floats) -> Floats:
        """Return linear reflectances (P, 3) in 0..1; ``footprint``: metres of surface under a pixel, (P,)."""
        cos, sin = self.turn[which, 0], self.turn[which, 1]
        x, y = point[0] - self.centre[which, 0], point[1] - self.centre[which, 1]
        local = (x * cos + y * sin, y * cos - x * sin, point[2] - self.centre[which, 2])
        nx, ny, nz = (
            np.abs(normal[0] * cos + normal[1] * sin),
            np.abs(normal[1] * cos - normal[0] * sin),
            np.abs(normal[2]),
        )
        sideways, flat = (nx > ny) & (nx > nz), (nz >= nx) & (nz >= ny)
        half = self.half[which]
        u, across = np.where(sideways, local[1], local[0]), np.where(sideways, half[:, 1], half[:, 0])
        v, along = np.where(flat, local[1], local[2]), np.where(flat, half[:, 1], half[:, 2])
        result = self.first[which].copy()
        pattern = self.pattern[which]
        for number, name in enumerate(PATTERNS):
            chosen = np.flatnonzero(pattern == number)
            if name == "plain" or not chosen.size:
                continue
            here = which[chosen]
            first, second, seed, scale = self.first[here], self.second[here], self.seed[here], self.scale[here]
            blur = np.clip(footprint[chosen] / scale * 1.5 - 0.4, 0.0, 1.0)
            if name in ("spines", "image", "screen", "outdoors"):
                place = (u[chosen] / across[chosen], v[chosen] / along[chosen])
                result[chosen] = _pictured(name, u[chosen], place, scale, seed, first, second)
                continue
            share = _share(name, u[chosen] / scale, v[chosen] / scale, seed)
            share = (share + (0.5 - share) * blur)[:, None]
            result[chosen] = first + (second - first) * share
        return result


def _share(name: str, u: Floats, v: Floats, seed: Words) -> Floats:
    """Return how much of the second colour shows, 0..1, at (u, v) in units of the pattern's size."""
    if name == "stripes":
        return (np.floor(u) % 2).astype(np.float64)
    if name == "checks":
        return ((np.floor(u) + np.floor(v)) % 2).astype(np.float64)
    if name == "blinds":
        return np.clip((v - np.floor(v)) * 1.2, 0.0, 1.0)
    if name == "tiles":
        grout = np.minimum(np.abs(u - np.round(u)), np.abs(v - np.round(v))) < 0.03
        return np.where(grout, 1.0, 0.35 * chance(np.floor(u + 0.5), np.floor(v + 0.5), seed))
    if name == "wood":  # planks along v, each with its own grain
        plank = np.floor(u)
        grain = noise(u * 6.0, v * 0.35 + 17.0 * chance(plank, plank, seed), seed)
        seam = (u - plank < 0.05).astype(np.float64)
        return np.clip(0.55 * grain + 0.45 * chance(plank, plank + 3, seed) + 0.5 * seam, 0.0, 1.0)
    return 0.6 * noise(u, v, seed) + 0.4 * noise(u * 3.1, v * 3.1, seed + np.uint32(7))


def _pictured(
    name: str, u: Floats, place: tuple[Floats, Floats], scale: Floats, seed: Words, first: Floats, second: Floats
) -> Floats:
    """Return colours (P, 3) of spines, images, screens and the world outside; ``place`` is in -1..1 over the face."""
    x, y = place
    if name == "spines":
        book = np.floor(u / scale + 0.8 * noise(u / scale * 0.5, u * 0.0, seed))
        zero = np.zeros_like(book)
        hues = np.stack([chance(book, zero + k, seed) for k in range(3)], -1)
        tone = chance(book, zero + 9, seed)[:, None]
        label = (np.abs(y - 0.4) < 0.12) & (tone[:, 0] > 0.5)
        gap = (y > 0.7 + 0.3 * chance(book, zero + 5, seed)) | (np.abs(x) > 0.995)
        colour = (0.15 + 0.85 * hues) * (0.15 + 0.5 * tone) * 0.7 + 0.3 * first * tone
        return np.where(gap[:, None], 0.02, np.where(label[:, None], 0.7, colour))
    sky = np.clip(0.5 + 0.5 * y, 0.0, 1.0)[:, None]
    hill = 0.9 * noise(x * 1.5, x * 0.0, seed) - 0.7
    ground = (y < hill)[:, None]
    tree = (noise(x * 5.0, y * 5.0, seed + np.uint32(3)) + 0.35 * (hill + 0.3 - y) > 0.62)[:, None]
    if name == "outdoors":
        view = np.where(ground, np.array([0.2, 0.26, 0.1]), np.array([0.75, 0.85, 1.0]) * (0.6 + 0.4 * sky))
        return np.where(tree, np.array([0.12, 0.2, 0.07]), view)
    if name == "screen":
        block = chance(np.floor(x * 2.5), np.floor(y * 3.0), seed)[:, None]
        return 0.02 + 0.5 * np.where(block > 0.55, first, np.where(ground, second * 0.5, second * sky + 0.1))
    zero = np.zeros_like(x)
    mount = (np.maximum(np.abs(x), np.abs(y)) > 0.8)[:, None] & (chance(zero, zero, seed) > 0.4)[:, None]
    abstract = (chance(zero, zero + 1, seed) > 0.65)[:, None]
    blocks = np.stack([chance(np.floor(x * 1.6 + 0.4), np.floor(y * 1.6), seed + np.uint32(k)) for k in range(3)], -1)
    scenery = np.where(tree, second * 0.3, np.where(ground, second, first * sky + 0.2))
    return np.where(mount, 0.8, np.where(abstract, 0.5 * blocks * blocks + 0.5 * first, scenery))


def chance(x: Floats, y: Floats, seed: Words) -> Floats:
    """Return a hash of whole-numbered floats and a seed as numbers 0..1."""
    word = x.astype(np.int64).astype(np.uint32) * np.uint32(0x9E3779B1)  # whole numbers wrap around at 2**32
    word = word + y.astype(np.int64).astype(np.uint32) * np.uint32(0x85EBCA77) + seed * np.uint32(0xC2B2AE3D)
    for shift, factor in ((15, 0x2C1B3C6D), (12, 0x297A2D39)):
        word = (word ^ (word >> np.uint32(shift))) * np.uint32(factor)
    result: Floats = (word ^ (word >> np.uint32(15))).astype(np.float64) / 4294967296.0
    return result


def noise(x: Floats, y: Floats, seed: Words) -> Floats:
    """Return smooth value noise with cells of size 1, numbers 0..1."""
    left: Floats = np.floor(x)
    low: Floats = np.floor(y)
    a, b = x - left, y - low
    a, b = a * a * (3.0 - 2.0 * a), b * b * (3.0 - 2.0 * b)
    bottom = chance(left, low, seed) * (1 - a) + chance(left + 1, low, seed) * a
    top = chance(left, low + 1, seed) * (1 - a) + chance(left + 1, low + 1, seed) * a
    result: Floats = bottom * (1 - b) + top * b
    return result
