"""Rooms: an embedded data set of rendered indoor scenes with exact labels of six tasks, of any size, from a seed."""

from tasktokens.datasets.rooms.dataset import rooms_folder, write_rooms
from tasktokens.datasets.rooms.names import HUMAN_PARTS, RENDER_VERSION, ROOMS_CLASSES, ROOMS_FOCAL
from tasktokens.datasets.rooms.render import render_room

__all__ = [
    "HUMAN_PARTS",
    "RENDER_VERSION",
    "ROOMS_CLASSES",
    "ROOMS_FOCAL",
    "render_room",
    "rooms_folder",
    "write_rooms",
]
