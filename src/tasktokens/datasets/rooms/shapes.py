"""The four solids that rooms are made of, and where a ray enters each of them.

Everything here decides labels, so it is float64 arithmetic with + - * / sqrt and comparisons only, element by element:
these are exact operations of IEEE 754 and give the same bits on every machine. World axes: x and y along the floor,
z up, metres. A ray is ``origin + t * direction``; directions need not be unit vectors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Point = tuple[float, float, float]
Triple = tuple[Floats, Floats, Floats]


class Shape(Protocol):
    """A solid that rays can enter."""

    @property
    def bounds(self) -> Box:
        """The oriented box around the solid; textures use its axes too."""

    def enter(self, origin: Point, direction: Triple) -> tuple[Floats, Ints]:
        """Return t (inf: missed) and the number of the face where each of P rays enters; both (P,)."""

    def normal(self, point: Triple, face: Ints) -> Triple:
        """Return the outward normals, three times (P,), at entry points; not of unit length."""


@dataclass(frozen=True)
class Box:
    """A box turned about the vertical by the angle with this cosine and sine; ``half`` is half its size in metres.

    Attributes:
        centre: in metres.
        half: half the size along each of its axes, in metres.
        cos, sin: of the turn.
    """

    centre: Point
    half: Point
    cos: float = 1.0
    sin: float = 0.0

    @property
    def bounds(self) -> Box:
        """The box itself."""
        return self

    @cached_property
    def corners(self) -> Floats:
        """The eight corners, (8, 3)."""
        (cx, cy, cz), (hx, hy, hz) = self.centre, self.half
        signs = [(i, j, k) for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)]
        c, s = self.cos, self.sin
        return np.array(
            [(cx + i * hx * c - j * hy * s, cy + i * hx * s + j * hy * c, cz + k * hz) for i, j, k in signs]
        )

    def inside(self, origin: Point, direction: Triple) -> tuple[Point, Triple]:
        """Return a ray's origin and direction in the axes of the box."""
        x, y, z = (o - c for o, c in zip(origin, self.centre, strict=True))
        c, s = self.cos, self.sin
        dx, dy, dz = direction
        return (x * c + y * s, y * c - x * s, z), (dx * c + dy * s, dy * c - dx * s, dz)

    def outside(self, x: Floats, y: Floats, z: Floats) -> Triple:
        """Return a direction given in the axes of the box in world axes."""
        return x * self.cos - y * self.sin, x * self.sin + y * self.cos, z

    def enter(self, origin: Point, direction: Triple) -> tuple[Floats, Ints]:
        """Slab test. Face 2k + 0 is the low side of axis k, 2k + 1 the high side."""
        local, heading = self.inside(origin, direction)
        near = np.full(heading[0].shape, -np.inf)
        far = np.full(heading[0].shape, np.inf)
        face = np.zeros(heading[0].shape, np.int64)
        for axis in range(3):
            along = np.where(heading[axis] == 0.0, 1e-12, heading[axis])
            one = (-self.half[axis] - local[axis]) / along
            two = (self.half[axis] - local[axis]) / along
            low = np.minimum(one, two)
            later = low > near
            near = np.where(later, low, near)
            face = np.where(later, 2 * axis + (along < 0.0), face)
            far = np.minimum(far, np.maximum(one, two))
        return np.where((near <= far) & (near > 0.0), near, np.inf), face

    def normal(self, point: Triple, face: Ints) -> Triple:
        """The axis of the face that was entered."""
        side = np.where(face % 2 == 1, 1.0, -1.0)
        axis = face // 2
        zero = np.zeros_like(side)
        return self.outside(
            np.where(axis == 0, side, zero), np.where(axis == 1, side, zero), np.where(axis == 2, side, zero)
        )


