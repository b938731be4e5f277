"""A network of your own: one decoder for all tasks. ``python examples/own_network.py mydata``

A network gets tasks, a backbone with four feature maps and the sizes of what follows; it returns logits per task. Here
it learns as HTT does, with discovery, and nothing else has to know of it.
"""

import argparse
import json
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tasktokens
from tasktokens.models import NETWORKS, Network, Rows, TaskOutput
from tasktokens.models.backbones import Backbone
from tasktokens.models.layers import Design
from tasktokens.tasks import Task


@NETWORKS.register("shared-decoder")  # from here on a configuration may say `method.network: shared-decoder`
class SharedDecoder(Network):
    """A pyramid whose levels are added up from coarse to fine, then a linear classifier of pixels per task."""

    def __init__(self, tasks: Mapping[str, Task], backbone: Backbone, design: Design) -> None:
        super().__init__(tasks)
        self.backbone = backbone
        self.lateral = nn.ModuleList(nn.Conv2d(channels, design.width, 1) for channels in backbone.channels)
        self.smooth = nn.Sequential(nn.Conv2d(design.width, design.width, 3, padding=1), nn.ReLU())
        self.heads = nn.ModuleDict({name: nn.Conv2d(design.width, task.num_tokens, 1) for name, task in tasks.items()})

    def forward(self, image_B3HW: Tensor, rows: Rows | None = None) -> dict[str, TaskOutput]:
        maps = [lateral(x) for lateral, x in zip(self.lateral, self.backbone(image_B3HW), strict=True)]
        fused = maps[-1]
        for finer in reversed(maps[:-1]):
            fused = finer + F.interpolate(fused, size=finer.shape[-2:], mode="bilinear")
        feature, outputs = self.smooth(fused), {}
        for name, head in self.heads.items():
            own = feature if rows is None else feature.index_select(0, rows[name])  # the images with its label
            outputs[name] = TaskOutput(head(own).float(), own)
        return outputs


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--out", default="runs/shared-decoder")
    args = parser.parse_args()
    tasks = {"depth": {"kind": "depth", "range": [0.5, 10]}}
    network = tasktokens.create_model("shared-decoder", tasks, args.backbone)
    print(
        {name: tuple(out.logits.shape) for name, out in network(torch.zeros(2, 3, 64, 96, dtype=torch.uint8)).items()}
    )
    run = tasktokens.train(
        {
            "data": {"root": args.folder, "labels": "one"},
            "model": {"backbone": args.backbone, "pretrained": False},
            "method": {"name": "htt", "network": "shared-decoder", "steps": args.steps},
            "optim": {"batch_size": 3},
            "run": {"dir": args.out},
        },
        quiet=True,
    )
    losses = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    print({name: value for name, value in losses[-2].items() if "loss/" in name})
