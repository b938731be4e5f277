"""What a data set costs each process before and beside training, by image; and the size of checkpoints. One JSON.

A folder of empty files (three tasks, all labels) is opened, a one-label split is drawn, saved and read back: CPU
seconds and memory an image (tracemalloc, in a second pass since it slows down). Then the order of an epoch, drawn whole
and computed for a batch, and the parameters of networks with what a checkpoint holds of them.

    python benchmarks/scaling.py --out benchmarks/results/scaling.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tasktokens.config import ModelSettings
from tasktokens.data.sampler import epoch_order
from tasktokens.data.visibility import draw_visible, load_visible, save_visible
from tasktokens.datasets.folder import open_folder
from tasktokens.models import build_network
from tasktokens.reporting.provenance import describe
from tasktokens.tasks import build_task

TASKS: dict[str, dict[str, Any]] = {
    "semseg": {"kind": "classes", "classes": [f"class{number}" for number in range(13)]},
    "depth": {"kind": "depth", "range": [0.5, 10.0]},
    "normals": {"kind": "normals"},
}
MEASURED = [f"src/tasktokens/{name}" for name in ("data", "models", "tasks")]
NETWORKS = [
    ("htt", "resnet18"),
    ("htt", "resnet50"),
    ("htt", "swin_tiny_patch4_window7_224"),
    ("paper", "resnet50"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=20_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = write_empty(Path(folder), args.images)
        per_image = {what: cost(way, args.images) for what, way in data_set(root).items()}
        per_image["split file"] = {"bytes": round((root / "split.csv").stat().st_size / args.images, 1)}
    result = describe("one thread of one process", [0], ("torch", "timm", "numpy"), MEASURED)
    result |= {"images": args.images, "tasks": list(TASKS), "per_image": per_image}
    result |= {"order": orders(), "networks": [network(*names) for names in NETWORKS]}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: result[key] for key in ("per_image", "order", "networks")}, indent=1))


def write_empty(root: Path, count: int) -> Path:
    """A data set whose files exist; opening it reads names only."""
    ids = [f"{number // 1000:06d}/{number:09d}" for number in range(count)]
    for folder in ("images", *TASKS):
        for part in {id.split("/")[0] for id in ids}:
            (root / folder / part).mkdir(parents=True)
        for id in ids:
            (root / folder / f"{id}.png").touch()
    (root / "train.txt").write_text("".join(f"{id}\n" for id in ids))
    description = {"name": "empty", "tasks": TASKS, "splits": {"train": "train.txt"}}
    (root / "dataset.yaml").write_text(yaml.safe_dump(description, sort_keys=False))
    return root


def data_set(root: Path) -> dict[str, Callable[[], object]]:
    """What every process does at the start of a run, one after the other."""
    collection = open_folder(root)
    ids, path = collection.split("train"), root / "split.csv"
    split = draw_visible(ids, collection.labels, "one", 0)
    save_visible(path, split, list(TASKS))
    return {
        "open the folder": lambda: open_folder(root),
        "draw the visible labels": lambda: draw_visible(ids, collection.labels, "one", 0),
        "read the split file": lambda: load_visible(path, ids, collection.labels),
    }


def cost(way: Callable[[], object], images: int) -> dict[str, float]:
    """CPU time and memory an image of what it returns; ``peak`` while it works."""
    started = time.process_time()
    way()
    seconds = time.process_time() - started
    tracemalloc.start()
    kept = way()
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del kept
    return {
        "microseconds": round(1e6 * seconds / images, 1),
        "bytes": round(now / images),
        "peak_bytes": round(peak / images),
    }


def orders() -> dict[str, float]:
    """An epoch's order, of 10 million images."""
    started = time.process_time()
    order = epoch_order(10**7, 0, 0)
    return {
        "nanoseconds per image": round(1e9 * (time.process_time() - started) / len(order), 1),
        "bytes per image": order.itemsize,
    }


def network(variant: str, backbone: str) -> dict[str, object]:
    """Parameters, and the MB of a checkpoint: the weights of student and teacher, two moments of the student's."""
    tasks = {name: build_task(name, spec) for name, spec in TASKS.items()}
    built = build_network("htt", tasks, ModelSettings(variant=variant, backbone=backbone, pretrained=False))  # type: ignore[arg-type]
    count = sum(p.numel() for p in built.parameters())
    state = sum(t.numel() * t.element_size() for t in built.state_dict().values())
    return {
        "variant": variant,
        "backbone": backbone,
        "parameters": count,
        "checkpoint_mb": round((2 * state + 2 * 4 * count) / 1e6, 1),
    }


if __name__ == "__main__":
    main()