@dataclass(frozen=True)
class Ball:
    """An ellipsoid; ``bounds`` holds its centre, radii and turn."""

    bounds: Box

    def enter(self, origin: Point, direction: Triple) -> tuple[Floats, Ints]:
        """Nearer root of the quadratic in the space where the ellipsoid is a unit ball."""
        (ox, oy, oz), (dx, dy, dz) = self.bounds.inside(origin, direction)
        rx, ry, rz = self.bounds.half
        t = _sphere((ox / rx, oy / ry, oz / rz), (dx / rx, dy / ry, dz / rz), 1.0)
        return t, np.zeros(t.shape, np.int64)

    def normal(self, point: Triple, face: Ints) -> Triple:
        """Gradient of the quadric."""
        cx, cy, cz = self.bounds.centre
        rx, ry, rz = self.bounds.half
        c, s = self.bounds.cos, self.bounds.sin
        x, y = point[0] - cx, point[1] - cy
        return self.bounds.outside(
            (x * c + y * s) / (rx * rx), (y * c - x * s) / (ry * ry), (point[2] - cz) / (rz * rz)
        )


@dataclass(frozen=True)
class Limb:
    """A cone with round ends: spheres of two radii and what a string pulled tight around them holds.

    Attributes:
        start, end: centres of the spheres in metres.
        start_radius, end_radius: in metres.
    """

    start: Point
    end: Point
    start_radius: float
    end_radius: float

    @cached_property
    def bounds(self) -> Box:
        """The upright box around both spheres."""
        low = [min(a - self.start_radius, b - self.end_radius) for a, b in zip(self.start, self.end, strict=True)]
        high = [max(a + self.start_radius, b + self.end_radius) for a, b in zip(self.start, self.end, strict=True)]
        middle, half = (
            [(a + b) / 2 for a, b in zip(low, high, strict=True)],
            [(b - a) / 2 for a, b in zip(low, high, strict=True)],
        )
        return Box((middle[0], middle[1], middle[2]), (half[0], half[1], half[2]))

    def enter(self, origin: Point, direction: Triple) -> tuple[Floats, Ints]:
        """Nearest of the two end spheres and the cone between them (i. quilez, rounded cone)."""
        dx, dy, dz = direction
        bx, by, bz = (b - a for a, b in zip(self.start, self.end, strict=True))
        ox, oy, oz = (o - a for o, a in zip(origin, self.start, strict=True))
        radius, taper = self.start_radius, self.start_radius - self.end_radius
        t = np.minimum(
            _sphere((ox, oy, oz), direction, radius), _sphere((ox - bx, oy - by, oz - bz), direction, self.end_radius)
        )
        base = bx * bx + by * by + bz * bz
        slope = base - taper * taper
        lift = bx * ox + by * oy + bz * oz
        climb = bx * dx + by * dy + bz * dz
        k2 = slope * (dx * dx + dy * dy + dz * dz) - climb * climb
        k1 = slope * (dx * ox + dy * oy + dz * oz) - lift * climb + climb * (taper * radius)
        k0 = (
            slope * (ox * ox + oy * oy + oz * oz) - lift * lift + lift * (taper * radius * 2.0) - base * radius * radius
        )
        root = k1 * k1 - k0 * k2
        side = (-k1 - np.sqrt(np.maximum(root, 0.0))) / np.where(k2 > 1e-9, k2, 1.0)
        along = lift - radius * taper + side * climb
        good = (root > 0.0) & (k2 > 1e-9) & (along > 0.0) & (along < slope) & (side > 0.0)
        t = np.where(good & (side < t), side, t)
        return t, np.zeros(t.shape, np.int64)

    def normal(self, point: Triple, face: Ints) -> Triple:
        """Away from the nearest point of the axis, tilted by the taper."""
        bx, by, bz = (b - a for a, b in zip(self.start, self.end, strict=True))
        px, py, pz = (p - a for p, a in zip(point, self.start, strict=True))
        taper = self.start_radius - self.end_radius
        slope = bx * bx + by * by + bz * bz - taper * taper
        along = (bx * px + by * py + bz * pz - self.start_radius * taper) / slope
        along = np.minimum(np.maximum(along, 0.0), 1.0)
        return px - along * bx, py - along * by, pz - along * bz


