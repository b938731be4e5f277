"""Furniture: a plan says how much floor it takes; building it adds its pieces and says where things may stand on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tasktokens.datasets.rooms.kit import Frame, Kit, Material, Thing


@dataclass(frozen=True)
class Spot:
    """A free surface: the frame is at the middle of it; width (x) and depth (y) in metres; ``room`` is free height.

    Attributes:
        frame: middle of the surface.
        width, depth: in metres.
        room: free height above it in metres.
    """

    frame: Frame
    width: float
    depth: float
    room: float = 1.0


@dataclass
class Built:
    """What a builder leaves: the thing's number, surfaces for small objects, seats for people (height of the seat).

    Attributes:
        group: the thing's number.
        tops: surfaces for small objects.
        seats: places for people, at the height of the seat.
    """

    group: int
    tops: list[Spot] = field(default_factory=list)
    seats: list[Frame] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """Something to place: its footprint and height in metres, and the function that builds it in a frame.

    Attributes:
        width, depth, height: in metres.
        build: adds the pieces in a frame.
    """

    width: float
    depth: float
    height: float
    build: Callable[[Frame], Built]


def bed(kit: Kit) -> Plan:
    """A bed: frame, mattress, cover, headboard, pillows (which are objects, as in NYU)."""
    dice = kit.dice
    width, depth, top = dice.between(0.9, 1.8), dice.between(1.9, 2.1), dice.between(0.42, 0.62)
    board = dice.between(0.75, 1.25)

    def build(frame: Frame) -> Built:
        hard, sheet, cover = kit.hard(), kit.soft(), kit.soft()
        thing = kit.thing(frame, "bed")
        legs = dice.chance(0.5)
        foot = 0.16 if legs else 0.0
        if legs:
            _legs(thing, width - 0.02, depth - 0.02, foot, 0.07, hard)
        thing.box(0, 0, foot, (width, depth, top - 0.2 - foot), hard)
        thing.box(0, 0.02, top - 0.2, (width - 0.04, depth - 0.06, 0.2), sheet)
        share = dice.between(0.5, 0.75)
        thing.box(0, depth / 2 - share * depth / 2 + 0.01, top - 0.28, (width + 0.03, share * depth, 0.31), cover)
        thing.box(0, -depth / 2 + 0.03, 0, (width + 0.04, 0.06, board), hard)
        if dice.chance(0.25):
            thing.box(0, depth / 2 + 0.01, 0, (width + 0.04, 0.05, top + 0.08), hard)
        count = 1 if width < 1.2 else 2
        case = kit.soft()
        for number in range(count):
            x = (number - (count - 1) / 2) * width * 0.46
            pillow = kit.thing(frame, "objects", thing.number)
            pillow.ball(x, -depth / 2 + 0.3, top + 0.07, (min(0.34, width * 0.22), 0.2, 0.1), case)
        middle = frame.at(0, 0.35, top + 0.03)
        seats = [
            frame.at(width / 2 - 0.12, 0.3, top + 0.02, (0.0, -1.0)),
            frame.at(0.12 - width / 2, 0.3, top + 0.02, (0.0, 1.0)),
        ]
        return Built(thing.number, [Spot(middle, width * 0.7, 0.8)] if dice.chance(0.35) else [], seats)

    return Plan(width + 0.06, depth + 0.06, board, build)


def sofa(kit: Kit) -> Plan:
    """A sofa: base, arms, back, cushions, feet."""
    dice = kit.dice
    width, depth, back = dice.between(1.4, 2.3), dice.between(0.8, 0.98), dice.between(0.72, 0.95)
    return Plan(
        width, depth, back, lambda frame: _upholstered(kit, frame, "sofa", width, depth, back, 3 if width > 1.9 else 2)
    )


def armchair(kit: Kit) -> Plan:
    """An upholstered chair: a small sofa by its looks, a chair by its label."""
    dice = kit.dice
    width, depth, back = dice.between(0.7, 0.9), dice.between(0.7, 0.88), dice.between(0.75, 1.0)
    return Plan(width, depth, back, lambda frame: _upholstered(kit, frame, "chair", width, depth, back, 1))


def _upholstered(kit: Kit, frame: Frame, label: str, width: float, depth: float, back: float, places: int) -> Built:
    dice, cloth = kit.dice, kit.soft()
    seat, arm, foot = dice.between(0.38, 0.46), dice.between(0.1, 0.2), dice.between(0.04, 0.12)
    rest, deep = dice.between(0.52, 0.66), dice.between(0.16, 0.24)
    thing = kit.thing(frame, label)
    _legs(thing, width - 0.06, depth - 0.06, foot, 0.05, kit.hard())
    thing.box(0, 0, foot, (width - 0.01, depth - 0.01, seat - 0.13 - foot), cloth)
    for side in (-1, 1):
        thing.box(side * (width - arm) / 2, 0, foot, (arm, depth, rest - foot), cloth)
    thing.box(0, -depth / 2 + deep / 2, foot, (width - 2 * arm + 0.02, deep, back - foot), cloth)
    each = (width - 2 * arm) / places
    pads = cloth if dice.chance(0.7) else kit.soft()
    seats = []
    for number in range(places):
        x = (number - (places - 1) / 2) * each
        thing.box(x, deep / 2, seat - 0.13, (each - 0.015, depth - deep - 0.01, 0.13), pads)
        thing.box(x, -depth / 2 + deep + 0.06, seat, (each - 0.03, 0.12, back - seat - 0.04), pads)
        seats.append(frame.at(x, deep / 2 + 0.06, seat))
    if label == "sofa":
        for side in (-1, 1):
            if dice.chance(0.45):
                cushion = kit.thing(frame, "objects", thing.number)
                cushion.ball(
                    side * (width / 2 - arm - 0.2), -depth / 2 + deep + 0.2, seat + 0.18, (0.19, 0.08, 0.18), kit.soft()
                )
    return Built(thing.number, [], seats)


def chair(kit: Kit) -> Plan:
    """A chair with four legs and a back of panel or slats, a swivel chair, or a stool."""
    dice = kit.dice
    kind = dice.pick(("panel", "slats", "swivel", "panel", "slats", "stool"))
    width, seat, back = dice.between(0.4, 0.5), dice.between(0.42, 0.48), dice.between(0.82, 1.05)

    hard, pad, metal = kit.hard(), kit.any(), kit.metal()  # drawn here, so that the chairs of a set look alike

    def build(frame: Frame) -> Built:
        thing = kit.thing(frame, "chair")
        if kind == "stool":
            thing.cone(0, 0, seat - 0.06, 0.06, (width * 0.42, width * 0.42), pad)
            _legs(thing, width * 0.6, width * 0.6, seat - 0.06, 0.035, hard)
            return Built(thing.number)
        if kind == "swivel":
            for x, y in ((1.0, 0.0), (0.31, 0.95), (-0.81, 0.59), (-0.81, -0.59), (0.31, -0.95)):
                thing.limb((0, 0, 0.1), (x * 0.28, y * 0.28, 0.05), (0.03, 0.03), metal)
            thing.cone(0, 0, 0.05, seat - 0.12, (0.03, 0.03), metal)
            for side in (-1, 1):
                thing.box(side * (width / 2 + 0.02), 0.02, seat + 0.18, (0.05, 0.26, 0.04), metal)
                thing.box(side * (width / 2 + 0.02), -0.02, seat - 0.05, (0.03, 0.05, 0.23), metal)
        else:
            _legs(thing, width, width, seat - 0.05, 0.04, hard)
        thing.box(0, 0, seat - 0.06, (width, width, 0.06), pad)
        y = -width / 2 + 0.02
        if kind == "slats":
            for side in (-1, 1):
                thing.box(side * (width / 2 - 0.02), y, seat, (0.04, 0.04, back - seat), hard)
            for number in range(3):
                thing.box(0, y, seat + 0.12 + number * (back - seat - 0.2) / 2, (width - 0.08, 0.025, 0.07), hard)
        else:
            low = seat + (0.12 if kind == "swivel" else 0.02)
            thing.box(0, y, low, (width, 0.04, back - low), pad)
            if kind == "swivel":
                thing.box(0, y - 0.03, seat - 0.04, (0.06, 0.03, 0.24), metal)
        return Built(thing.number, [], [frame.at(0, 0.03, seat)])

    return Plan(width + 0.1, width + 0.1, back, build)


def table(kit: Kit, kind: str) -> Plan:
    """A table: ``dining``, ``coffee``, ``desk`` or ``round``; things may stand on it."""
    dice = kit.dice
    height = dice.between(0.36, 0.48) if kind == "coffee" else dice.between(0.7, 0.78)
    size = {
        "dining": (dice.between(1.1, 1.9), dice.between(0.75, 0.95)),
        "coffee": (dice.between(0.8, 1.2), dice.between(0.5, 0.65)),
        "desk": (dice.between(1.1, 1.7), dice.between(0.6, 0.75)),
        "round": (dice.between(0.8, 1.2),) * 2,
    }[kind]
    width, depth = size

    def build(frame: Frame) -> Built:
        thing = kit.thing(frame, "table")
        top = kit.hard()
        legs = top if dice.chance(0.5) else kit.metal()
        thick = dice.between(0.025, 0.05)
        if kind == "round":
            thing.cone(0, 0, height - thick, thick, (width / 2, width / 2), top)
            thing.cone(0, 0, 0.03, height - thick - 0.03, (0.06, 0.05), legs)
            thing.cone(0, 0, 0, 0.03, (width * 0.25, width * 0.22), legs)
            return Built(thing.number, [Spot(frame.at(0, 0, height), width * 0.65, depth * 0.65)])
        thing.box(0, 0, height - thick, (width, depth, thick), top)
        if kind == "coffee" and dice.chance(0.5):
            thing.box(0, 0, height * 0.35, (width - 0.1, depth - 0.1, 0.02), top)
        if kind == "desk" and dice.chance(0.6):
            thing.box(width / 2 - 0.22, 0, 0.02, (0.4, depth - 0.06, height - thick - 0.02), legs)
            for number in range(3):
                thing.box(width / 2 - 0.22, depth / 2 - 0.03, 0.05 + number * 0.21, (0.36, 0.04, 0.19), top)
            thing.box(-width / 2 + 0.03, 0, 0, (0.04, depth - 0.06, height - thick), legs)
        else:
            _legs(thing, width - 0.04, depth - 0.04, height - thick, dice.between(0.04, 0.08), legs)
            if dice.chance(0.5):
                thing.box(0, 0, height - thick - 0.08, (width - 0.14, depth - 0.14, 0.08), legs)
        return Built(thing.number, [Spot(frame.at(0, 0, height), width * 0.9, depth * 0.85)])

    return Plan(width, depth, height, build)


def _legs(thing: Thing, width: float, depth: float, height: float, thick: float, material: Material) -> None:
    for x in (-1, 1):
        for y in (-1, 1):
            thing.box(x * (width - thick) / 2, y * (depth - thick) / 2, 0, (thick, thick, height), material)
