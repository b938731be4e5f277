"""What enlarging values in place of logits changes: metrics and pixels at the labels' size, of a run on NYU Depth v2.

``exact`` enlarges all logits to the label's size and decodes them there; ``fine 4``, which the package does, enlarges
logits to four times the head's size and values from there on; ``fine 2`` and ``fine 1`` stop earlier. Classes are
decoded from their own logits in every case. ``value`` and ``confidence`` are mean absolute differences from ``exact``,
``pixels`` the share of pixels that are on the other side of the task's threshold.

    tasktokens train data.kind=folder data.root=nyud data.size=[96,128] data.labels=full method.name=mtl \\
        method.steps=500 model.backbone=tf_efficientnet_lite0 model.weights=lite0.safetensors run.dir=runs/decoding
    python benchmarks/decoding.py --run runs/decoding --root nyud --out benchmarks/results/decoding.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tasktokens.datasets.folder import open_folder
from tasktokens.inference.predictor import Predictor
from tasktokens.models import decoding
from tasktokens.models.layers import upsample
from tasktokens.reporting.provenance import describe
from tasktokens.tasks import Task

Way = Callable[[Task, Tensor, tuple[int, int]], tuple[Tensor, Tensor]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    predictor, folder = Predictor(args.run, "cpu"), open_folder(args.root)
    ids = folder.split("test")
    ids = ids[:: max(1, len(ids) // args.images)][: args.images]
    ways: dict[str, Way] = {"exact": exact} | {f"fine {factor}": fine(factor) for factor in (4, 2, 1)}
    metrics = {(name, way): task.metric() for name, task in predictor.tasks.items() for way in ways}
    differences: dict[tuple[str, str], list[list[float]]] = {key: [] for key in metrics}
    for id in ids:
        logits = predictor.logits([predictor.prepare(folder.images[id].read())])[0]
        for name, task in predictor.tasks.items():
            value, valid = (torch.from_numpy(x) for x in folder.labels[name][id].read())
            size = (valid.shape[0], valid.shape[1])
            found = {way: decode(task, logits[name], size) for way, decode in ways.items()}
            for way, (prediction, confidence) in found.items():
                metrics[name, way].update(prediction[None], value[None], valid[None, None])
                differences[name, way].append(difference(task, prediction, confidence, *found["exact"]))
    rows = [
        {"task": name, "way": way}
        | {key: round(float(number), 4) for key, number in list(metric.compute().items())[:3]}
        | dict(zip(("value", "confidence", "pixels"), means(differences[name, way]), strict=True))
        for (name, way), metric in metrics.items()
    ]
    head: dict[str, Any] = {"images": len(ids), "network_size": list(predictor.info.size), "label_size": list(size)}
    result = describe("one thread", [0], measured=["src/tasktokens/models", "src/tasktokens/tasks"]) | head
    args.out.write_text(json.dumps(result | {"rows": rows}, indent=1) + "\n")
    for row in rows:
        print(row)


def exact(task: Task, logits: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """All logits at full size."""
    enlarged = upsample(logits, size)
    return task.decode(enlarged)[0], task.confidence(enlarged)[0, 0]


def fine(factor: int) -> Way:
    """Logits up to so many times the head's size, then values."""

    def decode(task: Task, logits: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        before, decoding._FINE = decoding._FINE, factor
        try:
            return decoding.decode_with_confidence_at(task, logits, size)
        finally:
            decoding._FINE = before

    return decode


def difference(task: Task, value: Tensor, confidence: Tensor, exact: Tensor, sure: Tensor) -> list[float]:
    """Of one image."""
    other_side = (confidence > task.threshold) != (sure > task.threshold)
    maps = ((value.float() - exact.float()).abs(), (confidence - sure).abs(), other_side.float())
    return [float(x.mean()) for x in maps]


def means(rows: list[list[float]]) -> list[float]:
    return [float(f"{number:.2g}") for number in torch.tensor(rows).mean(dim=0).tolist()]


if __name__ == "__main__":
    main()
