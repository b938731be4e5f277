"""Manifests of CamVid (semseg) and BSDS500 (edges) for benchmarks/suites/disjoint.yaml; no image is copied.

    python benchmarks/disjoint_data.py --camvid CAMVID --bsds BSDS500 --out disjoint

CAMVID and BSDS500 hold ``{train,val or test}/image`` and ``semseg`` or ``edge`` beside it.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import yaml

CAMVID_CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "cyclist",
)  # fmt: skip


def main() -> None:
    """Write ``camvid/`` and ``bsds/`` below --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("camvid", "bsds", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    write_manifest(args.camvid, args.out / "camvid", "semseg", {"train": "train", "val": "test"},
                   {"kind": "classes", "classes": list(CAMVID_CLASSES), "void": [11]})  # fmt: skip
    write_manifest(args.bsds, args.out / "bsds", "edge", {"train": "train", "test": "test"}, {"kind": "edge"})


def write_manifest(source: Path, out: Path, task: str, splits: dict[str, str], spec: dict[str, object]) -> None:
    """A folder with ``dataset.yaml`` and a manifest of the files in ``source/{split}/image`` and ``/{task}``."""
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for folder, split in splits.items():
        for image in sorted((source / folder / "image").iterdir()):
            label = source / folder / task / f"{image.stem}.png"
            rows.append([image.resolve(), label.resolve() if label.is_file() else "", split])
    with (out / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", task, "split"])
        writer.writerows(rows)
    description = {"name": out.name, "manifest": "labels.csv", "tasks": {task: spec}}
    (out / "dataset.yaml").write_text(yaml.safe_dump(description, sort_keys=False), encoding="utf-8")


if __name__ == "__main__":
    main()
