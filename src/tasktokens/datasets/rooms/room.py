"""A room under construction: what floor and wall is taken, and finding free places on both."""

from __future__ import annotations

from dataclasses import dataclass, field

from tasktokens.datasets.rooms.furniture import Built, Plan
from tasktokens.datasets.rooms.kit import Frame, Kit
from tasktokens.datasets.rooms.shapes import Point, turn

TURNS = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))
"""Cosine and sine of what faces the room from the walls y = 0, x = width, y = depth and x = 0."""

Rectangle = tuple[float, float, float, float]
"""Least x and y, largest x and y, in metres."""


@dataclass
class Room:
    """A room under construction; (0, 0, 0) is a corner of its floor, ``size`` its width, depth and height in metres.

    Attributes:
        kit: where pieces go.
        size: width, depth and height in metres.
        taken: occupied rectangles of the floor.
        walls: occupied rectangles of each wall, in the order of `TURNS`.
        groups: instances that may be what a picture is about.
        seats: where people can sit, and whether their legs go under a table.
    """

    kit: Kit
    size: Point
    taken: list[Rectangle] = field(default_factory=list)
    walls: list[list[Rectangle]] = field(default_factory=lambda: [[], [], [], []])
    groups: list[int] = field(default_factory=list)
    seats: list[tuple[Frame, bool]] = field(default_factory=list)  # and whether the legs go under a table

    def free(self, rectangle: Rectangle, gap: float = 0.04) -> bool:
        """Return whether a piece of floor (x0, y0, x1, y1) lies in the room and nothing stands on it."""
        x0, y0, x1, y1 = rectangle
        if x0 < 0 or y0 < 0 or x1 > self.size[0] or y1 > self.size[1]:
            return False
        return all(x0 > b2 + gap or x1 < b0 - gap or y0 > b3 + gap or y1 < b1 - gap for b0, b1, b2, b3 in self.taken)

    def build(self, plan: Plan, frame: Frame, tucked: bool = False) -> Built:
        """Build a plan and remember what it offers; ``tucked``: its seats face a table."""
        built = plan.build(frame)
        self.groups.append(built.group)
        self.seats.extend((seat, tucked) for seat in built.seats)
        return built

    def length(self, wall: int) -> float:
        """Return how long a wall is, metres."""
        return self.size[wall % 2]

    def on_wall(self, wall: int, along: float, out: float, up: float) -> Frame:
        """Return the frame ``along`` a wall from its left end, ``out`` from it and ``up``, facing into the room."""
        width, depth, _ = self.size
        x, y = ((along, out), (width - out, along), (width - along, depth - out), (out, depth - along))[wall]
        return Frame(round(x, 6), round(y, 6), round(up, 6), *TURNS[wall])

    def against(self, plan: Plan, tries: int = 14) -> tuple[Built, int, float] | None:
        """Stand a plan at a free stretch of a wall; returns it with the wall and the place along it."""
        dice = self.kit.dice
        for _ in range(tries):
            wall = dice.index(4)
            span = self.length(wall) - plan.width
            if span < 0:
                continue
            along = round(plan.width / 2 + dice.unit() * span, 6)
            frame = self.on_wall(wall, along, plan.depth / 2 + 0.03, 0.0)
            rectangle = footprint(frame, plan.width, plan.depth)
            if self.free(rectangle) and self.clear(wall, along, plan.width, 0.0, plan.height):
                self.taken.append(rectangle)
                self.walls[wall].append((along - plan.width / 2, 0.0, along + plan.width / 2, plan.height))
                return self.build(plan, frame), wall, along
        return None

    def standing(self, plan: Plan, tries: int = 12) -> Built | None:
        """Stand a plan anywhere on free floor, turned as it likes."""
        dice = self.kit.dice
        for _ in range(tries):
            cos, sin = TURNS[dice.index(4)] if dice.chance(0.5) else turn(dice.between(-3.1, 3.1))
            x, y = dice.between(0.3, self.size[0] - 0.3), dice.between(0.3, self.size[1] - 0.3)
            frame = Frame(x, y, 0.0, cos, sin)
            if self.stand(plan, frame):
                return self.build(plan, frame)
        return None

    def stand(self, plan: Plan, frame: Frame) -> bool:
        """Take the floor under a plan if it is free."""
        rectangle = footprint(frame, plan.width, plan.depth)
        if not self.free(rectangle):
            return False
        self.taken.append(rectangle)
        return True

    def clear(self, wall: int, along: float, width: float, low: float, high: float) -> bool:
        """Return whether a stretch of a wall is bare between two heights."""
        left, right = along - width / 2, along + width / 2
        if left < 0.05 or right > self.length(wall) - 0.05 or high > self.size[2] - 0.05:
            return False
        return all(
            left > b[2] + 0.05 or right < b[0] - 0.05 or low > b[3] + 0.03 or high < b[1] - 0.03
            for b in self.walls[wall]
        )

    def hang(self, plan: Plan, low: float, margin: float = 0.0, under: float = 0.06) -> Built | None:
        """Hang a plan with its lower side at ``low`` where a wall is bare, ``margin`` around and ``under`` below it."""
        dice = self.kit.dice
        for _ in range(12):
            wall = dice.index(4)
            along = dice.between(0.0, self.length(wall))
            if self.clear(wall, along, plan.width + 2 * margin, low - under, low + plan.height + margin):
                self.walls[wall].append(
                    (
                        along - plan.width / 2 - margin,
                        low - under,
                        along + plan.width / 2 + margin,
                        low + plan.height + margin,
                    )
                )
                return self.build(plan, self.on_wall(wall, along, plan.depth / 2, low))
        return None


def footprint(frame: Frame, width: float, depth: float) -> Rectangle:
    """Return the upright rectangle around a turned one."""
    reach_x = (abs(frame.cos) * width + abs(frame.sin) * depth) / 2
    reach_y = (abs(frame.sin) * width + abs(frame.cos) * depth) / 2
    return frame.x - reach_x, frame.y - reach_y, frame.x + reach_x, frame.y + reach_y
