"""Where the camera stands: near an object that was chosen first, at eye height, looking roughly at it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tasktokens.datasets.rooms.cast import Rays, View
from tasktokens.datasets.rooms.kit import Piece
from tasktokens.datasets.rooms.names import ROOMS_CLASSES, ROOMS_FOCAL
from tasktokens.datasets.rooms.room import Room
from tasktokens.datasets.rooms.shapes import Floats, Point, turn


@dataclass(frozen=True)
class Camera:
    """A pinhole; ``target`` is the instance that the picture is about.

    Attributes:
        view: position and axes.
        target: number of the instance.
    """

    view: View
    target: int

    def rays(self, u: Floats, v: Floats) -> Rays:
        """Return the rays through (u, v, 1) in camera coordinates (x right, y down, z forward); t is z-depth."""
        right, down, ahead = self.view.right, self.view.down, self.view.forward
        x, y, z = (r * u + d * v + a for r, d, a in zip(right, down, ahead, strict=True))
        return Rays(self.view, u, v, (x, y, z))

    def grid(self, height: int, width: int) -> tuple[Floats, Floats]:
        """Return (u, v) of all pixel centres, row by row, each (H*W,)."""
        pixels = ROOMS_FOCAL * width
        u = (np.arange(width, dtype=np.float64) + 0.5 - width / 2) / pixels
        v = (np.arange(height, dtype=np.float64) + 0.5 - height / 2) / pixels
        return np.tile(u, height), np.repeat(v, width)


def aim(room: Room) -> Camera | None:
    """Draw a camera, or None where the draw falls into furniture or too near to its target."""
    dice = room.kit.dice
    groups: dict[int, list[Piece]] = {number: [] for number in room.groups}
    for piece in room.kit.pieces:
        if piece.group in groups:
            groups[piece.group].append(piece)
    labels: dict[str, list[int]] = {}
    for number, pieces in groups.items():
        name = ROOMS_CLASSES[pieces[0].label]
        if name not in ("window", "wall"):
            labels.setdefault(name, []).append(number)
    if not labels:
        return None
    kinds = sorted(labels) + [name for name in ("person", "bed", "sofa", "tv") if name in labels]
    target = dice.pick(labels[dice.pick(kinds)])
    goal = _middle(groups[target])
    x, y = dice.between(0.4, room.size[0] - 0.4), dice.between(0.4, room.size[1] - 0.4)
    z = min(dice.between(1.2, 1.75), room.size[2] - 0.6)
    away = math.sqrt((goal[0] - x) * (goal[0] - x) + (goal[1] - y) * (goal[1] - y))
    if not 1.3 <= away <= 5.0 or not room.free((x - 0.2, y - 0.2, x + 0.2, y + 0.2)):
        return None
    yaw = math.atan2(goal[1] - y, goal[0] - x) + dice.between(-0.25, 0.25)
    pitch = math.atan2(goal[2] - z, away) * dice.between(0.35, 1.0) + dice.between(-0.08, 0.08)
    view = look((x, y, z), yaw, min(max(pitch, -0.6), 0.15), dice.between(-0.04, 0.04))
    return Camera(view, target)


def look(origin: Point, yaw: float, pitch: float, roll: float) -> View:
    """Return the view from a point; angles in radians, rounded to 1e-6 like all that comes of them."""
    (cy, sy), (cp, sp), (cr, sr) = turn(round(yaw, 6)), turn(round(pitch, 6)), turn(round(roll, 6))
    right, down = (sy, -cy, 0.0), (sp * cy, sp * sy, -cp)
    return View(
        origin,
        _point(*(r * cr + d * sr for r, d in zip(right, down, strict=True))),
        _point(*(d * cr - r * sr for r, d in zip(right, down, strict=True))),
        _point(cp * cy, cp * sy, sp),
    )


def _point(x: float, y: float, z: float) -> Point:
    return round(x, 6), round(y, 6), round(z, 6)


def _middle(pieces: list[Piece]) -> Point:
    corners = np.concatenate([piece.shape.bounds.corners for piece in pieces])
    low, high = corners.min(0), corners.max(0)
    return _point(*(float(a + b) / 2 for a, b in zip(low, high, strict=True)))
