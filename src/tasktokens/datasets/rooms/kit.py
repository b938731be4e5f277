"""What builders share: materials, frames to place parts in, and the list of pieces that a scene becomes."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, field

from tasktokens.datasets.rooms.dice import Dice
from tasktokens.datasets.rooms.names import ROOMS_CLASSES
from tasktokens.datasets.rooms.shapes import Ball, Box, Cone, Limb, Point, Shape

Colour = tuple[float, float, float]
PATTERNS = ("plain", "stripes", "checks", "wood", "noise", "spines", "image", "screen", "outdoors", "tiles", "blinds")
"""What a surface can look like, see `tasktokens.datasets.rooms.paint`."""


@dataclass(frozen=True)
class Material:
    """How a surface looks. Colours are linear reflectances 0..1, ``scale`` the size of the pattern in metres.

    Attributes:
        pattern: one of `PATTERNS`.
        first, second: colours of the pattern.
        scale: size of the pattern in metres.
        seed: of its noise.
        gloss: strength of highlights, 0 to 1.
        glow: light of its own, in units of reflected light.
    """

    pattern: str
    first: Colour
    second: Colour
    scale: float = 0.1
    seed: int = 0
    gloss: float = 0.0
    glow: float = 0.0


@dataclass(frozen=True)
class Piece:
    """One solid. ``thing``: its instance (edges); ``group``: the thing it belongs to (saliency); ``part``: human.

    Attributes:
        shape: a box, ball, limb or cone.
        material: of its surface.
        label: class id.
        thing: its instance, for edges.
        group: the thing it belongs to, for saliency.
        part: human part; 0: none.
        casts: whether it casts a shadow.
    """

    shape: Shape
    material: Material
    label: int
    thing: int
    group: int
    part: int = 0
    casts: bool = True


@dataclass(frozen=True)
class Frame:
    """A place to build in: x to the right and y to the front of the thing, z up; metres, turned by (cos, sin).

    Attributes:
        x, y, z: origin in metres.
        cos, sin: of the turn about the vertical.
    """

    x: float
    y: float
    z: float
    cos: float = 1.0
    sin: float = 0.0

    def point(self, x: float, y: float, z: float) -> Point:
        """Return a point of the frame in world axes."""
        return (
            round(self.x + x * self.cos - y * self.sin, 6),
            round(self.y + x * self.sin + y * self.cos, 6),
            round(self.z + z, 6),
        )

    def at(self, x: float, y: float, z: float, turn: tuple[float, float] = (1.0, 0.0)) -> Frame:
        """Return the frame at a point of this one, turned further by (cos, sin)."""
        cos, sin = turn
        return Frame(
            *self.point(x, y, z), round(self.cos * cos - self.sin * sin, 6), round(self.cos * sin + self.sin * cos, 6)
        )


@dataclass
class Thing:
    """An instance under construction; every method adds one solid.

    Attributes:
        kit: where its pieces go.
        frame: where it stands.
        label: class id of its pieces.
        number: its instance.
        group: the thing it belongs to.
    """

    kit: Kit
    frame: Frame
    label: int
    number: int
    group: int

    def box(self, x: float, y: float, z: float, size: Point, material: Material, casts: bool = True) -> None:
        """Add a box: centre x, y, lower side z, size (width, depth, height)."""
        centre = self.frame.point(x, y, z + size[2] / 2)
        half = (round(size[0] / 2, 6), round(size[1] / 2, 6), round(size[2] / 2, 6))
        self._add(Box(centre, half, self.frame.cos, self.frame.sin), material, 0, casts)

    def ball(
        self, x: float, y: float, z: float, radii: Point, material: Material, part: int = 0, casts: bool = True
    ) -> None:
        """Add an ellipsoid by its centre and radii."""
        radii = (round(radii[0], 6), round(radii[1], 6), round(radii[2], 6))
        box = Box(self.frame.point(x, y, z), radii, self.frame.cos, self.frame.sin)
        self._add(Ball(box), material, part, casts)

    def limb(
        self,
        start: Point,
        end: Point,
        radii: tuple[float, float],
        material: Material,
        part: int = 0,
        casts: bool = True,
    ) -> None:
        """Add a round-ended cone between two points with two radii."""
        shape = Limb(self.frame.point(*start), self.frame.point(*end), round(radii[0], 6), round(radii[1], 6))
        self._add(shape, material, part, casts)

    def cone(
        self,
        x: float,
        y: float,
        z: float,
        height: float,
        radii: tuple[float, float],
        material: Material,
        casts: bool = True,
    ) -> None:
        """Add an upright cylinder or cut cone on x, y, z with its lower and upper radius."""
        shape = Cone(self.frame.point(x, y, z), round(height, 6), round(radii[0], 6), round(radii[1], 6))
        self._add(shape, material, 0, casts)

    def _add(self, shape: Shape, material: Material, part: int, casts: bool) -> None:
        self.kit.pieces.append(Piece(shape, material, self.label, self.number, self.group, part, casts))


@dataclass
class Kit:
    """The pieces of a scene so far; instance 0 is the room itself.

    Attributes:
        dice: source of all random choices.
        pieces: in the order in which they were added.
        things: number of instances.
    """

    dice: Dice
    pieces: list[Piece] = field(default_factory=list)
    things: int = 0

    def thing(self, frame: Frame, label: str, group: int | None = None) -> Thing:
        """Begin an instance of a class; it belongs to ``group`` (another instance's number) or to itself."""
        self.things += 1
        return Thing(self, frame, ROOMS_CLASSES.index(label), self.things, self.things if group is None else group)

    def colour(self) -> Colour:
        """Draw a colour from the one broad distribution that all classes share."""
        dice = self.dice
        if dice.chance(0.5):  # browns, beiges and greys, of which rooms are full
            hue, saturation, value = dice.between(0.05, 0.14), dice.between(0.0, 0.6), dice.between(0.15, 0.95)
        else:
            hue, saturation, value = dice.unit(), dice.unit() * dice.unit() * 0.9, dice.between(0.12, 0.95)
        red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
        return red**2.0, green**2.0, blue**2.0

    def shade(self, colour: Colour, low: float = 0.55, high: float = 0.9) -> Colour:
        """Return a darker colour of the same hue."""
        factor = self.dice.between(low, high)
        return colour[0] * factor, colour[1] * factor, colour[2] * factor

    def plain(self, gloss: float = 0.0) -> Material:
        """Draw a surface without a pattern."""
        colour = self.colour()
        return Material("plain", colour, colour, gloss=gloss)

    def metal(self) -> Material:
        """Draw a grey glossy surface, light or dark."""
        grey = self.dice.pick((0.03, 0.1, 0.3, 0.5))
        return Material("plain", (grey, grey, grey), (grey, grey, grey), gloss=0.5)

    def hard(self) -> Material:
        """Draw wood, lacquer or another hard surface."""
        dice, first = self.dice, self.colour()
        if dice.chance(0.5):
            return Material("wood", first, self.shade(first, 0.4, 0.85), dice.between(0.04, 0.12), dice.bits(), 0.15)
        if dice.chance(0.3):
            return Material("noise", first, self.shade(first, 0.6, 0.9), dice.between(0.02, 0.2), dice.bits(), 0.1)
        return Material("plain", first, first, gloss=dice.between(0.0, 0.4))

    def soft(self) -> Material:
        """Draw a cloth: plain, striped, checked or mottled."""
        dice, first = self.dice, self.colour()
        second = self.colour() if dice.chance(0.4) else self.shade(first, 0.5, 0.9)
        pattern = dice.pick(("plain", "noise", "stripes", "checks", "noise"))
        return Material(pattern, first, second, dice.between(0.04, 0.25), dice.bits())

    def any(self) -> Material:
        """Draw any of the surfaces above."""
        return self.hard() if self.dice.chance(0.5) else self.soft()

    def spines(self) -> Material:
        """Draw a row of book spines."""
        return Material("spines", self.colour(), self.colour(), self.dice.between(0.022, 0.045), self.dice.bits())
