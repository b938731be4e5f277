"""Disjoint labels on real images: CamVid (semseg), BSDS500 (edges) and NYU Depth v2 (depth, normals) as one run.

    python benchmarks/disjoint.py --camvid CAMVID --bsds BSDS500 --nyud NYUD --weights FILE \
        --out benchmarks/results/disjoint.json

CAMVID and BSDS500 hold `{train,val or test}/image` and `semseg` or `edge` beside it; NYUD is what `tasktokens prepare
--data nyud` wrote. Manifests are written below --runs; no image is copied. Trained are one network a task (stl, on that
task's images alone), one MTL network and one HTT network for all of them; every run is `tasktokens train` in a process
of its own with one thread, and a finished run is not run again.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

import children
from provenance import describe

CONFIG = Path("configs/disjoint.yaml")
CAMVID_CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "cyclist",
)  # fmt: skip
PARTS = {"semseg": "camvid", "edge": "bsds", "depth": "nyud", "normals": "nyud"}
"""The part of the data that each task's labels lie in."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("camvid", "bsds", "nyud", "weights", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs/disjoint"))
    parser.add_argument(
        "--steps", type=int, default=1500, help="of the joint runs, and of the single-task runs together"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    args = parser.parse_args()

    write_manifest(args.camvid, args.runs / "camvid", "semseg", {"train": "train", "val": "test"},
                   {"kind": "classes", "classes": list(CAMVID_CLASSES), "void": [11]})  # fmt: skip
    write_manifest(args.bsds, args.runs / "bsds", "edge", {"train": "train", "test": "test"}, {"kind": "edge"})
    jobs = [("htt", None), ("mtl", None), *(("stl", task) for task in PARTS)]
    with ThreadPoolExecutor(args.jobs) as pool:
        rows = [row for rows in pool.map(lambda job: run(args, *job), jobs) for row in rows]
    made = describe(f"one thread a run, {args.jobs} runs side by side", [args.seed])
    args.out.write_text(json.dumps(made | {"rows": rows}, indent=1) + "\n")
    for row in rows:
        print(row)


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


def run(args: argparse.Namespace, method: str, only: str | None) -> list[dict[str, object]]:
    """Train one network, on all parts or on those of one task, and return its test metrics."""
    folder = args.runs / (method if only is None else f"{method}-{only}")
    roots = {"camvid": args.runs / "camvid", "bsds": args.runs / "bsds", "nyud": args.nyud}
    settings = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    settings["data"]["parts"] = [p for p in settings["data"]["parts"] if only is None or p["name"] == PARTS[only]]
    for part in settings["data"]["parts"]:
        part["source"]["root"] = str(roots[part["name"]])
    settings["seed"] = args.seed
    settings["model"]["weights"] = str(args.weights)
    settings["run"] = settings.get("run", {}) | {"dir": str(folder), "threads": 1}
    steps = args.steps if only is None else round(args.steps / len(PARTS))
    if only is not None:
        settings["tasks"] = {only: settings["tasks"][only]}
    if method == "htt":
        settings["method"] |= {"stage1_steps": steps // 3, "stage2_steps": steps - steps // 3}
    else:
        settings["method"] = {"name": "mtl", "steps": steps}
    results = folder / "evaluation-test.json"
    if not results.is_file():
        config = args.runs / f"{folder.name}.yaml"
        config.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        status, _ = children.train(folder, ["--config", str(config), "--overwrite"])
        children.expect_success(folder, status)
    finished = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    return [
        {"method": method, "task": task, "metric": metric, "value": round(value, 4), "steps": steps,
         "minutes": round(finished["minutes"], 1)}
        for task, values in json.loads(results.read_text()).items()
        for metric, value in values.items()
        if value is not None and "/" not in metric
    ]  # fmt: skip


if __name__ == "__main__":
    children.hand_on_sigterm()
    main()
