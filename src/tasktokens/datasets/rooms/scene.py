"""A whole room: what stands where, and who is in it. Nothing overlaps and everything stands on something."""

from __future__ import annotations

import math

import tasktokens.datasets.rooms.bookcases as storage
import tasktokens.datasets.rooms.furniture as furniture
import tasktokens.datasets.rooms.objects as objects
from tasktokens.datasets.rooms.dice import Dice
from tasktokens.datasets.rooms.furniture import Built, Plan, Spot
from tasktokens.datasets.rooms.kit import Frame, Kit
from tasktokens.datasets.rooms.names import FAR
from tasktokens.datasets.rooms.people import person
from tasktokens.datasets.rooms.room import TURNS, Room, footprint
from tasktokens.datasets.rooms.shapes import turn
from tasktokens.datasets.rooms.shell import door, rug, shell


def furnish(dice: Dice) -> Room:
    """Draw a whole room: walls first, then furniture from large to small, then people, then what lies about."""
    kit = Kit(dice)
    height, width = dice.between(2.4, 3.2), dice.between(3.0, 5.0) if dice.chance(0.6) else dice.between(4.5, 7.0)
    longest = math.sqrt(
        (FAR - 0.05) * (FAR - 0.05) - height * height - width * width
    )  # the diagonal stays within range
    depth = dice.between(3.0, 5.0) if dice.chance(0.6) else dice.between(4.5, 7.0)
    room = Room(kit, (width, round(min(depth, longest), 6), height))
    shell(kit, room.size)
    wall = dice.index(4)
    along = round(room.length(wall) * dice.between(0.2, 0.8), 6)
    door(kit, room.on_wall(wall, along, 0.02, 0.0))
    room.walls[wall].append((along - 0.55, 0.0, along + 0.55, 2.15))
    room.taken.append(footprint(room.on_wall(wall, along, 0.35, 0.0), 0.95, 0.7))
    {"bedroom": _bedroom, "living": _living, "study": _study, "dining": _dining}[
        dice.pick(("bedroom", "bedroom", "living", "living", "study", "dining"))
    ](room)
    _some(
        room,
        ("bookcase", "dresser", "tv", "chair", "armchair", "sideboard", "desk"),
        round(width * depth / 12) + dice.index(2),
    )
    for _ in range(1 + dice.index(2)):
        window = objects.hung(kit, "window", dice.between(0.9, 2.0), dice.between(1.0, 1.4))
        room.hang(window, dice.between(0.75, 0.95), 0.2)
    for _ in range(dice.index(3)):
        _people(room)
    for _ in range(2 + dice.index(5)):
        room.hang(
            objects.hung(kit, "picture", dice.between(0.35, 1.1), dice.between(0.35, 0.8)), dice.between(1.2, 1.55)
        )
    if dice.chance(0.45):
        room.hang(storage.wall_shelf(kit), dice.between(1.2, 1.5), under=0.4)
    if dice.chance(0.3):
        kind = dice.pick(("board", "mirror"))
        room.hang(objects.hung(kit, kind, dice.between(0.4, 1.2), dice.between(0.6, 0.9)), dice.between(0.95, 1.3))
    for _ in range(3 + dice.index(4)):
        kind = dice.pick(("plant", "lamp", "bin", "carton", "suitcase", "basket", "ball"))
        plan = objects.floor_thing(kit, kind)
        if dice.chance(0.6):
            room.against(plan, 6)
        else:
            room.standing(plan, 6)
    if dice.chance(0.6):
        drop = dice.between(0.1, height - 2.15)
        objects.ceiling_lamp(
            kit,
            Frame(
                round(width * dice.between(0.35, 0.65), 6), round(room.size[1] * dice.between(0.35, 0.65), 6), height
            ),
            drop,
        )
    return room


def _bedroom(room: Room) -> None:
    kit, dice = room.kit, room.kit.dice
    placed = room.against(furniture.bed(kit), 30)
    if placed:
        _beside(room, placed, storage.cabinet(kit, "nightstand"))
    wardrobe = room.against(storage.cabinet(kit, dice.pick(("wardrobe", "dresser"))))
    _load(room, wardrobe, 0.6, objects.SHELFTOP)
    _some(room, ("chair", "bookcase", "desk", "dresser", "tv"), 3)


def _living(room: Room) -> None:
    kit, dice = room.kit, room.kit.dice
    placed = room.against(furniture.sofa(kit), 30)
    if placed:
        _, wall, along = placed
        table = furniture.table(kit, "coffee")
        frame = room.on_wall(wall, along, 1.55 + table.depth / 2, 0.0)
        if room.stand(table, frame):
            _load(room, room.build(table, frame), 0.9)
    _some(room, ("tv", "armchair", "bookcase", "armchair", "sofa", "sideboard", "dining"), 4)
    if dice.chance(0.5):
        rug(kit, room.size)


def _study(room: Room) -> None:
    _some(room, ("desk", "bookcase", "desk", "bookcase", "armchair", "dresser", "sofa", "round"), 5)


def _dining(room: Room) -> None:
    _some(room, ("dining", "round"), 1)
    _some(room, ("sideboard", "bookcase", "tv", "armchair", "sofa", "dresser"), 4)


