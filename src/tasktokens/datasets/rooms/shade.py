"""From what is seen to a photograph: lamps, shadows, exposure, sensor noise. Decides colours only, never a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasktokens.datasets.rooms.cast import Rays, View, stopped
from tasktokens.datasets.rooms.dice import Dice
from tasktokens.datasets.rooms.kit import Colour
from tasktokens.datasets.rooms.names import ROOMS_CLASSES
from tasktokens.datasets.rooms.paint import Palette, chance
from tasktokens.datasets.rooms.room import Room
from tasktokens.datasets.rooms.shapes import Floats, Point, Shape, Triple
from tasktokens.datasets.rooms.shell import PLANES
from tasktokens.datasets.rooms.trace import Seen


@dataclass(frozen=True)
class Light:
    """A lamp: where it is and which half of the room it looks into, its colour times its strength.

    Attributes:
        view: position and direction.
        colour: times strength.
    """

    view: View
    colour: Colour


def lights(room: Room, dice: Dice) -> list[Light]:
    """Draw a lamp under the ceiling and one at a window (or another lamp)."""
    width, depth, height = room.size
    spread = dice.between(0.06, 0.2)
    warm = dice.between(0.7, 1.0)
    strength = dice.between(2.0, 4.5)
    above = (width * dice.between(0.3, 0.7), depth * dice.between(0.3, 0.7), height - 0.1)
    half = strength / 2  # two points, so that its shadows have a half-lit rim
    result = [
        Light(
            _downward((above[0] + side * spread, above[1] + side * spread * 0.6, above[2])),
            (half, half * (0.3 + 0.7 * warm), half * warm * warm),
        )
        for side in (-1, 1)
    ]
    windows = [
        piece.shape.bounds
        for piece in room.kit.pieces
        if ROOMS_CLASSES[piece.label] == "window" and piece.shape.bounds.half[1] > 0.01
    ]
    power = dice.between(0.8, 3.5)
    if windows and dice.chance(0.75):
        box = windows[0]
        ahead: Point = (-box.sin, box.cos, 0.0)
        place = (box.centre[0] + 0.3 * ahead[0], box.centre[1] + 0.3 * ahead[1], box.centre[2] + 0.3)
        result.append(
            Light(
                View(place, (box.cos, box.sin, 0.0), (0.0, 0.0, -1.0), ahead), (power * 0.85, power * 0.95, power * 1.1)
            )
        )
    else:
        other = (width * dice.between(0.15, 0.85), depth * dice.between(0.15, 0.85), min(height - 0.15, 2.25))
        result.append(Light(_downward(other), (power * 0.6, power * 0.5, power * 0.35)))
    return result


def _downward(place: Point) -> View:
    return View(place, (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, -1.0))


def radiance(room: Room, lamps: list[Light], palette: Palette, seen: Seen, pixel: float, ambient: float) -> Floats:
    """Return the light that P seen points send to the camera, (P, 3); ``pixel``: size of a pixel at distance 1."""
    (nx, ny, nz), (px, py, pz) = seen.normal, seen.point
    dx, dy, dz = seen.rays.direction
    reach = np.sqrt(dx * dx + dy * dy + dz * dz)
    facing = np.maximum(-(nx * dx + ny * dy + nz * dz) / reach, 0.05)
    albedo = palette.colours(seen.which, seen.point, seen.normal, seen.t * pixel / facing)
    gloss = palette.gloss[seen.which]
    width, depth, height = room.size
    corner = np.ones_like(px)  # less light finds its way into corners
    for gap, normal in ((px, nx), (width - px, nx), (py, ny), (depth - py, ny), (pz, nz), (height - pz, nz)):
        corner *= 1.0 - 0.4 * (1.0 - np.abs(normal)) / (1.0 + (4.0 * np.maximum(gap, 0.0)) ** 2)
    light = (ambient * (0.75 + 0.25 * nz) * corner)[:, None] * np.array([1.0, 0.97, 0.92])
    shine = np.zeros_like(light)
    solids = [piece.shape for piece in room.kit.pieces[PLANES:] if piece.casts]
    for lamp in lamps:
        lx, ly, lz = (o - p - 0.01 * n for o, p, n in zip(lamp.view.origin, seen.point, seen.normal, strict=True))
        square = lx * lx + ly * ly + lz * lz
        away = np.sqrt(square)
        cosine = (nx * lx + ny * ly + nz * lz) / away
        shadow = np.ones_like(cosine)
        turned = np.flatnonzero(cosine > 0.0)
        shadow[turned] = ~_hidden(lamp.view, (-lx[turned], -ly[turned], -lz[turned]), solids)
        strength = shadow * np.maximum(cosine, 0.0) / (1.0 + square * 0.45)
        light += strength[:, None] * np.array(lamp.colour)
        hx, hy, hz = lx / away - dx / reach, ly / away - dy / reach, lz / away - dz / reach
        peak = np.maximum((nx * hx + ny * hy + nz * hz) / np.sqrt(hx * hx + hy * hy + hz * hz), 0.0)
        for _ in range(5):
            peak = peak * peak  # to the power of 32
        shine += (shadow * gloss * peak / (1.0 + square * 0.45))[:, None] * np.array(lamp.colour)
    result: Floats = albedo * (light + palette.glow[seen.which][:, None]) + 0.5 * shine
    return result


def _hidden(view: View, direction: Triple, solids: Sequence[Shape]) -> npt.NDArray[np.bool_]:
    dx, dy, dz = direction
    right, down, ahead = (axis[0] * dx + axis[1] * dy + axis[2] * dz for axis in (view.right, view.down, view.forward))
    result = np.zeros(dx.shape, np.bool_)
    front = np.flatnonzero(ahead > 0.05)  # what is beside or behind the lamp is lit
    rays = Rays(view, right[front] / ahead[front], down[front] / ahead[front], (dx[front], dy[front], dz[front]))
    result[front] = stopped(rays, solids, 0.999)
    return result


def develop(linear: Floats, dice: Dice) -> npt.NDArray[np.uint8]:
    """Turn linear light (H, W, 3) into a photograph: white balance, vignette, exposure, noise, gamma; uint8."""
    height, width, _ = linear.shape
    balance = np.array([dice.between(0.88, 1.12), 1.0, dice.between(0.85, 1.15)])
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    fade = 1.0 - dice.between(0.0, 0.3) * (x * x + y * y) / 2.0
    linear = linear * balance * fade[..., None]
    exposure = dice.between(0.2, 0.42) / float(np.percentile(linear.mean(-1), 60) + 1e-6)
    linear = np.minimum(linear * min(exposure, 2.5), 4.0)
    linear = linear * (1.0 + linear / 9.0) / (1.0 + linear)  # highlights roll off
    linear = linear * 1.3
    seed = np.full((height, width), dice.bits(), np.uint32)
    rows, columns = (
        np.arange(height, dtype=np.float64)[:, None] + 0 * x,
        np.arange(width, dtype=np.float64)[None, :] + 0 * x,
    )
    amount = dice.between(0.004, 0.02)
    grain = np.stack(
        [sum((chance(rows, columns, seed + np.uint32(3 * k + c)) for k in range(3)), -1.5 + 0 * x) for c in range(3)],
        -1,
    )
    values = np.clip(linear, 0.0, 1.0) ** (1 / 2.2) + amount * 2.0 * grain
    return (np.clip(values, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
