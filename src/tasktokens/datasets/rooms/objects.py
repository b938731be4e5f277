"""Small things: what stands on tables, shelves and floors, and what hangs on walls and ceilings."""

from __future__ import annotations

from tasktokens.datasets.rooms.furniture import Built, Plan, Spot
from tasktokens.datasets.rooms.kit import Frame, Kit, Material
from tasktokens.datasets.rooms.shapes import turn


def put_on(kit: Kit, spot: Spot, count: int, kinds: tuple[str, ...]) -> None:
    """Put up to ``count`` small things next to each other on a surface, each in its own stretch of it."""
    dice = kit.dice
    count = min(count, int(spot.width / 0.3))
    for number in range(count):
        room = spot.width / count
        x = -spot.width / 2 + (number + 0.5) * room + dice.between(-0.15, 0.15) * max(room - 0.25, 0.0)
        y = dice.between(-0.5, 0.5) * max(spot.depth - 0.26, 0.0)
        frame = spot.frame.at(x, y, 0.0, turn(dice.between(-0.5, 0.5)))
        small(kit, frame, dice.pick(kinds), min(room, spot.depth) * 0.9, spot.room)


TABLETOP = ("cup", "vase", "books", "books", "lamp", "box", "plant", "bowl", "laptop", "bottle", "bottle", "ball")
"""What stands on tables; repeated names are more frequent."""

SHELFTOP = ("vase", "box", "ball", "plant", "bowl", "bottle", "clock")
"""What stands on shelves."""


def small(kit: Kit, frame: Frame, kind: str, space: float, room: float) -> None:
    """Build one small thing, at most ``space`` metres across and ``room`` metres high."""
    dice = kit.dice
    thing = kit.thing(frame, "books" if kind == "books" else "objects")
    wide = min(dice.between(0.6, 1.0) * space, 0.3)
    tall = min(dice.between(0.16, 0.38), room)
    if kind == "cup":
        thing.cone(0, 0, 0, 0.1, (0.035, 0.042), kit.plain(0.3))
    elif kind == "bottle":
        glass = kit.plain(0.5)
        thing.cone(0, 0, 0, tall * 0.7, (0.04, 0.04), glass)
        thing.cone(0, 0, tall * 0.7, tall * 0.3, (0.03, 0.014), glass)
    elif kind == "vase":
        clay = kit.any()
        thing.ball(0, 0, tall * 0.42, (wide * 0.35, wide * 0.35, tall * 0.42), clay)
        thing.cone(0, 0, tall * 0.7, tall * 0.3, (wide * 0.14, wide * 0.22), clay)
    elif kind == "books":
        if dice.chance(0.5):
            level = 0.0
            for _ in range(1 + dice.index(4)):
                thick = dice.between(0.02, 0.05)
                thing.box(
                    dice.between(-0.02, 0.02), dice.between(-0.02, 0.02), level, (0.24, 0.17, thick), kit.plain(0.1)
                )
                level += thick
        else:
            thing.box(0, 0, 0, (wide, min(0.17, space), min(dice.between(0.18, 0.27), room)), kit.spines())
    elif kind == "lamp":
        metal = kit.metal()
        tall = min(dice.between(0.36, 0.55), room)
        thing.cone(0, 0, 0, 0.03, (0.08, 0.07), metal)
        thing.cone(0, 0, 0.03, tall * 0.5, (0.012, 0.012), metal)
        thing.cone(0, 0, tall * 0.5, tall * 0.5, (0.14, 0.09), _lit(kit), casts=False)
    elif kind == "plant":
        plant(kit, frame, tall, thing.number)
    elif kind == "bowl":
        thing.cone(0, 0, 0, 0.08, (wide * 0.25, wide * 0.45), kit.any())
        for x in (-1, 1):
            thing.ball(x * wide * 0.15, 0, 0.09, (0.045, 0.045, 0.045), kit.plain(0.2))
    elif kind == "laptop":
        dark = kit.metal()
        thing.box(0, 0.02, 0, (0.32, 0.23, 0.02), dark)
        thing.box(0, -0.09, 0.02, (0.32, 0.015, 0.2), dark)
        face = Material("screen", kit.colour(), kit.colour(), 0.3, dice.bits(), 0.4, dice.between(0.0, 0.7))
        thing.box(0, -0.08, 0.03, (0.3, 0.008, 0.18), face)
    elif kind == "ball":
        radius = min(wide, room) * 0.45
        thing.ball(0, 0, radius, (radius, radius, radius), kit.any())
    elif kind == "clock":
        thing.box(
            0, 0, 0, (wide * 0.7, 0.07, tall * 0.7), Material("image", kit.colour(), kit.colour(), 0.1, dice.bits())
        )
    else:
        thing.box(0, 0, 0, (wide, min(wide * 0.8, space), tall * 0.7), kit.any())


def plant(kit: Kit, frame: Frame, height: float, group: int | None = None) -> int:
    """A plant in a pot; returns its number."""
    dice = kit.dice
    thing = kit.thing(frame, "objects", group)
    wide = min(height * 0.2, 0.17)
    thing.cone(0, 0, 0, height * 0.3, (wide * 0.75, wide), kit.any())
    green = (dice.between(0.02, 0.14), dice.between(0.1, 0.32), dice.between(0.01, 0.1))
    leaf = Material("noise", green, kit.shade(green, 0.3, 0.6), 0.03, dice.bits())
    thing.limb((0, 0, height * 0.25), (0, 0, height * 0.8), (0.015, 0.01), leaf)
    count = 6 + dice.index(4)
    for number in range(count):
        cos, sin = turn(6.283185 * number / count + dice.between(-0.4, 0.4))
        reach, level = height * dice.between(0.14, 0.26), height * dice.between(0.5, 0.95)
        thing.limb(
            (0, 0, level * 0.75), (cos * reach, sin * reach, level), (0.012, height * dice.between(0.04, 0.075)), leaf
        )
    return thing.number


