"""Which solid each ray meets first, and which rays are stopped on their way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tasktokens.datasets.rooms.shapes import Floats, Ints, Point, Shape, Triple

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class View:
    """A place to look from: a camera or a light. The three axes are world directions.

    Attributes:
        origin: in metres.
        right, down, forward: unit vectors, at right angles to each other.
    """

    origin: Point
    right: Point
    down: Point
    forward: Point


@dataclass(frozen=True)
class Rays:
    """P rays from one view. ``u``, ``v``: where they cross the plane at distance 1, in units of that distance.

    Attributes:
        view: where they start.
        u, v: coordinates (P,) in the plane at distance 1, to the right and down.
        direction: in world axes, three (P,), not normalised: 1 along ``view.forward``.
    """

    view: View
    u: Floats
    v: Floats
    direction: Triple

    @cached_property
    def order(self) -> Ints:
        """The rays from left to right, so that one solid's rays are found by bisection, (P,)."""
        return np.argsort(self.u, kind="stable")

    @cached_property
    def sorted_u(self) -> Floats:
        """``u`` from left to right, (P,)."""
        return self.u[self.order]

    @cached_property
    def sorted_v(self) -> Floats:
        """``v`` in the order of ``sorted_u``, (P,)."""
        return self.v[self.order]

    def toward(self, shapes: Sequence[Shape]) -> Iterator[tuple[int, Ints]]:
        """Yield each solid that may be met with the numbers of the rays inside its bounding rectangle."""
        if not shapes:
            return
        offset = np.stack([shape.bounds.corners for shape in shapes]) - np.array(self.view.origin)  # (N, 8, 3)
        right, down, ahead = (
            offset[..., 0] * axis[0] + offset[..., 1] * axis[1] + offset[..., 2] * axis[2]
            for axis in (self.view.right, self.view.down, self.view.forward)
        )
        across = ahead.min(1) <= 0.05  # reaches behind the view: no rectangle, all rays are tried
        ahead = np.maximum(ahead, 0.05)
        u, v = right / ahead, down / ahead
        slack = 1e-4  # only saves time: nothing that is cut off here could be met
        low_u = np.where(across, -np.inf, u.min(1) - slack)
        high_u = np.where(across, np.inf, u.max(1) + slack)
        low_v = np.where(across, -np.inf, v.min(1) - slack)
        high_v = np.where(across, np.inf, v.max(1) + slack)
        first = np.searchsorted(self.sorted_u, low_u)
        last = np.searchsorted(self.sorted_u, high_u)
        for number in range(len(shapes)):
            if ahead[number].max() <= 0.05 or first[number] >= last[number]:
                continue
            column = self.sorted_v[first[number] : last[number]]
            inside = np.flatnonzero((column >= low_v[number]) & (column <= high_v[number]))
            if inside.size:
                yield number, self.order[first[number] : last[number]][inside]


def nearest(rays: Rays, shapes: Sequence[Shape], t: Floats, which: Ints, face: Ints, near: float) -> None:
    """Put the first solid beyond ``near`` into ``t``, ``which``, ``face`` (all (P,)) where it is nearer."""
    dx, dy, dz = rays.direction
    for number, chosen in rays.toward(shapes):
        reached, side = shapes[number].enter(rays.view.origin, (dx[chosen], dy[chosen], dz[chosen]))
        wins = (reached < t[chosen]) & (reached >= near)
        winners = chosen[wins]
        t[winners] = reached[wins]
        which[winners] = number
        face[winners] = side[wins]


def stopped(rays: Rays, shapes: Sequence[Shape], limit: float) -> Bools:
    """Return which rays meet any solid before ``t = limit``, (P,)."""
    dx, dy, dz = rays.direction
    result = np.zeros(dx.shape, np.bool_)
    for number, chosen in rays.toward(shapes):
        chosen = chosen[~result[chosen]]
        reached, _ = shapes[number].enter(rays.view.origin, (dx[chosen], dy[chosen], dz[chosen]))
        result[chosen[reached < limit]] = True
    return result
