"""What every room has: six planes, skirting boards, a door, perhaps a rug."""

from __future__ import annotations

from tasktokens.datasets.rooms.kit import Frame, Kit, Material, Piece
from tasktokens.datasets.rooms.names import ROOMS_CLASSES
from tasktokens.datasets.rooms.shapes import Box, Point

PLANES = 6
"""The first pieces of every scene: x = 0, x = width, y = 0, y = depth, floor, ceiling; instance 0."""


def shell(kit: Kit, size: Point) -> None:
    """Add the six planes (the room's inner box seen from inside) and the skirting."""
    dice = kit.dice
    inner = Box((size[0] / 2, size[1] / 2, size[2] / 2), (size[0] / 2, size[1] / 2, size[2] / 2))
    paint = _wall(kit)
    accent = _wall(kit) if dice.chance(0.3) else paint
    white = dice.between(0.5, 0.85)
    above = Material("noise", (white, white, white * dice.between(0.85, 1.0)), (white * 0.95,) * 3, 0.3, dice.bits())
    walls = dice.shuffled((paint, paint, paint, accent))
    for material, label in zip((*walls, _floor(kit), above), ("wall",) * 4 + ("floor", "ceiling"), strict=True):
        kit.pieces.append(Piece(inner, material, ROOMS_CLASSES.index(label), 0, 0, casts=False))
    trim = kit.plain() if dice.chance(0.5) else Material("plain", (0.7, 0.7, 0.68), (0.7, 0.7, 0.68))
    high = dice.between(0.06, 0.12)
    for frame, length in (
        (Frame(size[0] / 2, 0.008, 0.0), size[0]),
        (Frame(size[0] - 0.008, size[1] / 2, 0.0, 0.0, 1.0), size[1]),
        (Frame(size[0] / 2, size[1] - 0.008, 0.0, -1.0, 0.0), size[0]),
        (Frame(0.008, size[1] / 2, 0.0, 0.0, -1.0), size[1]),
    ):
        kit.thing(frame, "wall").box(0, 0, 0, (length, 0.016, high), trim, casts=False)


def door(kit: Kit, frame: Frame) -> None:
    """Add a door with its frame, panels and handle; doors are wall, as in NYU."""
    dice = kit.dice
    thing = kit.thing(frame, "wall")
    leaf, rim = kit.hard(), kit.hard()
    thing.box(0, 0, 0, (0.86, 0.03, 2.02), leaf, casts=False)
    for x in (-0.46, 0.46):
        thing.box(x, 0.005, 0, (0.08, 0.05, 2.1), rim, casts=False)
    thing.box(0, 0.005, 2.02, (0.84, 0.05, 0.08), rim, casts=False)
    if dice.chance(0.6):
        inset = Material("plain", kit.shade(leaf.first), kit.shade(leaf.first), gloss=leaf.gloss)
        for z, high in ((0.15, 0.7), (1.0, 0.9)):
            thing.box(0, 0.012, z, (0.6, 0.014, high), inset, casts=False)
    thing.box(dice.pick((-0.37, 0.37)), 0.04, 1.0, (0.11, 0.05, 0.025), kit.metal(), casts=False)


def rug(kit: Kit, size: Point) -> None:
    """Add a rug on the middle of the floor; rugs are floor, as in NYU."""
    dice = kit.dice
    frame = Frame(round(size[0] * dice.between(0.42, 0.58), 6), round(size[1] * dice.between(0.42, 0.58), 6), 0.0)
    cloth = kit.soft()
    kit.thing(frame, "floor").box(
        0, 0, 0, (size[0] * dice.between(0.3, 0.6), size[1] * dice.between(0.3, 0.6), 0.012), cloth, casts=False
    )


def _wall(kit: Kit) -> Material:
    dice = kit.dice
    colour = kit.colour()
    lift = dice.between(0.3, 0.75)  # walls tend to be pale, but not all are
    first = (lift + (1 - lift) * colour[0], lift + (1 - lift) * colour[1], lift + (1 - lift) * colour[2])
    if dice.chance(0.2):
        first = colour
    pattern = dice.pick(("noise", "noise", "noise", "plain", "stripes", "tiles"))
    return Material(pattern, first, kit.shade(first, 0.85, 0.96), dice.between(0.08, 0.4), dice.bits())


def _floor(kit: Kit) -> Material:
    dice = kit.dice
    first = kit.colour()
    pattern = dice.pick(("wood", "wood", "tiles", "noise", "checks"))
    scale = {"wood": dice.between(0.08, 0.16), "noise": dice.between(0.02, 0.08)}.get(pattern, dice.between(0.2, 0.5))
    gloss = 0.0 if pattern == "noise" else dice.between(0.0, 0.4)
    return Material(pattern, first, kit.shade(first, 0.5, 0.9), scale, dice.bits(), gloss)
