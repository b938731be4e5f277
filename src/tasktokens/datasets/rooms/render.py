"""One scene from its seed: a picture and the exact labels of six tasks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tasktokens.datasets.rooms.camera import Camera, aim
from tasktokens.datasets.rooms.dice import Dice
from tasktokens.datasets.rooms.names import FAR, NEAR, RENDER_VERSION, ROOMS_CLASSES, ROOMS_FOCAL, SPLITS
from tasktokens.datasets.rooms.paint import Palette
from tasktokens.datasets.rooms.room import Room
from tasktokens.datasets.rooms.scene import furnish
from tasktokens.datasets.rooms.shade import develop, lights, radiance
from tasktokens.datasets.rooms.trace import Seen, labels, trace
from tasktokens.errors import DataError

PROBE = 40
"""Pixels across the small picture that decides whether a camera is kept."""
CAMERAS, ROOMS = 12, 40  # tries


def render_room(seed: int, height: int, width: int, split: str = "train") -> dict[str, npt.NDArray[Any]]:
    """Render a scene.

    Returns ``image`` (H, W, 3) uint8, ``semseg`` (H, W) uint8 in 0..13, ``depth`` (H, W) float32 z-depth in metres
    within [0.5, 10], ``normals`` (H, W, 3) float32 unit vectors in camera coordinates (x right, y down, z forward)
    pointing towards the camera, ``edge`` and ``saliency`` (H, W) uint8 in {0, 1}, and ``human_parts`` (H, W) uint8 in
    0..6, which is absent where no person is visible (fewer than 30 pixels of 96 x 128).

    The camera is a pinhole with fx = fy = ``ROOMS_FOCAL`` * W and its principal point in the middle. A scene is the
    same at all sizes of one aspect ratio. The same seed and split give the same labels on every machine, and the same
    colours within one level.
    """
    if split not in SPLITS:
        raise DataError(f"split must be one of {', '.join(SPLITS)}, found {split!r}")
    if height < 8 or width < 8 or not 0 <= seed < 2**64:
        raise DataError(
            f"a room needs height and width of at least 8 and a seed below 2**64, found {height} x {width}, {seed}"
        )
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        room, camera, dice = stage(seed, height / width, split)
        seen = trace(room, camera, *camera.grid(height, width))
        result = labels(room, camera, seen, height, width)
        result["image"] = _photograph(room, camera, seen, height, width, dice)
    return result


def stage(seed: int, aspect: float, split: str) -> tuple[Room, Camera, Dice]:
    """Draw rooms and cameras until one shows its target well and has nothing before its lens."""
    rows = min(max(round(PROBE * aspect), 6), 4 * PROBE)
    for attempt in range(ROOMS):
        dice = Dice(RENDER_VERSION, SPLITS.index(split), attempt, seed % 2**32, seed // 2**32)
        room = furnish(dice)
        groups = np.array([piece.group for piece in room.kit.pieces])
        kinds = np.array([piece.label for piece in room.kit.pieces])
        for _ in range(CAMERAS):
            camera = aim(room)
            if camera is None:
                continue
            edge_u, edge_v = 0.5 / ROOMS_FOCAL, 0.5 * aspect / ROOMS_FOCAL  # the probe reaches to the very border
            u, v = np.linspace(-edge_u, edge_u, PROBE), np.linspace(-edge_v, edge_v, rows)
            seen = trace(room, camera, np.tile(u, rows), np.repeat(v, PROBE))
            share = np.count_nonzero(groups[seen.which] == camera.target) / seen.t.size
            shown = np.bincount(kinds[seen.which], minlength=len(ROOMS_CLASSES)) > 0.004 * seen.t.size
            picky = attempt < ROOMS // 2
            rich = np.count_nonzero(shown) >= (5 if picky else 2) and (0.015 if picky else 0.005) <= share <= 0.5
            if rich and seen.t.min() >= NEAR + 0.05 and seen.t.max() <= FAR:
                return room, camera, dice
    raise DataError(f"no room fits a picture {aspect:.2f} times as high as wide; ask for one nearer to a square")


def _photograph(room: Room, camera: Camera, seen: Seen, height: int, width: int, dice: Dice) -> npt.NDArray[np.uint8]:
    palette, lamps, ambient = Palette(room.kit.pieces), lights(room, dice), dice.between(0.25, 0.6)
    pixel = 1.0 / (ROOMS_FOCAL * width)
    linear = radiance(room, lamps, palette, seen, pixel, ambient)
    rough = _rough(seen, height, width)
    u, v = seen.rays.u[rough], seen.rays.v[rough]
    offsets = ((-0.375, -0.125), (0.125, -0.375), (0.375, 0.125), (-0.125, 0.375))
    more = trace(
        room,
        camera,
        np.concatenate([u + a * pixel for a, _ in offsets]),
        np.concatenate([v + b * pixel for _, b in offsets]),
    )
    linear[rough] = radiance(room, lamps, palette, more, pixel, ambient).reshape(len(offsets), -1, 3).mean(0)
    return develop(linear.reshape(height, width, 3), dice)


def _rough(seen: Seen, height: int, width: int) -> npt.NDArray[np.int64]:
    """Return the pixels next to a border of surfaces, whose colour is worth more than one ray."""
    face = (seen.which * 8 + seen.face).reshape(height, width)
    rough = np.zeros((height, width), np.bool_)
    rough[:, 1:] |= face[:, 1:] != face[:, :-1]
    rough[:, :-1] |= face[:, 1:] != face[:, :-1]
    rough[1:] |= face[1:] != face[:-1]
    rough[:-1] |= face[1:] != face[:-1]
    return np.flatnonzero(rough)
