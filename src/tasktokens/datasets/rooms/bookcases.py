"""Furniture that holds things: bookcases, cabinets, wardrobes, stands with screens."""

from __future__ import annotations

from tasktokens.datasets.rooms.furniture import Built, Plan, Spot
from tasktokens.datasets.rooms.kit import Frame, Kit, Material


def bookcase(kit: Kit) -> Plan:
    """A bookcase: sides, shelves, a back, rows of books and a few objects."""
    dice = kit.dice
    width, depth, shelves = dice.between(0.7, 1.5), dice.between(0.28, 0.36), 3 + dice.index(3)
    gap = dice.between(0.32, 0.4)
    height = round(shelves * gap + 0.12, 6)

    def build(frame: Frame) -> Built:
        thing = kit.thing(frame, "furniture")
        hard = kit.hard()
        back = hard if dice.chance(0.5) else kit.hard()
        for side in (-1, 1):
            thing.box(side * (width / 2 - 0.0125), 0, 0, (0.025, depth, height), hard)
        thing.box(0, -depth / 2 + 0.01, 0, (width - 0.05, 0.02, height), back)
        built = Built(thing.number)
        for number in range(shelves + 1):
            level = 0.07 + number * gap
            thing.box(0, 0, level, (width - 0.05, depth, 0.025), hard)
            if number == shelves:
                break
            spot = Spot(frame.at(0, 0.01, level + 0.025), width - 0.08, depth - 0.06, gap - 0.04)
            if dice.chance(0.75):
                books_on(kit, spot, thing.number)
            else:
                built.tops.append(spot)
        if height < 1.95:
            built.tops.append(Spot(frame.at(0, 0, round(height - 0.025, 6)), width * 0.9, depth * 0.8, 0.4))
        return built

    return Plan(width, depth, height, build)


def books_on(kit: Kit, spot: Spot, group: int | None = None) -> None:
    """Stand one or two rows of books on a shelf; a row is one instance."""
    dice = kit.dice
    left = -spot.width / 2
    while left < spot.width / 2 - 0.15:
        width = round(min(dice.between(0.25, 0.7), spot.width / 2 - left), 6)
        height = min(spot.room - 0.03, dice.between(0.18, 0.3))
        depth = min(spot.depth, dice.between(0.15, 0.22))
        row = kit.thing(spot.frame, "books", group)
        row.box(left + width / 2, spot.depth / 2 - depth / 2 - 0.02, 0, (width, depth, height), kit.spines())
        left += width + (dice.between(0.1, 0.4) if dice.chance(0.5) else 0.004)


def cabinet(kit: Kit, kind: str) -> Plan:
    """A ``dresser``, ``nightstand``, ``wardrobe`` or ``sideboard``: a body with drawers or doors and knobs."""
    dice = kit.dice
    width, depth, height, rows, columns = {
        "dresser": (
            dice.between(0.8, 1.4),
            dice.between(0.42, 0.52),
            dice.between(0.7, 1.1),
            3 + dice.index(2),
            1 + dice.index(2),
        ),
        "nightstand": (dice.between(0.4, 0.55), dice.between(0.36, 0.45), dice.between(0.45, 0.62), 2, 1),
        "wardrobe": (dice.between(0.9, 1.6), dice.between(0.5, 0.62), dice.between(1.8, 2.1), 1, 2 + dice.index(2)),
        "sideboard": (
            dice.between(1.2, 1.8),
            dice.between(0.4, 0.5),
            dice.between(0.45, 0.85),
            1 + dice.index(2),
            2 + dice.index(2),
        ),
    }[kind]

    def build(frame: Frame) -> Built:
        thing = kit.thing(frame, "furniture")
        body = kit.hard()
        front = body if dice.chance(0.6) else kit.hard()
        knob = kit.metal()
        foot = dice.between(0.03, 0.15)
        for side in (-1, 1):
            thing.box(side * (width / 2 - 0.03), 0, 0, (0.05, depth - 0.06, foot), body)
        thing.box(0, -0.01, foot, (width, depth - 0.02, height - foot), body)
        wide, high = (width - 0.02) / columns, (height - foot - 0.05) / rows
        for row in range(rows):
            for column in range(columns):
                x, z = (column - (columns - 1) / 2) * wide, foot + 0.02 + row * high
                thing.box(x, depth / 2 - 0.01, z, (wide - 0.025, 0.025, high - 0.025), front)
                aside = 0.0 if rows > 1 else (0.4 if column % 2 == 0 else -0.4) * wide
                thing.box(
                    x + aside,
                    depth / 2 + 0.01,
                    z + high / 2 - 0.03,
                    (0.03 if aside else 0.12, 0.02, 0.1 if aside else 0.02),
                    knob,
                )
        return Built(thing.number, [Spot(frame.at(0, 0, height), width * 0.9, depth * 0.8, min(0.5, 2.36 - height))])

    return Plan(width, depth, height, build)


def wall_shelf(kit: Kit) -> Plan:
    """A board on the wall with books and objects; its frame is at its lower side."""
    dice = kit.dice
    width, depth = dice.between(0.7, 1.4), dice.between(0.2, 0.27)

    def build(frame: Frame) -> Built:
        thing = kit.thing(frame, "furniture")
        hard = kit.hard()
        thing.box(0, 0, 0, (width, depth, 0.03), hard)
        for side in (-1, 1):
            thing.box(side * width * 0.35, -depth / 4, -0.1, (0.03, depth / 2, 0.1), hard)
        spot = Spot(frame.at(0, 0, 0.03), width - 0.06, depth - 0.02, 0.34)
        if dice.chance(0.65):
            books_on(kit, spot, thing.number)
            return Built(thing.number)
        return Built(thing.number, [spot])

    return Plan(width, depth, 0.45, build)


def screen(kit: Kit, width: float, stand: bool) -> Plan:
    """A television or monitor; with ``stand`` it stands, else it hangs (frame at its lower side)."""
    dice = kit.dice
    height = round(width * 0.57, 6)

    def build(frame: Frame) -> Built:
        thing = kit.thing(frame, "tv")
        dark = dice.between(0.005, 0.06)
        shell = (
            kit.plain(0.3) if dice.chance(0.2) else Material("plain", (dark, dark, dark), (dark, dark, dark), gloss=0.4)
        )
        low = dice.between(0.05, 0.1) if stand else 0.0
        if stand:
            thing.box(0, 0, 0, (width * 0.45, 0.16, 0.015), shell)
            thing.box(0, -0.01, 0.015, (width * 0.12, 0.03, low), shell)
        thing.box(0, 0, low, (width, 0.05, height), shell)
        face = Material("plain", (dark, dark, dark * 1.1), (dark, dark, dark), gloss=0.7)
        if dice.chance(0.5):  # it is on
            face = Material("screen", kit.colour(), kit.colour(), width, dice.bits(), 0.4, dice.between(0.3, 0.9))
        thing.box(0, 0.025, low + 0.025, (width - 0.05, 0.006, height - 0.05), face)
        return Built(thing.number)

    return Plan(width, 0.17 if stand else 0.06, height + 0.1, build)
