"""Tiny copies of NYU Depth v2 in the exact layouts of its distributions, written with numpy, Pillow, scipy and h5py.

    python tests/fakes/nyud.py OUT      # OUT/mtan, OUT/atrc, OUT/official, OUT/compact

Every picture is the corner of a room seen by the published camera: a floor 1.2 m below it, a wall on the left 1.5 m
away and a wall in front, so that depth and normals are known exactly at every pixel.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]

WALL, FLOOR, WINDOW = 1, 2, 9
"""Of the 40 classes, counted from 1: the front wall, the floor, and what the left wall is said to be."""
NAMES = ("book", "wall", "floor", "window", "curtain rod")
"""Names of the labels of the official fake, in order, in place of 894."""
NAMES_TO_FORTY = (23, 1, 2, 9, 40)


class Picture(NamedTuple):
    """image (H, W, 3) uint8; depth (H, W) metres; normals (H, W, 3): x right, y down, z forward; forty (H, W) 0..40."""

    image: Array
    depth: Array
    normals: Array
    forty: Array


def draw(seed: int, height: int, width: int) -> Picture:
    """A room whose front wall is 2 to 4 metres away; some pixels are unlabelled."""
    rng = np.random.default_rng(seed)
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    scale_x, scale_y = width / 640, height / 480
    ray_x = (u - ((325.582 + 0.5) * scale_x - 0.5)) / (518.858 * scale_x)
    ray_y = (v - ((253.736 + 0.5) * scale_y - 0.5)) / (519.470 * scale_y)
    front = np.full((height, width), rng.uniform(2, 4))
    floor = np.where(ray_y > 0.01, 1.2 / np.maximum(ray_y, 0.01), np.inf)
    left = np.where(ray_x < -0.01, 1.5 / np.maximum(-ray_x, 0.01), np.inf)
    surfaces = np.stack([front, floor, left])
    nearest = surfaces.argmin(axis=0)
    forty = np.array([WALL, FLOOR, WINDOW], np.uint8)[nearest]
    forty[:3] = 0
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    normals = np.array([[0, 0, -1], [0, -1, 0], [1, 0, 0]], np.float64)[nearest]
    return Picture(image, surfaces.min(axis=0), normals, forty)


def published_frame(normals: Array) -> Array:
    """Normals (H, W, 3) of our frame as the publishers store them: (x, z, -y)."""
    return np.stack([normals[..., 0], normals[..., 2], -normals[..., 1]], axis=-1)


THIRTEEN = {0: -1, WALL: 11, FLOOR: 4, WINDOW: 12}
"""The 13 classes, counted from 0, of the classes that are drawn; -1 = void."""


def write_mtan(root: Path, train: int = 11, val: int = 2, height: int = 36, width: int = 48) -> Path:
    """``{train,val}/{image,label,depth,normal}/{i}.npy``; the dtypes vary from file to file as in the genuine copy."""
    for split, count in (("train", train), ("val", val)):
        for i in range(count):
            picture = draw(i + (100 if split == "val" else 0), height, width)
            depth = picture.depth[..., None].astype(np.float32 if i % 2 else np.float64)
            depth[0, 0], depth[0, 1] = 0, np.nan
            normal = published_frame(picture.normals)
            normal[-2:] = 0
            label = np.vectorize(THIRTEEN.get)(picture.forty)
            arrays = {
                "image": (picture.image / 255).astype(np.float32 if i % 2 else np.float64),
                "label": label.astype(np.int64 if i % 2 else np.float32),
                "depth": depth,
                "normal": normal.astype(np.float32),
            }
            for name, array in arrays.items():
                (root / split / name).mkdir(parents=True, exist_ok=True)
                np.save(root / split / name / f"{i}.npy", array)
    return root


def write_atrc(
    root: Path, train: int = 3, val: int = 2, height: int = 34, width: int = 44, later: bool = False
) -> Path:
    """``images, segmentation, depth, normals, edge, gt_sets``; the later release has JPEG images and more npy."""
    for name in ("images", "segmentation", "depth", "normals", "edge", "gt_sets"):
        (root / name).mkdir(parents=True, exist_ok=True)
    ids = [str(7 + 3 * i) for i in range(train + val)]
    for id in ids:
        picture = draw(int(id), height, width)
        edge = np.zeros((height, width), np.uint8)
        edge[:, 1:] = picture.forty[:, 1:] != picture.forty[:, :-1]
        normals = published_frame(picture.normals)
        normals[:, -2:] = 0
        Image.fromarray(picture.image).save(root / "images" / f"{id}.{'jpg' if later else 'png'}")
        Image.fromarray(picture.forty).save(root / "segmentation" / f"{id}.png")
        np.save(root / "depth" / f"{id}.npy", picture.depth.astype(np.float32))
        if later:
            np.save(root / "normals" / f"{id}.npy", normals.astype(np.float32))
            np.save(root / "edge" / f"{id}.npy", edge)
        else:
            Image.fromarray(np.rint((normals + 1) * 127.5).astype(np.uint8)).save(root / "normals" / f"{id}.png")
            Image.fromarray(edge * np.uint8(255)).save(root / "edge" / f"{id}.png")
    (root / "gt_sets" / "train.txt").write_text("\n".join(ids[:train]) + "\n")
    (root / "gt_sets" / "val.txt").write_text("\n".join(ids[train:]) + "\n")
    return root


def write_compact(root: Path, train: int = 3, val: int = 2, height: int = 72, width: int = 96) -> Path:
    """``image, depth, semseg40, train.txt, test.txt`` with 8-bit depth."""
    for name in ("image", "depth", "semseg40"):
        (root / name).mkdir(parents=True, exist_ok=True)
    ids = [f"{1 + 2 * i:04d}" for i in range(train + val)]
    for id in ids:
        picture = draw(int(id), height, width)
        Image.fromarray(picture.image).save(root / "image" / f"{id}.jpg", quality=92)
        Image.fromarray(np.floor(picture.depth * 25.5).astype(np.uint8)).save(root / "depth" / f"{id}.png")
        Image.fromarray(picture.forty).save(root / "semseg40" / f"{id}.png")
    (root / "train.txt").write_text("\n".join(ids[:train]) + "\n")
    (root / "test.txt").write_text("\n".join(ids[train:]) + "\n")
    return root


def write_official(root: Path, count: int = 5, height: int = 120, width: int = 160) -> Path:
    """``nyu_depth_v2_labeled.mat`` (axes reversed, as MATLAB's HDF5 comes), ``splits.mat``, ``classMapping40.mat``."""
    import h5py
    from scipy.io import savemat

    root.mkdir(parents=True, exist_ok=True)
    pictures = [draw(index, height, width) for index in range(1, count + 1)]
    own_class = {0: 0, WALL: 2, FLOOR: 3, WINDOW: 4}  # position in NAMES, counted from 1
    labels = [np.vectorize(own_class.get)(picture.forty) for picture in pictures]
    labels[0][-1, -1] = 5  # a curtain rod: otherprop, objects
    depths = np.stack([picture.depth.T for picture in pictures]).astype(np.float32)
    depths[0, 0, 0] = 0
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"] = np.stack([picture.image.transpose(2, 1, 0) for picture in pictures])
        file["depths"] = depths
        file["labels"] = np.stack([label.T for label in labels]).astype(np.uint16)
        cells = np.empty((1, len(NAMES)), h5py.ref_dtype)
        for i, name in enumerate(NAMES):
            file[f"#refs#/{i}"] = np.array([[ord(letter)] for letter in name], np.uint16)
            cells[0, i] = file[f"#refs#/{i}"].ref
        file.create_dataset("names", data=cells, dtype=h5py.ref_dtype)
    train = [index for index in range(1, count + 1) if index % 2]
    test = [index for index in range(1, count + 1) if not index % 2]
    splits = {"trainNdxs": np.array([train], np.uint16).T, "testNdxs": np.array([test], np.uint16).T}
    savemat(root / "splits.mat", splits)
    names = np.array([*NAMES, ""], object)[:-1][None]
    savemat(root / "classMapping40.mat", {"mapClass": np.array([NAMES_TO_FORTY], np.uint8), "allClassName": names})
    return root


def main() -> None:
    """Write one fake per layout below the folder that the command line names."""
    out = Path(sys.argv[1])
    for name, write in (
        ("mtan", write_mtan), ("atrc", write_atrc), ("official", write_official), ("compact", write_compact)
    ):  # fmt: skip
        print(write(out / name))


if __name__ == "__main__":
    main()