@dataclass(frozen=True)
class Cone:
    """An upright cylinder or cut cone with flat ends; ``foot`` is the centre of its lower end.

    Attributes:
        foot: centre of the lower end.
        height: in metres.
        low_radius, high_radius: of the two ends, in metres.
    """

    foot: Point
    height: float
    low_radius: float
    high_radius: float

    @cached_property
    def bounds(self) -> Box:
        """The upright box around it."""
        widest = max(self.low_radius, self.high_radius)
        return Box((self.foot[0], self.foot[1], self.foot[2] + self.height / 2), (widest, widest, self.height / 2))

    def enter(self, origin: Point, direction: Triple) -> tuple[Floats, Ints]:
        """Nearest of both ends and the side. Face 0 is the side, 1 the lower end, 2 the upper end."""
        dx, dy, dz = direction
        ox, oy, oz = (o - f for o, f in zip(origin, self.foot, strict=True))
        flare = (self.high_radius - self.low_radius) / self.height
        wide = self.low_radius + flare * oz
        k2 = dx * dx + dy * dy - flare * flare * dz * dz
        k2 = np.where(k2 == 0.0, 1e-12, k2)
        k1 = ox * dx + oy * dy - flare * wide * dz
        k0 = ox * ox + oy * oy - wide * wide
        root = k1 * k1 - k0 * k2
        stem = np.sqrt(np.maximum(root, 0.0))
        best = np.full(dx.shape, np.inf)
        face = np.zeros(dx.shape, np.int64)
        for t in ((-k1 - stem) / k2, (-k1 + stem) / k2):  # a flared side may be entered at either root
            z = oz + t * dz
            inward = (ox + t * dx) * dx + (oy + t * dy) * dy - flare * (wide + t * flare * dz) * dz < 0.0
            good = (root > 0.0) & (z >= 0.0) & (z <= self.height) & inward & (t > 0.0) & (t < best)
            best = np.where(good, t, best)
        steep = np.where(dz == 0.0, 1e-12, dz)
        for number, level, radius, into in (
            (1, 0.0, self.low_radius, dz > 0.0),
            (2, self.height, self.high_radius, dz < 0.0),
        ):
            t = (level - oz) / steep
            x, y = ox + t * dx, oy + t * dy
            good = into & (x * x + y * y <= radius * radius) & (t > 0.0) & (t < best)
            best = np.where(good, t, best)
            face = np.where(good, number, face)
        return best, face

    def normal(self, point: Triple, face: Ints) -> Triple:
        """Radial on the side (tilted by the flare), vertical on the ends."""
        x, y = point[0] - self.foot[0], point[1] - self.foot[1]
        flare = (self.high_radius - self.low_radius) / self.height
        side = face == 0
        tilt = -flare * np.sqrt(x * x + y * y)
        return np.where(side, x, 0.0), np.where(side, y, 0.0), np.where(side, tilt, np.where(face == 1, -1.0, 1.0))


def turn(angle: float) -> tuple[float, float]:
    """Return the cosine and sine of an angle in radians, rounded to 1e-6 so that they are the same everywhere."""
    return round(math.cos(angle), 6), round(math.sin(angle), 6)


def _sphere(origin: Point, direction: Triple, radius: float) -> Floats:
    ox, oy, oz = origin
    dx, dy, dz = direction
    k2 = dx * dx + dy * dy + dz * dz
    k1 = ox * dx + oy * dy + oz * dz
    k0 = ox * ox + oy * oy + oz * oz - radius * radius
    root = k1 * k1 - k0 * k2
    t = (-k1 - np.sqrt(np.maximum(root, 0.0))) / k2
    return np.where((root > 0.0) & (t > 0.0), t, np.inf)
