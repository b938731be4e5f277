"""Memory and time of `tasktokens predict --tile` on a TIFF of 20,000 x 20,000 pixels, and beside predictions without.

A small network (timm's ``test_resnet``, two tasks) that was trained for a few steps predicts a photograph that is
repeated with other brightnesses, stored as a tiled, deflated TIFF. Each row is a process of its own: ``memory_mb`` is
its largest resident set, ``loaded_mb`` that of the libraries and the model alone, before the image was opened.
``seconds`` are those of `predict` with label files, confidences and a picture.

    python benchmarks/tiles.py --out benchmarks/results/tiles.json
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

import tasktokens
from tasktokens.datasets.rooms.dataset import rooms_folder
from tasktokens.inference.predictor import Predictor
from tasktokens.reporting.provenance import describe

MEASURED = [f"src/tasktokens/{name}" for name in ("inference", "models", "tasks", "utils")]
PHOTO = Path(tasktokens.__file__).parent / "assets" / "photos"
TASKS = ["semseg", "edge"]
BACKBONE, WIDTH, TRAINED = "test_resnet", 16, (96, 128)
CASES = [("tiled", 20_000), ("tiled", 5_000), ("untiled", 5_000)]
TILE, OVERLAP = 512, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--largest", type=int, default=20_000, help="leave out larger images")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measured(**json.loads(args.child))))
        return
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for row in measure(Path(folder), args.largest):
            print(row, flush=True)
            rows.append(row)
            if args.out:
                setting = {"backbone": BACKBONE, "width": WIDTH, "tasks": TASKS, "tile": TILE, "overlap": OVERLAP}
                head = describe("beside other work, one thread", [0], ("torch", "timm", "tifffile"), MEASURED)
                args.out.write_text(json.dumps(head | setting | {"rows": rows}, indent=1) + "\n")


def measure(folder: Path, largest: int) -> Iterator[dict[str, Any]]:
    """All rows, each in a process of its own."""
    run = train(folder)
    for what, side in CASES:
        if side <= largest:
            image = folder / f"{side}.tif"
            if not image.exists():
                write_large(image, side)
            case = json.dumps(
                {"what": what, "image": str(image), "run": str(run), "out": str(folder / f"{what}{side}")}
            )
            limits = {"TASKTOKENS_MAX_PIXELS": str(2**27), "OMP_NUM_THREADS": "1"}
            command = [sys.executable, __file__, "--child", case]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=os.environ | limits)
            yield {"what": what, "size": [side, side], **json.loads(done.stdout.splitlines()[-1])}


def train(folder: Path) -> Path:
    """A run of a few steps on rooms."""
    root = rooms_folder({"train": 4, "val": 1, "test": 1}, *TRAINED, 0)
    config = {
        "data": {"kind": "folder", "root": str(root), "size": list(TRAINED), "labels": "one", "check": False},
        "tasks": {name: {} for name in TASKS},
        "model": {"backbone": BACKBONE, "pretrained": False, "width": WIDTH},
        "method": {"name": "mtl", "steps": 4},
        "optim": {"batch_size": 2},
        "run": {"dir": str(folder / "run"), "evaluate": None, "device": "cpu", "threads": 1},
    }
    return tasktokens.train(config, quiet=True)


def write_large(path: Path, side: int) -> None:
    """A photograph again and again, each time with another brightness, tile by tile."""
    with Image.open(next(iter(sorted(PHOTO.glob("*.jpg"))))) as image:
        tile = np.asarray(image.convert("RGB").resize((TILE, TILE), Image.Resampling.BICUBIC)).astype(np.int16)
    rng, across = np.random.default_rng(0), -(-side // TILE)
    shades = ((tile + rng.integers(-60, 60)).clip(0, 255).astype(np.uint8) for _ in range(across * across))
    tifffile.imwrite(
        path, shades, shape=(side, side, 3), dtype=np.uint8, tile=(TILE, TILE), photometric="rgb", compression="zlib",
        compressionargs={"level": 1},
    )  # fmt: skip


def measured(what: str, image: str, run: str, out: str) -> dict[str, Any]:
    """Predict one image in this process."""
    logits = sum(task.num_tokens for task in Predictor(run, "cpu").tasks.values())
    loaded, begun = peak_mb(), time.perf_counter()
    tiled = {"tile": TILE, "overlap": OVERLAP} if what == "tiled" else {}
    tasktokens.predict(run, image, out, quiet=True, **tiled)  # type: ignore[arg-type]
    seconds = time.perf_counter() - begun
    written = sum(file.stat().st_size for file in Path(out).rglob("*") if file.is_file())
    return {
        "seconds": round(seconds, 1), "memory_mb": peak_mb(), "loaded_mb": loaded,
        "written_mb": round(written / 2**20), "logits": logits,
    }  # fmt: skip


def peak_mb() -> int:
    """The largest resident set of this process so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main()