def _some(room: Room, kinds: tuple[str, ...], count: int) -> None:
    """Place ``count`` of the kinds, each only where it fits."""
    kit, dice = room.kit, room.kit.dice
    for kind in dice.shuffled(kinds)[:count]:
        if kind == "bookcase":
            _load(room, room.against(storage.bookcase(kit)), 0.6, objects.SHELFTOP)
        elif kind in ("dresser", "sideboard"):
            _load(room, room.against(storage.cabinet(kit, kind)), 0.8)
        elif kind == "tv":
            _television(room)
        elif kind == "sofa":
            room.against(furniture.sofa(kit))
        elif kind in ("chair", "armchair"):
            plan = furniture.chair(kit) if kind == "chair" else furniture.armchair(kit)
            if dice.chance(0.5):
                room.against(plan)
            else:
                room.standing(plan)
        elif kind == "desk":
            _desk(room)
        else:
            _table_with_chairs(room, kind)


def _table_with_chairs(room: Room, kind: str) -> None:
    kit, dice = room.kit, room.kit.dice
    table = furniture.table(kit, kind)
    for _ in range(16):
        frame = Frame(
            dice.between(1.0, room.size[0] - 1.0), dice.between(1.0, room.size[1] - 1.0), 0.0, *dice.pick(TURNS)
        )
        if room.stand(table, frame):
            break
    else:
        return
    _load(room, room.build(table, frame), 0.95)
    chosen = furniture.chair(kit)
    places = (
        [(x * table.width / 4, side) for x in (-1, 1) for side in (-1, 1)]
        if table.width > 1.3
        else [(0.0, -1), (0.0, 1)]
    )
    for x, side in places:
        pulled = dice.between(-0.08, 0.25)
        spot = frame.at(
            x, side * (table.depth / 2 + chosen.depth / 2 + 0.05 + pulled), 0.0, (-1.0, 0.0) if side > 0 else (1.0, 0.0)
        )
        if dice.chance(0.8) and room.stand(chosen, spot):
            room.build(chosen, spot, tucked=True)


def _desk(room: Room) -> None:
    kit, dice = room.kit, room.kit.dice
    placed = room.against(furniture.table(kit, "desk"))
    if not placed:
        return
    built, wall, along = placed
    top = built.tops[0]
    if dice.chance(0.75):
        room.walls[wall].append((along - 0.35, 0.7, along + 0.35, 1.3))
        room.build(
            storage.screen(kit, dice.between(0.45, 0.7), stand=True),
            top.frame.at(0, -0.12, 0, turn(dice.between(-0.2, 0.2))),
        )
        for side in (-1, 1):
            free = Spot(top.frame.at(side * (top.width / 4 + 0.19), 0, 0), top.width / 2 - 0.38, top.depth, 0.5)
            objects.put_on(kit, free, 1, objects.TABLETOP)
    else:
        objects.put_on(kit, top, 3, objects.TABLETOP)
    plan = furniture.chair(kit)
    frame = room.on_wall(
        wall, along - dice.between(0.15, 0.3), top.depth / 0.85 + 0.1 + plan.depth / 2 + dice.between(0.0, 0.2), 0.0
    )
    frame = frame.at(0, 0, 0, (-1.0, 0.0))
    if room.stand(plan, frame):
        room.build(plan, frame, tucked=True)


def _television(room: Room) -> None:
    kit, dice = room.kit, room.kit.dice
    if dice.chance(0.3):
        room.hang(storage.screen(kit, dice.between(0.8, 1.4), stand=False), dice.between(1.0, 1.3))
        return
    placed = room.against(storage.cabinet(kit, "sideboard"))
    if placed:
        built, wall, along = placed
        width = dice.between(0.75, 1.2)
        plan = storage.screen(kit, width, stand=True)
        frame = built.tops[0].frame
        room.walls[wall].append((along - width / 2, frame.z, along + width / 2, frame.z + plan.height))
        room.build(plan, frame)


def _beside(room: Room, placed: tuple[Built, int, float], plan: Plan) -> None:
    dice = room.kit.dice
    bed = room.taken[-1]
    _, wall, along = placed
    wide = (bed[2] - bed[0]) if wall % 2 == 0 else (bed[3] - bed[1])
    for side in dice.shuffled((-1, 1)):
        frame = room.on_wall(wall, along + side * (wide / 2 + plan.width / 2 + 0.08), plan.depth / 2 + 0.03, 0.0)
        if room.stand(plan, frame):
            _load(room, room.build(plan, frame), 0.9, ("lamp", "books", "cup", "clock"))
            return


def _load(
    room: Room, built: Built | tuple[Built, int, float] | None, chance: float, kinds: tuple[str, ...] = objects.TABLETOP
) -> None:
    """Put things on the surfaces of what was built."""
    if built is None:
        return
    dice = room.kit.dice
    for spot in (built[0] if isinstance(built, tuple) else built).tops:
        if dice.chance(chance):
            objects.put_on(room.kit, spot, 1 + dice.index(4), kinds)


def _people(room: Room) -> None:
    dice = room.kit.dice
    if room.seats and dice.chance(0.5):
        seat, tucked = room.seats.pop(dice.index(len(room.seats)))
        legs = footprint(seat.at(0, 0.6, 0), 0.45, 0.3)
        if tucked or room.free(legs, 0.0):
            room.taken.append(legs)
            room.groups.append(person(room.kit, seat, sitting=True).group)
            return
    for _ in range(10):
        frame = Frame(
            dice.between(0.5, room.size[0] - 0.5),
            dice.between(0.5, room.size[1] - 0.5),
            0.0,
            *turn(dice.between(-3.1, 3.1)),
        )
        rectangle = footprint(frame, 0.75, 0.7)
        if room.free(rectangle):
            room.taken.append(rectangle)
            room.groups.append(person(room.kit, frame, sitting=False).group)
            return
