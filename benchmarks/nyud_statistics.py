"""Count what NYU Depth v2 holds, through the reader: classes, void, depths and normals of both official splits.

Every row of the result is one number: ``split``, ``task``, ``what`` and ``value``. Shares are of pixels, 0..1;
that of a class is of the pixels that have one. Depths are metres, quantiles to the centimetre. The mean normal is of
the unit vectors (x right, y down, z forward, pointing to the camera); ``up``, ``facing``, ``left`` and ``right`` are
shares of normals within 30 degrees of (0, -1, 0), (0, 0, -1), (-1, 0, 0) and (1, 0, 0).

    python benchmarks/nyud_statistics.py --root NYUV2 --out benchmarks/results/nyud_statistics.json
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from tasktokens.datasets.index import DatasetIndex
from tasktokens.datasets.nyud.dataset import find_layout, open_nyud
from tasktokens.errors import TaskTokensError
from tasktokens.reporting.provenance import describe

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
BINS = 2000
"""Of one centimetre."""
DIRECTIONS = {"up": (0, -1, 0), "facing": (0, 0, -1), "left": (-1, 0, 0), "right": (1, 0, 0)}

Row = dict[str, Any]


def rows_of_split(collection: DatasetIndex, split: str) -> list[Row]:
    """Count one split."""
    ids = collection.split(split)
    counted = [
        ("semseg", class_rows(collection, split)),
        ("depth", depth_rows(collection, split)),
        ("normals", normal_rows(collection, split)),
    ]
    rows: list[Row] = [{"split": split, "task": "", "what": "images", "value": len(ids)}]
    for task, found in counted:
        rows += [{"split": split, "task": task, "what": what, "value": value} for what, value in found.items()]
    return rows


def class_rows(collection: DatasetIndex, split: str) -> dict[str, float]:
    """Share of void, share of each class, and in which share of the images it occurs."""
    names = collection.tasks["semseg"].class_names() or ()
    pixels, images, void = np.zeros(len(names)), np.zeros(len(names)), 0
    ids = collection.split(split)
    for id in track(ids, f"{split} classes"):
        value, valid = collection.labels["semseg"][id].read()
        count = np.bincount(value[0][valid], minlength=len(names))
        pixels += count
        images += count > 0
        void += int((~valid).sum())
    found = {"void share": void / (void + pixels.sum())}
    for name, share, seen in zip(names, pixels / pixels.sum(), images / len(ids), strict=True):
        found |= {f"share of {name}": share, f"images with {name}": seen}
    return {what: round(float(value), 5) for what, value in found.items()}


def depth_rows(collection: DatasetIndex, split: str) -> dict[str, float]:
    """Valid share, mean and quantiles in metres."""
    histogram, total, pixels = np.zeros(BINS, np.int64), 0.0, 0
    for id in track(collection.split(split), f"{split} depth"):
        value, valid = collection.labels["depth"][id].read()
        metres = value[0][valid].astype(np.float64)
        histogram += np.bincount((metres * 100).astype(np.int64), minlength=BINS)[:BINS]
        total, pixels = total + metres.sum(), pixels + valid.size
    reached = histogram.cumsum() / histogram.sum()
    found = {"valid share": histogram.sum() / pixels, "mean": total / histogram.sum()}
    for q in QUANTILES:
        found[f"quantile {q:g}"] = (np.searchsorted(reached, q, side="left" if q else "right") + 0.5) / 100
    return {what: round(float(value), 4) for what, value in found.items()}


def normal_rows(collection: DatasetIndex, split: str) -> dict[str, float]:
    """Valid share, mean vector and shares of four directions."""
    total, count, pixels = np.zeros(3), 0, 0
    near = dict.fromkeys(DIRECTIONS, 0)
    for id in track(collection.split(split), f"{split} normals"):
        value, valid = collection.labels["normals"][id].read()
        vectors = value[:, valid].astype(np.float64)
        total, count, pixels = total + vectors.sum(axis=1), count + vectors.shape[1], pixels + valid.size
        for name, direction in DIRECTIONS.items():
            near[name] += int((direction @ vectors > np.cos(np.radians(30))).sum())
    found = {"valid share": count / pixels}
    found |= {f"mean {axis}": value / count for axis, value in zip("xyz", total, strict=True)}
    found |= {f"share {name}": value / count for name, value in near.items()}
    return {what: round(float(value), 4) for what, value in found.items()}


def report(root: Path, rows: list[Row]) -> dict[str, Any]:
    """The result with where it comes from."""

    made = describe("one process", [], ("numpy", "pillow", "scipy"), ["src/tasktokens/data"])
    return made | {
        "layout": find_layout(root).name,
        "classes": 13,
        "rows": rows,
    }


def main() -> int:
    """Read the command line, count, write, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="NYU Depth v2 in any layout")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    try:
        collection = open_nyud(arguments.root)
        rows = [row for split in ("train", "test") for row in rows_of_split(collection, split)]
    except TaskTokensError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    arguments.out.write_text(json.dumps(report(arguments.root, rows), indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
