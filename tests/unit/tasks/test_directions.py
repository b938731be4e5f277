"""Frames of normals: all 48 orders of the axes, on rooms that NumPy ray-casts."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasktokens.datasets.folder import open_folder
from tasktokens.inspection.infer import infer_folder
from tasktokens.inspection.survey import check
from tasktokens.tasks.directions import Frame, composed, frames

HEIGHT, WIDTH = 48, 64


def room_normals(yaw: float, pitch: float, focal: float = 0.85) -> np.ndarray:
    """(H, W, 3) normals of the walls of an empty box room, seen from inside: x right, y down, z forward."""
    v, u = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    rays = np.stack([(u - WIDTH / 2) / (focal * WIDTH), (v - HEIGHT / 2) / (focal * WIDTH), np.ones_like(u)], -1)
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    tilt = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    world = rays @ (turn @ tilt).T
    low, high = np.array([-2.0, -1.2, -1.5]), np.array([1.5, 1.4, 3.0])
    distance = np.where(world > 0, high, low) / np.where(world == 0, 1e-9, world)
    wall = distance.argmin(-1)
    normals = -np.sign(np.take_along_axis(world, wall[..., None], -1)) * np.eye(3)[wall]
    return normals @ (turn @ tilt)


SCENES = [room_normals(yaw, pitch) for yaw in (-2.1, -0.9, -0.4, 0.35, 0.8, 1.9) for pitch in (-0.1, -0.3)]
ALL = [tuple(s + a for s, a in zip(signs, axes, strict=True))
       for axes in permutations("xyz") for signs in product(("", "-"), repeat=3)]  # fmt: skip


def stored_in(frame: Frame, normals: np.ndarray) -> np.ndarray:
    """Channels that hold the named axes of our frame."""
    return np.stack([(-1 if name[0] == "-" else 1) * normals[..., "xyz".index(name[-1])] for name in frame], -1)


def write(root: Path, frame: Frame, declared: str = "") -> Path:
    for name in ("images", "normals"):
        (root / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i, normals in enumerate(SCENES):
        Image.fromarray(rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(root / "images" / f"{i}.png")
        colours = np.rint((stored_in(frame, normals) + 1) * 127.5).astype(np.uint8)
        Image.fromarray(colours).save(root / "normals" / f"{i}.png")
    if declared:
        (root / "dataset.yaml").write_text(f"tasks: {{normals: {{kind: normals, frame: {declared}}}}}\n")
    return root


def listed(frame: Frame) -> str:
    return f"[{', '.join(frame)}]"


@pytest.mark.parametrize("frame", ALL, ids=listed)
def test_every_order_of_the_axes_is_found_and_repaired(frame: Frame, tmp_path: Path) -> None:
    root = write(tmp_path, frame, "[x, y, z]")
    share = np.mean([(stored_in(frame, normals)[..., 2] < 0).mean() for normals in SCENES])
    found = [each for each in check(open_folder(root), workers=1).findings if each.code == "normals-frame"]
    if frame == ("x", "y", "z"):
        assert not found
        return
    assert [each.severity for each in found] == ["error" if share < 0.9 else "warning"]
    assert f"set the task's frame: {listed(frame)}" in found[0].message
    (root / "dataset.yaml").write_text(f"tasks: {{normals: {{kind: normals, frame: {listed(frame)}}}}}\n")
    assert not [each for each in check(open_folder(root), workers=1).findings if each.code == "normals-frame"]
    # What `init` writes is the same.
    assert infer_folder(root).tasks[0].spec.get("frame", ["x", "y", "z"]) == list(frame)


@pytest.mark.parametrize("declared", [("x", "-y", "-z"), ("z", "x", "y"), ("-y", "z", "x")], ids=listed)
def test_the_repair_goes_beyond_a_declared_frame(declared: Frame, tmp_path: Path) -> None:
    root = write(tmp_path, ("y", "-z", "x"), listed(declared))
    [found] = [each for each in check(open_folder(root), workers=1).findings if each.code == "normals-frame"]
    assert "set the task's frame: [y, -z, x]" in found.message


def test_frames_are_all_48_ours_first() -> None:
    assert frames()[0] == ("x", "y", "z")
    assert sorted(frames()) == sorted(ALL)
    assert all(composed(frame, ("x", "y", "z")) == frame for frame in frames())


def test_normals_of_the_world_are_repaired_by_no_order(tmp_path: Path) -> None:
    root = write(tmp_path, ("x", "y", "z"), "[x, y, z]")
    rng = np.random.default_rng(1)
    for path in (root / "normals").iterdir():
        vectors = rng.normal(size=(HEIGHT, WIDTH, 3))
        vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
        Image.fromarray(np.rint((vectors + 1) * 127.5).astype(np.uint8)).save(path)
    [found] = [each for each in check(open_folder(root), workers=1).findings if each.code == "normals-frame"]
    assert found.severity == "error"
    assert "no order of the axes" in found.message
