"""People of the seven published parts, standing, walking or sitting."""

from __future__ import annotations

from tasktokens.datasets.rooms.furniture import Built
from tasktokens.datasets.rooms.kit import Frame, Kit, Material, Thing
from tasktokens.datasets.rooms.names import HUMAN_PARTS
from tasktokens.datasets.rooms.shapes import Point, turn

HEAD, TORSO, UPPER_ARM, LOWER_ARM, UPPER_LEG, LOWER_LEG = range(1, len(HUMAN_PARTS))


def person(kit: Kit, frame: Frame, sitting: bool) -> Built:
    """Build a person facing the frame's front, on the floor or (``sitting``) on a seat whose height is the frame's."""
    dice = kit.dice
    size = dice.between(1.5, 1.9)
    thing = kit.thing(frame, "person")
    tone = dice.between(0.12, 1.0)
    skin_colour = (0.62 * tone, 0.38 * tone, 0.26 * tone)
    skin = Material("plain", skin_colour, skin_colour)
    shirt, trousers, shoes = kit.soft(), kit.soft(), kit.plain()
    hips = 0.1 if sitting else 0.52 * size
    trunk = 0.3 * size  # from the hips to the shoulders
    stout = dice.between(0.9, 1.2)
    thing.ball(0, 0, hips + trunk * 0.32, (0.16 * stout, 0.115 * stout, trunk * 0.36), shirt, TORSO)
    thing.ball(0, 0, hips + trunk * 0.66, (0.18 * stout, 0.115 * stout, trunk * 0.46), shirt, TORSO)
    thing.limb((-0.075 * stout, -0.01, hips + 0.03), (0.075 * stout, -0.01, hips + 0.03), (0.1, 0.1), trousers, TORSO)
    thing.limb((-0.13, 0, hips + trunk * 0.97), (0.13, 0, hips + trunk * 0.97), (0.065, 0.065), shirt, TORSO)
    thing.limb((0, 0, hips + trunk), (0, 0.01, hips + trunk * 1.2), (0.055, 0.05), skin, TORSO)
    _head(kit, thing, hips + trunk * 1.2 + 0.1, skin)
    _legs(
        kit,
        thing,
        hips,
        size,
        sitting,
        trousers if dice.chance(0.85) else skin,
        trousers if dice.chance(0.8) else skin,
        shoes,
    )
    bare = dice.chance(0.5)
    for side in (-1, 1):
        _arm(
            kit,
            thing,
            side,
            (side * 0.195 * stout, 0.0, hips + trunk * 0.95),
            size,
            sitting,
            shirt,
            skin if bare else shirt,
            skin,
        )
    return Built(thing.number)


def _head(kit: Kit, thing: Thing, z: float, skin: Material) -> None:
    dice = kit.dice
    hair = dice.pick(
        ((0.01, 0.008, 0.006), (0.05, 0.025, 0.01), (0.3, 0.18, 0.06), (0.35, 0.35, 0.35), (0.15, 0.04, 0.01))
    )
    locks = Material("noise", hair, kit.shade(hair, 0.4, 0.8), 0.02, dice.bits())
    thing.ball(0, 0.01, z, (0.076, 0.095, 0.118), skin, HEAD)
    thing.ball(0, 0.105, z - 0.015, (0.014, 0.02, 0.022), skin, HEAD)
    if dice.chance(0.9):
        thing.ball(0, -0.022, z + 0.035, (0.086, 0.095, 0.1), locks, HEAD)
        if dice.chance(0.4):  # long hair
            thing.ball(0, -0.055, z - 0.06, (0.088, 0.06, 0.15), locks, HEAD)
    dark = Material("plain", (0.01, 0.01, 0.01), (0.01, 0.01, 0.01))
    for side in (-1, 1):
        thing.ball(side * 0.03, 0.094, z + 0.015, (0.012, 0.01, 0.008), dark, HEAD)


def _legs(
    kit: Kit, thing: Thing, hips: float, size: float, sitting: bool, upper: Material, lower: Material, shoes: Material
) -> None:
    dice = kit.dice
    thigh, shin = 0.245 * size, 0.245 * size
    stride = dice.between(0.0, 0.5) if dice.chance(0.4) else dice.between(0.0, 0.12)
    for side in (-1, 1):
        hip: Point = (side * 0.09, 0.0, hips - 0.02)
        if sitting:
            spread = dice.between(0.0, 0.1)
            knee: Point = (side * (0.1 + spread), thigh * 0.98 + 0.03, hips - 0.015)
            ankle: Point = (side * (0.1 + spread), knee[1] + dice.between(-0.08, 0.14), 0.0)
            ankle = (ankle[0], ankle[1], max(hips - 0.02 - shin, -thing.frame.z + 0.06))
        else:
            cos, sin = turn(side * stride)
            bend_cos, bend_sin = turn(side * stride - (stride * 0.9 if side < 0 else 0.05))
            knee = (side * 0.095, thigh * sin, hip[2] - thigh * cos)
            ankle = (side * 0.1, knee[1] + shin * bend_sin, knee[2] - shin * bend_cos)
            ankle = (ankle[0], ankle[1], max(ankle[2], 0.05))
        thing.limb(hip, knee, (0.088, 0.06), upper, UPPER_LEG)
        thing.limb(knee, ankle, (0.058, 0.042), lower, LOWER_LEG)
        thing.limb(
            (ankle[0], ankle[1] - 0.02, ankle[2] - 0.012),
            (ankle[0] + side * 0.03, ankle[1] + 0.15, ankle[2] - 0.018),
            (0.045, 0.035),
            shoes,
            LOWER_LEG,
        )


def _arm(
    kit: Kit,
    thing: Thing,
    side: int,
    shoulder: Point,
    size: float,
    sitting: bool,
    sleeve: Material,
    fore: Material,
    skin: Material,
) -> None:
    dice = kit.dice
    upper, lower = 0.17 * size, 0.15 * size
    # (swing to the front, spread to the side) of the upper arm, then of the lower arm, in radians from hanging down
    poses = (
        (0.1, 0.12, 0.3, 0.08),
        (0.15, 0.25, 1.4, -0.35),
        (0.0, 0.75, 0.3, -0.6),
        (0.5, 0.2, 1.7, 0.0),
        (0.2, 1.3, 0.2, 2.5),
    )
    front, spread, fore_front, fore_spread = dice.pick(poses[1:4:2] if sitting else poses)
    front, spread = front + dice.between(-0.15, 0.25), spread + dice.between(-0.05, 0.1)
    elbow = _reach(shoulder, upper, front, side * spread)
    hand = _reach(elbow, lower, fore_front + dice.between(-0.2, 0.2), side * fore_spread)
    further = _reach(hand, 0.07, fore_front, side * fore_spread)
    thing.limb(shoulder, elbow, (0.056, 0.044), sleeve, UPPER_ARM)
    thing.limb(elbow, hand, (0.043, 0.03), fore, LOWER_ARM)
    thing.limb(hand, further, (0.035, 0.032), skin, LOWER_ARM)


def _reach(start: Point, length: float, front: float, side: float) -> Point:
    front_cos, front_sin = turn(front)
    side_cos, side_sin = turn(side)
    return (
        round(start[0] + length * side_sin, 6),
        round(start[1] + length * front_sin * side_cos, 6),
        round(start[2] - length * front_cos * side_cos, 6),
    )
