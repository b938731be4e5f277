"""Exported files of one trained run: difference to PyTorch, metrics, time per image, size.

    python benchmarks/export.py runs/nyud --root NYUD --out benchmarks/results/export.json

One thread. Time is that of the network on one image of the training's size, from uint8 to logits, the median over
``--repeat`` calls; file and PyTorch take turns, so that what else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch

import tasktokens
from tasktokens.exported.predictor import ExportedPredictor
from tasktokens.exporting.export import Exported
from tasktokens.reporting.provenance import describe

MEASURED = ["src/tasktokens/exporting", "src/tasktokens/exported", "src/tasktokens/models", "src/tasktokens/tasks"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--root", type=Path, help="folder of the run's data, if it has moved")
    parser.add_argument("--formats", default="onnx,openvino", help="such as onnx")
    parser.add_argument("--precisions", default="fp32,fp16,int8")
    parser.add_argument("--limit", type=int, default=100, help="images that metrics are measured on")
    parser.add_argument("--repeat", type=int, default=60)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for format in args.formats.split(","):
            for precision in args.precisions.split(","):
                exported = tasktokens.export(
                    args.run, format, Path(folder) / ("model.onnx" if format == "onnx" else "model.xml"), precision,
                    overwrite=True, limit=args.limit, root=args.root,
                )  # fmt: skip
                rows.append(row(exported, *times(args.run, exported.path, args.repeat)))
                print(rows[-1], flush=True)
    info = tasktokens.load_model(args.run)[1]
    head = {"run": trained(args.run), "network": info.network, "backbone": info.settings.backbone}
    head |= {"size": list(info.size)}
    result = describe("one thread", [0], ("torch", "numpy", "onnx", "onnxruntime", "openvino"), MEASURED)
    args.out.write_text(json.dumps(result | head | {"rows": rows}, indent=1) + "\n")


def trained(run: Path) -> dict[str, Any]:
    """Which run it is: its data, images, labels that it has seen, method and steps."""
    config = tasktokens.load_config(run / "config.yaml")
    with (run / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    labels = {name: sum(row[name] == "1" for row in rows) for name in rows[0] if name != "id"}
    steps = {key: value for key, value in config.method.model_dump().items() if re.fullmatch(r"stage\d_steps", key)}
    data = Path(str(getattr(config.data, "root", ""))).name
    return {"data": data, "images": len(rows), "labels": labels, "method": config.method.name, **steps}


def times(run: Path, path: Path, repeat: int) -> tuple[float, float]:
    """Seconds per image of the file and of PyTorch, whose batch norms are folded too."""
    model, file = tasktokens.load(run, device="cpu"), ExportedPredictor(path, threads=1)
    image = np.random.default_rng(0).integers(0, 256, (1, *model.size, 3), dtype=np.uint8)
    tensor = torch.from_numpy(image).permute(0, 3, 1, 2).contiguous()

    def by_torch() -> None:
        with torch.no_grad():
            model.network(tensor)

    def by_file() -> None:
        file.logits(image)

    for _ in range(5):
        by_torch(), by_file()
    pairs = [(timed(by_file), timed(by_torch)) for _ in range(repeat)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def timed(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def row(exported: Exported, infer_s: float, torch_infer_s: float) -> dict[str, Any]:
    """With the first metric of classes and of depth, of the file and of PyTorch, where the run has such tasks."""
    found: dict[str, Any] = {"format": exported.format, "precision": exported.precision, "images": exported.images}
    found["max_difference"] = float(f"{exported.max_difference:.3g}")
    for metric in ("mIoU", "absErr", "mErr"):
        for key, results in ((metric, exported.file), (f"torch_{metric}", exported.network)):
            values = [each[metric] for each in results.values() if metric in each]
            found |= {key: round(values[0], 4)} if values else {}
    return found | {"infer_s": round(infer_s, 5), "torch_infer_s": round(torch_infer_s, 5), "mb": round(exported.mb, 2)}


if __name__ == "__main__":
    main()
