"""Tiny copies of Cityscapes in the exact layouts of its distributions, written with numpy, Pillow and json alone.

    python tests/fakes/cityscapes.py OUT      # OUT/mtan, OUT/official

Every picture has void at the top, then sky, a building, road and a car, each a band of rows; disparity grows downwards.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]

BANDS = ((3, -1, -1), (23, 10, 4), (11, 2, 1), (7, 0, 0), (26, 13, 6), (9, -1, -1), (18, -1, -1), (33, 18, 6))
"""From the top: label id, train id and category: out of roi, sky, building, road, car, and three more."""
BASELINE, FX = 0.25, 2000.0
CITIES = {"train": ("aachen", "bochum"), "val": ("lindau",), "test": ("berlin",)}


def bands(height: int, width: int, column: int) -> Array:
    """One of the three columns of `BANDS` as (height, width)."""
    rows = np.arange(height) * len(BANDS) // height
    return np.tile(np.array([band[column] for band in BANDS])[rows][:, None], (1, width))


def picture(name: str, height: int, width: int) -> Array:
    """(height, width, 3) uint8, another one for each name."""
    return np.random.default_rng(list(name.encode())).integers(0, 256, (height, width, 3), dtype=np.uint8)


def disparity(seed: int, height: int, width: int) -> Array:
    """(height, width) uint16 as stored: 0 in the left column, 1 in the top row, else growing downwards."""
    stored = np.tile((257 + 900 * np.arange(height) + 10 * seed).astype(np.uint16)[:, None], (1, width))
    stored[0] = 1
    stored[:, 0] = 0
    return stored


def write_mtan(root: Path, train: int = 12, val: int = 2, height: int = 16, width: int = 32) -> Path:
    """The npy files; the number types vary from file to file, as they do in copies that are around."""
    for split, count in {"train": train, "val": val}.items():
        for i in range(count):
            stored = {
                "image": picture(f"{split}/{i}", height, width) / (255.0 if i % 2 else np.float32(255)),
                "label_7": bands(height, width, 2).astype(np.float64 if i % 2 else np.int64),
                "label_19": bands(height, width, 1).astype(np.float32 if i % 2 else np.int8),
                "label_2": np.zeros((height, width)),
                "depth": (disparity(i, height, width) / 65535)[..., None].astype(np.float32 if i % 2 else np.float64),
            }
            for name, array in stored.items():
                (root / split / name).mkdir(parents=True, exist_ok=True)
                np.save(root / split / name / f"{i}.npy", array)
    return root


def write_official(root: Path, each: int = 2, height: int = 16, width: int = 32) -> Path:
    """``each`` pictures a city; those of test have files of labels too, as the official ones, all void."""
    camera = {
        "extrinsic": {"baseline": BASELINE, "pitch": 0.04, "roll": 0.0, "x": 1.7, "y": 0.1, "yaw": 0.0, "z": 1.2},
        "intrinsic": {"fx": FX, "fy": FX, "u0": width / 2, "v0": height / 2},
    }
    for split, cities in CITIES.items():
        for city in cities:
            for i in range(each):
                name = f"{city}_{i:06}_000019"
                ids = bands(height, width, 0) if split != "test" else np.zeros((height, width))
                files = {
                    "leftImg8bit": ("leftImg8bit.png", picture(name, height, width)),
                    "gtFine": ("gtFine_labelIds.png", ids.astype(np.uint8)),
                    "disparity": ("disparity.png", disparity(i, height, width)),
                }
                for kind, (ending, array) in files.items():
                    (root / kind / split / city).mkdir(parents=True, exist_ok=True)
                    Image.fromarray(array).save(root / kind / split / city / f"{name}_{ending}")
                (root / "camera" / split / city).mkdir(parents=True, exist_ok=True)
                (root / "camera" / split / city / f"{name}_camera.json").write_text(json.dumps(camera))
    return root


if __name__ == "__main__":
    write_mtan(Path(sys.argv[1]) / "mtan")
    write_official(Path(sys.argv[1]) / "official")
