"""What each ray of the camera sees, and the labels that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tasktokens.datasets.rooms.camera import Camera
from tasktokens.datasets.rooms.cast import Rays, nearest
from tasktokens.datasets.rooms.kit import Piece
from tasktokens.datasets.rooms.names import NEAR
from tasktokens.datasets.rooms.room import Room
from tasktokens.datasets.rooms.shapes import Floats, Ints, Triple
from tasktokens.datasets.rooms.shell import PLANES

CREASE = 0.8
"""Cosine of the angle between neighbouring faces beyond which their border is an edge."""

STEP = 0.06
"""Metres between the planes of neighbouring faces beyond which their border is an edge."""


@dataclass(frozen=True)
class Seen:
    """What P rays see: z-depth ``t`` in metres, piece ``which``, its ``face``, point and unit normal in world axes.

    Attributes:
        rays: of the pixels.
        t: z-depth (P,) in metres.
        which: number of the piece (P,).
        face: of the piece (P,).
        point: three (P,), in metres.
        normal: three (P,), unit length.
    """

    rays: Rays
    t: Floats
    which: Ints
    face: Ints
    point: Triple
    normal: Triple


def trace(room: Room, camera: Camera, u: Floats, v: Floats) -> Seen:
    """Follow the rays through (u, v, 1), both (P,), to the first surface."""
    rays = camera.rays(u, v)
    origin, pieces = rays.view.origin, room.kit.pieces
    t = np.full(u.shape, np.inf)
    which, face = np.zeros(u.shape, np.int64), np.zeros(u.shape, np.int64)
    for axis in range(3):
        heading = np.where(rays.direction[axis] == 0.0, 1e-12, rays.direction[axis])
        high = heading > 0.0
        reached = (np.where(high, room.size[axis], 0.0) - origin[axis]) / heading
        wins = reached < t
        t = np.where(wins, reached, t)
        which = np.where(wins, 2 * axis + high, which)
    solids = np.full(u.shape, -1, np.int64)
    nearest(rays, [piece.shape for piece in pieces[PLANES:]], t, solids, face, NEAR)
    which = np.where(solids >= 0, solids + PLANES, which)
    dx, dy, dz = rays.direction
    point = (origin[0] + t * dx, origin[1] + t * dy, origin[2] + t * dz)
    return Seen(rays, t, which, face, point, _normals(pieces, which, face, point))


def _normals(pieces: list[Piece], which: Ints, face: Ints, point: Triple) -> Triple:
    inward = np.where(which % 2 == 0, 1.0, -1.0)  # of the six planes
    result = tuple(np.where(which // 2 == axis, inward, 0.0) for axis in range(3))
    order = np.argsort(which, kind="stable")
    numbers, first = np.unique(which[order], return_index=True)
    for number, chosen in zip(numbers, np.split(order, first[1:]), strict=True):
        if number < PLANES:
            continue
        x, y, z = pieces[number].shape.normal((point[0][chosen], point[1][chosen], point[2][chosen]), face[chosen])
        length = np.sqrt(x * x + y * y + z * z)
        for axis, value in enumerate((x, y, z)):
            result[axis][chosen] = value / length
    return result[0], result[1], result[2]


def labels(room: Room, camera: Camera, seen: Seen, height: int, width: int) -> dict[str, npt.NDArray[Any]]:
    """Return all label maps of a traced pixel grid; see ``render_room`` for their ranges."""
    pieces, size = room.kit.pieces, (height, width)
    group = np.array([piece.group for piece in pieces])[seen.which]
    semseg = np.array([piece.label for piece in pieces], np.uint8)[seen.which]
    parts = np.array([piece.part for piece in pieces], np.uint8)[seen.which]
    view, (x, y, z) = camera.view, seen.normal
    axes = [axis[0] * x + axis[1] * y + axis[2] * z for axis in (view.right, view.down, view.forward)]
    length = np.sqrt(axes[0] * axes[0] + axes[1] * axes[1] + axes[2] * axes[2])  # the rounded axes are not quite unit
    result: dict[str, npt.NDArray[Any]] = {
        "semseg": semseg.reshape(size),
        "depth": seen.t.reshape(size).astype(np.float32),
        "normals": np.stack([axis / length for axis in axes], -1).reshape(height, width, 3).astype(np.float32),
        "edge": borders(room, seen, height, width),
        "saliency": (group == camera.target).astype(np.uint8).reshape(size),
    }
    if np.count_nonzero(parts) * 96 * 128 >= 30 * height * width:
        result["human_parts"] = parts.reshape(size)
    return result


def borders(room: Room, seen: Seen, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return 1 where a pixel and its right or lower neighbour show two instances, or two faces with a crease or a step.

    Marking only the left (upper) of the two makes straight borders one pixel wide; (H, W).
    """
    thing = np.array([piece.thing for piece in room.kit.pieces])[seen.which].reshape(height, width)
    face = (seen.which * 8 + seen.face).reshape(height, width)
    point = [axis.reshape(height, width) for axis in seen.point]
    normal = [axis.reshape(height, width) for axis in seen.normal]
    edge = np.zeros((height, width), np.uint8)
    whole = slice(None)
    for here, there in (
        ((whole, slice(0, -1)), (whole, slice(1, None))),
        ((slice(0, -1), whole), (slice(1, None), whole)),
    ):
        nx, ny, nz = (axis[here] for axis in normal)
        mx, my, mz = (axis[there] for axis in normal)
        x, y, z = (axis[there] - axis[here] for axis in point)
        one, two = nx * x + ny * y + nz * z, mx * x + my * y + mz * z  # heights of each over the other's plane
        apart = (np.abs(one) > STEP) & (np.abs(two) > STEP)
        bent = nx * mx + ny * my + nz * mz < CREASE
        edge[here] |= (thing[here] != thing[there]) | ((face[here] != face[there]) & (bent | apart))
    return edge
