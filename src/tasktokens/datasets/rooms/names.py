"""What the labels mean."""

from __future__ import annotations

ROOMS_CLASSES: tuple[str, ...] = (
    "bed", "books", "ceiling", "chair", "floor", "furniture", "objects", "picture", "sofa", "table", "tv", "wall",
    "window", "person",
)  # fmt: skip
"""The 13 classes of NYU (doors are wall, rugs floor, curtains window, lamps and pillows objects) and a 14th, person."""

HUMAN_PARTS: tuple[str, ...] = ("background", "head", "torso", "upper arm", "lower arm", "upper leg", "lower leg")
"""The 7 published human parts."""

RENDER_VERSION = 1
"""Raised whenever any pixel of any scene changes; part of the cache folder's name."""

ROOMS_FOCAL = 519.0 / 640.0
"""Focal length of every camera in image widths (the Kinect's); square pixels, principal point in the middle."""

SPLITS: tuple[str, ...] = ("train", "val", "test")
"""The splits; each draws from its own stream, so that they never share a scene."""

NEAR, FAR = 0.5, 10.0
"""All z-depths lie between these, in metres."""
