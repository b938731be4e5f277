"""Statistics of unit vectors for `tasktokens check`: their length, and whether surface normals face the camera.

A visible surface faces the camera: the dot product of its normal and the viewing ray is negative. This holds for the
right order of axes and for hardly any other, so it reveals a wrong order and its correction.
"""

from __future__ import annotations

from functools import cache
from itertools import permutations, product

import numpy as np

from tasktokens.tasks.examine import Array, Bar, Summary, Sums, Suspicion, one_sided

Frame = tuple[str, str, str]
"""What the three channels of a file are in our axes, see `tasktokens.tasks.Normals`."""

OURS: Frame = ("x", "y", "z")
"""The frame of normals in memory: x right, y down, z forward."""

FACING_SHARE = 0.9
"""Least share of a data set's normals that must face the camera, as for NYU Depth v2: elsewhere up to 0.89 do."""
_SAMPLES = 4096
"""Pixels per label that are examined; a sample is enough."""


@cache
def frames() -> tuple[Frame, ...]:
    """The 48 orders of the axes with their signs, ours first."""
    orders = product(permutations("xyz"), product(("", "-"), repeat=3))
    return tuple((s[0] + a[0], s[1] + a[1], s[2] + a[2]) for a, s in orders)


def facing_shares(vectors_3HW: Array, valid_HW: Array) -> Array:
    """Share (48,) of the vectors that would face the camera if the components were in each of `frames`; NaN for none.

    The camera is taken to look along the picture's centre, with a focal length of the picture's longer side (53
    degrees), which hardly matters: other lenses tilt only the outer rays.
    """
    vectors, rays = _sample(vectors_3HW, valid_HW)
    if not vectors.shape[1]:
        return np.full(len(frames()), np.nan)
    products = rays[:, None] * vectors  # (axis, component, N)
    shares = []
    for frame in frames():
        dots = sum((-1 if name[0] == "-" else 1) * products["xyz".index(name[-1]), component]
                   for component, name in enumerate(frame))  # fmt: skip
        shares.append(float((np.asarray(dots) < 0).mean()))
    return np.array(shares)