def floor_thing(kit: Kit, kind: str) -> Plan:
    """A thing on the floor: ``plant``, ``lamp``, ``bin``, ``carton``, ``suitcase``, ``basket`` or ``ball``."""
    dice = kit.dice
    wide = {"plant": 0.45, "lamp": 0.45, "bin": 0.3, "carton": dice.between(0.3, 0.6), "ball": 0.4}.get(kind, 0.5)
    tall = {"plant": dice.between(0.6, 1.4), "lamp": dice.between(1.4, 1.7), "ball": 0.3}.get(
        kind, dice.between(0.3, 0.6)
    )

    def build(frame: Frame) -> Built:
        if kind == "plant":
            return Built(plant(kit, frame, tall))
        thing = kit.thing(frame, "objects")
        if kind == "lamp":
            metal = kit.metal()
            thing.cone(0, 0, 0, 0.03, (0.15, 0.14), metal)
            thing.cone(0, 0, 0.03, tall - 0.3, (0.015, 0.015), metal)
            thing.cone(0, 0, tall - 0.3, 0.3, (0.2, 0.13), _lit(kit), casts=False)
        elif kind == "bin":
            thing.cone(0, 0, 0, tall, (0.11, 0.14), kit.any())
        elif kind == "basket":
            thing.cone(0, 0, 0, tall * 0.7, (0.18, 0.22), kit.any())
            cloth = kit.soft()
            thing.ball(0, 0, tall * 0.7, (0.19, 0.19, 0.09), cloth)
        elif kind == "suitcase":
            case = kit.any()
            thing.box(0, 0, 0.04, (0.42, 0.22, tall), case)
            thing.box(0, 0, tall + 0.04, (0.16, 0.03, 0.05), kit.metal())
        elif kind == "ball":
            thing.ball(0, 0, tall / 2, (tall / 2, tall / 2, tall / 2), kit.any())
        else:
            thing.box(0, 0, 0, (wide, wide * 0.8, tall), kit.any())
            if dice.chance(0.4):
                thing.box(0.02, 0, tall, (wide * 0.7, wide * 0.6, tall * 0.6), kit.any())
        return Built(thing.number)

    return Plan(wide, wide, tall, build)


def hung(kit: Kit, kind: str, width: float, height: float) -> Plan:
    """A thing on a wall, frame at the middle of its lower side: ``picture``, ``board``, ``mirror`` or ``window``."""
    dice = kit.dice

    def build(frame: Frame) -> Built:
        thing = kit.thing(frame, {"picture": "picture", "window": "window"}.get(kind, "objects"))
        rim = dice.between(0.025, 0.06)
        thing.box(0, 0, 0, (width, 0.03, height), kit.hard(), casts=False)
        paint = {
            "picture": Material("image", kit.colour(), kit.colour(), 0.3, dice.bits(), 0.1),
            "board": Material("noise", (0.8, 0.8, 0.8), (0.7, 0.7, 0.72), 0.3, dice.bits(), 0.3),
            "mirror": Material("noise", (0.5, 0.52, 0.55), (0.3, 0.32, 0.35), 0.8, dice.bits(), 0.9),
            "window": Material("outdoors", kit.colour(), kit.colour(), 0.4, dice.bits(), 0.2, dice.between(0.5, 1.3)),
        }[kind]
        if kind == "window" and dice.chance(0.25):
            paint = Material(
                "blinds", (0.7, 0.68, 0.62), kit.colour(), dice.between(0.04, 0.08), dice.bits(), 0.0, 0.35
            )
        thing.box(0, 0.012, rim, (width - 2 * rim, 0.03, height - 2 * rim), paint, casts=False)
        if kind == "window":
            bars = kit.plain()
            for number in range(1, 1 + dice.index(3)):
                thing.box(
                    (number / 3 - 0.5) * width if width > 1.2 else 0,
                    0.03,
                    rim,
                    (0.04, 0.03, height - 2 * rim),
                    bars,
                    casts=False,
                )
            if dice.chance(0.5):
                thing.box(0, 0.03, height * 0.6, (width - 2 * rim, 0.03, 0.04), bars, casts=False)
            thing.box(0, 0.05, -0.04, (width + 0.1, 0.12, 0.04), bars, casts=False)
            if dice.chance(0.5):
                cloth, low = kit.soft(), dice.between(-0.2, 0.05)
                for side in (-1, 1):
                    curtain = kit.thing(frame, "window", thing.number)
                    for fold in range(4):
                        x = side * (width / 2 + 0.12 - fold * 0.085)
                        curtain.cone(x, 0.1, -low, height + 0.1 + low, (0.05, 0.045), cloth, casts=False)
        return Built(thing.number)

    return Plan(width, 0.05, height, build)


def ceiling_lamp(kit: Kit, frame: Frame, drop: float) -> None:
    """A hanging lamp; the frame is on the ceiling."""
    thing = kit.thing(frame, "objects")
    thing.cone(0, 0, -drop, drop, (0.01, 0.01), kit.metal(), casts=False)
    if kit.dice.chance(0.5):
        thing.ball(0, 0, -drop, (0.15, 0.15, 0.14), _lit(kit), casts=False)
    else:
        thing.cone(0, 0, -drop - 0.1, 0.2, (0.22, 0.1), _lit(kit), casts=False)


def _lit(kit: Kit) -> Material:
    colour = kit.colour()
    pale = (0.4 + 0.6 * colour[0], 0.4 + 0.55 * colour[1], 0.35 + 0.5 * colour[2])
    return Material("plain", pale, pale, glow=kit.dice.between(0.0, 1.0))
