"""Floating-point operations and parameters of the networks, and what of them comes after the backbone.

    python benchmarks/flops.py --out benchmarks/results/flops.json

Three tasks (13 classes, 30 depth bins, 40 normal centres), one image, a multiplication and an addition being two
operations. ResNet-18 at 288x384 is the published setting. Attention counts.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import nn

from tasktokens.config import ModelSettings
from tasktokens.models import build_network
from tasktokens.models.flops import count_flops
from tasktokens.reporting.provenance import describe
from tasktokens.tasks import build_task

TASKS = {
    "semseg": {"kind": "classes", "classes": [f"class {k}" for k in range(13)]},
    "depth": {"kind": "depth", "range": [0.67, 10.0], "bins": 30},
    "normals": {"kind": "normals", "centres": 40},
}
CASES = [
    ("resnet18", (288, 384), None),
    ("tf_efficientnet_lite0", (96, 128), None),
    ("tf_efficientnet_lite0", (96, 128), 32),
]
PARTS: list[dict[str, object]] = [
    {"token_update": 1}, {"token_update": 2}, {"token_exchange": True}, {"exchange": "modulation"},
    {"exchange": "none"}, {"prompt_tokens": True},
]  # fmt: skip
"""Settings of ``model.htt``, each alone."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows = [
        count(network, variant, *case)
        for case in CASES
        for network, variant in (("htt", "paper"), ("htt", "htt"), ("mtl", "htt"))
    ]
    rows += [count("htt", "htt", *case, parts=parts) for case in CASES[:2] for parts in PARTS]
    result = describe("nothing is timed", []) | {"rows": rows}
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(rows, indent=1))


def count(
    kind: str,
    variant: str,
    backbone: str,
    size: tuple[int, int],
    width: int | None,
    parts: dict[str, object] | None = None,
) -> dict[str, object]:
    """One network's figures, in GFLOP and millions of parameters."""
    given = {"variant": variant, "backbone": backbone, "pretrained": False, "width": width, "htt": parts or {}}
    settings = ModelSettings.model_validate(given)
    tasks = {name: build_task(name, spec) for name, spec in TASKS.items()}
    network = build_network(kind, tasks, settings).eval()
    image = torch.zeros(1, 3, *size, dtype=torch.uint8)
    total, of_backbone = flops(network, image), flops(network.backbone, image)  # type: ignore[arg-type]
    parameters = sum(p.numel() for p in network.parameters()) / 1e6
    return {
        "network": kind, "variant": variant, "backbone": backbone, "height": size[0], "width": size[1],
        "channels": width, "gflops": round(total, 3), "gflops_backbone": round(of_backbone, 3),
        "gflops_after_backbone": round(total - of_backbone, 3), "million_parameters": round(parameters, 2),
    } | ({"parts": parts} if parts else {})  # fmt: skip


@torch.no_grad()
def flops(module: nn.Module, image: torch.Tensor) -> float:
    """GFLOP of one forward pass."""
    return count_flops(lambda: module(image)) / 1e9


if __name__ == "__main__":
    main()