def _sample(vectors_3HW: Array, valid_HW: Array) -> tuple[Array, Array]:
    """Valid vectors and their viewing rays, (3, N) each."""
    height, width = valid_HW.shape
    rows, columns = np.nonzero(valid_HW)
    step = max(1, len(rows) // _SAMPLES)
    rows, columns = rows[::step], columns[::step]
    focal = max(height, width)
    rays = [(columns + 0.5 - width / 2) / focal, (rows + 0.5 - height / 2) / focal, np.ones(len(rows))]
    return vectors_3HW[:, rows, columns].astype(np.float64), np.stack(rays)


def composed(declared: Frame, repair: Frame) -> Frame:
    """The frame of the files, where what was read under ``declared`` turned out to have the axes of ``repair``."""
    names = []
    for name in declared:
        axis = repair["xyz".index(name[-1])]
        names.append(("-" if (name[0] == "-") != (axis[0] == "-") else "") + axis[-1])
    return names[0], names[1], names[2]


def direction_sums(value_3HW: Array, valid_HW: Array) -> dict[str, Array]:
    """Sums of a label: the vectors, the axis that each is nearest to, their y in the upper and lower third of the
    picture, and the share that faces the camera in each of `frames`, and by the sign of z alone."""
    facing, some = facing_shares(value_3HW, valid_HW), bool(valid_HW.any())
    towards = float((value_3HW[2][valid_HW] < 0).mean()) if some else 0.0
    value_3HW, valid_HW = value_3HW[:, ::2, ::2], valid_HW[::2, ::2]  # a quarter of the pixels says as much
    vectors = value_3HW[:, valid_HW].astype(np.float64)
    axis = np.abs(vectors).argmax(axis=0)
    negative = vectors[axis, np.arange(vectors.shape[1])] < 0
    third = valid_HW.shape[0] // 3
    upper, lower = valid_HW[:third], valid_HW[valid_HW.shape[0] - third :]
    y = value_3HW[1].astype(np.float64)
    return {
        "sum": vectors.sum(axis=1),
        "axes": np.bincount(axis * 2 + negative, minlength=6),
        "facing": np.nan_to_num(np.array([*facing, towards, int(some)])),
        "thirds": np.array([y[:third][upper].sum(), upper.sum(), y[len(y) - third :][lower].sum(), lower.sum()]),
    }


def length_sums(array_HW3: Array, void_HW: Array) -> dict[str, Array]:
    """How many stored vectors have length 1 (within a tenth), and another length; what stands for void counts not."""
    array_HW3, void_HW = array_HW3[::2, ::2], void_HW[::2, ::2]
    if array_HW3.dtype == np.uint8:
        length = np.sqrt(((array_HW3.astype(np.float32) / 127.5 - 1) ** 2).sum(-1))
        # Grey, black and white are customary for void.
        void = void_HW | (length < 0.1) | (array_HW3 == 0).all(-1) | (array_HW3 == 255).all(-1)
    else:
        length = np.sqrt((array_HW3.astype(np.float64) ** 2).sum(-1))
        void = void_HW | ~np.isfinite(length) | (length < 1e-3)
    near = np.abs(length - 1) <= 0.1
    usable = array_HW3[~void]
    from_0_to_1 = array_HW3.dtype.kind == "f" and usable.size > 0 and usable.min() >= 0 and usable.max() <= 1
    return {
        "lengths": np.array([(near & ~void).sum(), (~near & ~void).sum()]),
        "from 0 to 1": np.array([int(from_0_to_1), 1]),
    }


def summarise_directions(sums: Sums, frame: Frame | None = None) -> Summary:
    """Mean direction, share of each axis, length; of surface normals also whether their frame is right.

    Args:
        sums: of `direction_sums` and `length_sums`.
        frame: what the files are declared to hold, for surface normals; None: vectors of any direction.
    """
    total = int(sums["axes"].sum())
    if not total:
        return Summary()
    mean = sums["sum"] / total
    numbers = {f"mean {name}": float(v) for name, v in zip("xyz", mean, strict=True)}
    names = ("+x", "−x", "+y", "−y", "+z", "−z")
    ours = ("right", "left", "down", "up", "away", "to the camera")
    labels = list(names) if frame is None else [f"{a} {b}" for a, b in zip(names, ours, strict=True)]
    bars = tuple(Bar(label, float(n / total)) for label, n in zip(labels, sums["axes"], strict=True))
    found = []
    if "from 0 to 1" in sums and sums["from 0 to 1"][0] == sums["from 0 to 1"][1] and sums["lengths"][1]:
        text = (
            "all components are from 0 to 1 and the vectors are not of length 1: the files seem to hold (n + 1) / 2; "
            "expected unit vectors with components from -1 to 1: convert the values v to n = 2 v - 1"
        )
        return Summary(numbers, bars, (Suspicion("error", "normals-0-to-1", text),))
    if "lengths" in sums and sums["lengths"].sum():
        other_length = float(sums["lengths"][1] / sums["lengths"].sum())
        numbers["not of unit length"] = other_length
        if other_length > 0.01:
            text = (
                f"{other_length:.1%} of the stored vectors are not of length 1 (within a tenth); expected unit "
                f"vectors, in 8 bits n = 2 v / 255 - 1: check the encoding, and normalise them"
            )
            found.append(Suspicion("error" if other_length > 0.2 else "warning", "not-unit-length", text))
    upper, lower = sums["thirds"][0] / max(sums["thirds"][1], 1), sums["thirds"][2] / max(sums["thirds"][3], 1)
    numbers |= {"mean y, upper third": float(upper), "mean y, lower third": float(lower)}
    if frame is not None:
        numbers["facing the camera"] = float(sums["facing"][0] / sums["facing"][-1])
        found += judge_frame(sums["facing"], frame, float(upper), float(lower))
    if np.linalg.norm(mean) > 1 - 1e-6:
        found.append(one_sided("the same vector"))
    return Summary(numbers, bars, tuple(found))


def judge_frame(facing: Array, declared: Frame, upper: float, lower: float) -> list[Suspicion]:
    """An error where less than nine in ten normals face the camera; a warning where another frame fits better.

    Args:
        facing: the sums over files of the shares in `frames`, of the share whose z is negative, and of files.
        declared: the frame of the files.
        upper, lower: mean y in the upper and lower third of the pictures, as read.
    """
    shares = facing[: len(frames())] / facing[-1]
    facing_share = max(float(shares[0]), float(facing[-2] / facing[-1]))
    best = int(shares.argmax())
    order = composed(declared, frames()[best])
    repair = f"set the task's frame: [{', '.join(order)}]"
    if facing_share < FACING_SHARE:
        text = f"only {facing_share:.0%} of the normals face the camera, as the surfaces in a picture do"
        if shares[best] < FACING_SHARE:
            text += f", and no order of the axes has {FACING_SHARE:.0%}: are they in the world's axes? convert them"
        else:
            text += f"; {shares[best]:.0%} would if the channels were other axes: {repair}"
        return [Suspicion("error", "normals-frame", text)]
    if shares[best] > shares[0] + _MARGIN:
        text = f"{shares[0]:.1%} of the normals face the camera, and {shares[best]:.1%} in another order: {repair}?"
        return [Suspicion("warning", "normals-frame", text)]
    if lower > 0.2 and lower > upper + 0.2:
        text = (
            f"the mean y is {lower:+.2f} in the lower third of the pictures and {upper:+.2f} in the upper: y seems "
            f"to point up; expected y down, so that floors have y near -1: set the task's frame, or negate y"
        )
        return [Suspicion("warning", "normals-frame", text)]
    return []


_MARGIN = 0.01
"""How much better another order of the axes must fit to be named."""
