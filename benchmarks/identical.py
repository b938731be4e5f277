"""Fixed-seed runs of every method, to show that a change of the code changes no number.

    python benchmarks/identical.py --record before.json       # before the change
    python benchmarks/identical.py --against before.json --out benchmarks/results/identical.json

A run's fingerprint is the SHA-256 of its ``metrics.jsonl`` without what depends on the clock, of its weights and of its
evaluation. Every setting that matters is spelled out, so that new defaults are no difference. ``--record`` also writes
the losses themselves, to see where two runs part.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from tasktokens.reporting.provenance import describe

CLOCK = ("images_per_second", "data_wait", "memory_mb", "minutes")
COMMON = [
    "seed=3", "data.size=[64,96]", "data.labels=one", "data.label_seed=1", "data.holdout=0",
    "data.augmentation={scale: [0.8, 1.4], flip: true, photometric: 0.3}", "data.check=false",
    "model.backbone=test_resnet", "model.pretrained=false", "model.width=16", "model.variant=htt",
    "optim={name: adamw, lr: 0.002, backbone_lr: 1.0, token_lr: 0.1, weight_decay: 0.01, batch_size: 4, warmup: 2}",
    "run.device=cpu", "run.threads=1", "run.log_every=1", "run.checkpoint_every=100", "run.evaluate=test",
]  # fmt: skip
HTT = [
    "method.name=htt", "method.schedule=two-stage", "method.stage1_steps=10", "method.stage2_steps=10",
    "method.student=fresh", "method.thresholds=fixed", "method.teacher=live", "method.views=[[1,false],[1.25,true]]",
    "method.feature_level=1", "method.prediction_level=1", "method.token_level=0", "method.targets=distribution",
    "method.confidence=ours", "method.confidence_loss=0.1", "method.strong={photometric: 0.5, grey: 0.2, blur: 0.3}",
    "method.compared_at=heads", "method.feature_task_weight=true",
]  # fmt: skip
RUNS: dict[str, list[str]] = {
    "mtl": ["method.name=mtl", "method.steps=20"],
    "mtl-parts-stride": [
        "method.name=mtl", "method.steps=20", "data.labels=random", "optim.accumulate=2", "optim.loss_stride=2",
        "model.image_affinity=false",
    ],
    "htt-two-stage": HTT,
    "htt-from-teacher": [*HTT, "method.student=teacher", "method.thresholds=adaptive", "data.labels=random"],
    "htt-two-rounds": [*HTT, "method.stage1_steps=8", "method.stage2_steps=6", "method.rounds=2",
                       "method.token_level=1"],
    "htt-parts": [*HTT, "optim.accumulate=2", "optim.loss_stride=2", "method.student=teacher"],
    "htt-calibrated": [*HTT, "method.thresholds=calibrated", "data.holdout=0.4", "data.labels=random"],
    "htt-online": [*HTT, "method.schedule=online", "method.ramp=4", "method.ema=0.9", "method.thresholds=adaptive"],
    "htt-values": [*HTT, "method.targets=value", "method.views=[[1,false]]", "method.confidence=paper"],
    "paper": [*HTT, "model.variant=paper", "optim.lr=0.0005"],
    "htt-parts-off": [
        *HTT, "model.global_tokens=false", "model.fine_tokens=false", "method.feature_level=0",
        "method.confidence_weighting=false", "method.strong={photometric: 0, grey: 0, blur: 0}",
    ],
}  # fmt: skip


def main() -> None:
    """Make all runs on rooms and on an own folder; write or compare their fingerprints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, help="write the fingerprints of this version")
    parser.add_argument("--against", type=Path, help="compare with a recorded version")
    parser.add_argument("--out", type=Path, help="with --against: write the rows here")
    parser.add_argument("--runs", nargs="*", default=list(RUNS), choices=list(RUNS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = fingerprints(Path(folder), arguments.runs)
    if arguments.record:
        arguments.record.write_text(json.dumps(found, indent=1))
    if arguments.against:
        before = json.loads(arguments.against.read_text())
        for recorded in before.values():
            recorded["rows"] = _without_zeros(recorded["rows"])
            recorded["metrics"] = _sum(recorded["rows"])
        rows = [_row(name, before[name], now) for name, now in found.items()]
        for row in rows:
            print(f"{row['run']}: {'identical' if row['identical'] else 'DIFFERENT ' + row['first_difference']}")
        if arguments.out:
            arguments.out.write_text(json.dumps(describe("one thread", [3]) | {"rows": rows}, indent=1) + "\n")
        sys.exit(0 if all(row["identical"] for row in rows) else 1)


def fingerprints(folder: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """What each run gave, by its name, such as ``folder/mtl``."""
    write_folder(folder / "own")
    data = {
        "rooms": ["data.kind=rooms", "data.train=12", "data.val=1", "data.test=2", "data.render_size=[64,96]"],
        "folder": ["data.kind=folder", f"data.root={folder / 'own'}"],
    }
    found = {}
    for kind, options in data.items():
        for name in names:
            run = folder / kind / name
            command = [sys.executable, "-m", "tasktokens.cli", "train", "-q", *COMMON, *options, *RUNS[name]]
            subprocess.run([*command, f"run.dir={run}"], check=True)
            found[f"{kind}/{name}"] = fingerprint(run)
            print(f"{kind}/{name} {found[f'{kind}/{name}']['metrics'][:12]}", file=sys.stderr)
    return found


def fingerprint(run: Path) -> dict[str, Any]:
    """Of a finished run. A task without a label in a batch has no loss, which earlier versions wrote as 0."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = _without_zeros([{k: v for k, v in row.items() if k not in CLOCK} for row in rows if "finished" not in row])
    evaluation = json.loads((run / "evaluation-test.json").read_text())
    return {
        "metrics": _sum(rows),
        "evaluation": _sum(evaluation),
        "weights": hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest(),
        "rows": rows,
    }


def _without_zeros(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in which a term of nothing, which earlier versions wrote as 0, is null."""
    return [{k: (v or None) if "/" in k else v for k, v in row.items()} for row in rows]


def _sum(values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _row(name: str, before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    parts = ("metrics", "evaluation", "weights")
    same = all(before[part] == now[part] for part in parts)
    pairs = list(zip(before["rows"], now["rows"], strict=False))
    keys = [
        f"row {i}: {k}" for i, (a, b) in enumerate(pairs) for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k)
    ]
    other = [part for part in parts if before[part] != now[part]]
    row = {"run": name, "identical": same, "steps": len(now["rows"])} | {part: now[part][:16] for part in parts}
    return row if same else row | {"first_difference": (keys or other)[0]}


def write_folder(root: Path, count: int = 16, height: int = 80, width: int = 112) -> None:
    """Pictures of a box before a wall, with labels of five kinds, some of them missing."""
    rng = np.random.default_rng(0)
    ids = [f"im{number:02d}" for number in range(count)]
    for number, id in enumerate(ids):
        top, left = int(rng.integers(5, height // 2)), int(rng.integers(5, width // 2))
        box = (slice(top, top + height // 3), slice(left, left + width // 3))
        image = rng.integers(0, 90, (height, width, 3)).astype(np.uint8)
        image[: height // 2] += 90
        image[box] = rng.integers(120, 255, 3)
        semseg = np.ones((height, width), np.uint8)
        semseg[: height // 2], semseg[box], semseg[:3] = 0, 2, 255
        depth = np.linspace(6000, 2000, height)[:, None].repeat(width, 1)
        depth[box], depth[:, :3] = 1500, 0
        normals = np.full((height, width, 3), (128, 128, 0), np.uint8)
        normals[height // 2 :], normals[box] = (128, 0, 128), (60, 128, 20)
        salient = np.zeros((height, width), np.uint8)
        salient[box] = 255
        edge = np.zeros((height, width), np.uint8)
        edge[box][0], edge[box][-1], edge[box][:, 0], edge[box][:, -1] = 255, 255, 255, 255
        maps = {"images": image, "semseg": semseg, "depth": depth.astype(np.uint16), "normals": normals,
                "saliency": salient, "edge": edge}  # fmt: skip
        for k, (name, array) in enumerate(maps.items()):
            if name == "images" or number >= count - 3 or (number + k) % 4:
                (root / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(root / name / f"{id}.png")
    (root / "train.txt").write_text("\n".join(ids[:-3]))
    (root / "test.txt").write_text("\n".join(ids[-3:]))
    tasks = {
        "semseg": {"kind": "classes", "classes": ["wall", "floor", "box"]},
        "depth": {"kind": "depth", "range": [0.5, 10.0], "bins": 8},
        "normals": {"kind": "normals", "centres": 12},
        "saliency": {"kind": "saliency"},
        "edge": {"kind": "edge"},
    }
    splits = {"train": "train.txt", "test": "test.txt"}
    (root / "dataset.yaml").write_text(yaml.safe_dump({"tasks": tasks, "splits": splits}, sort_keys=False))


if __name__ == "__main__":
    main()
