"""The MTL baseline: the same backbone, fusion and context as HTT, and a plain head per task without tokens."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from tasktokens.models.backbones import Backbone
from tasktokens.models.layers import Design, Fusion, context_block, conv_block, init_as_published, separable_block
from tasktokens.models.outputs import NETWORKS, Network, Rows, TaskOutput, index_rows
from tasktokens.tasks import Task


@NETWORKS.register("mtl")
class BaselineNetwork(Network):
    """Shared backbone, one head per task; with one task it is the single-task network."""

    def __init__(self, tasks: Mapping[str, Task], backbone: Backbone, design: Design) -> None:
        super().__init__(tasks)
        self.backbone = backbone
        self.heads = nn.ModuleDict(
            {
                name: DecodedHead(task.num_tokens, backbone.channels)
                if backbone.is_decoder
                else BaselineHead(task.num_tokens, backbone.channels, design)
                for name, task in tasks.items()
            }
        )
        if not design.light:
            init_as_published(self.heads)

    def forward(self, image_B3HW: Tensor, rows: Rows | None = None) -> dict[str, TaskOutput]:
        """As `Network.forward`; no confidence and no token."""
        features = self.backbone(image_B3HW)
        outputs = {}
        for name, head in self.heads.items():
            chosen = None if rows is None else rows[name]
            outputs[name] = head([index_rows(x, chosen) for x in features])
        return outputs


class BaselineHead(nn.Module):
    """Fusion, context, a convolution block in place of token attention, and a linear classifier of pixels."""

    def __init__(self, count: int, channels: list[int], design: Design) -> None:
        super().__init__()
        self.fusion = Fusion(channels, design.fused)
        self.context = context_block(design)
        block = separable_block if design.light else conv_block
        self.refine = block(design.width, design.width)
        self.out = nn.Conv2d(design.width, count, 1)

    def forward(self, features: list[Tensor]) -> TaskOutput:
        """Features (B, C_i, H_i, W_i), finest first, to logits and feature at (H_1, W_1)."""
        feature = self.refine(self.context(self.fusion(features)))
        return TaskOutput(self.out(feature).float(), feature)


class DecodedHead(nn.Module):
    """After a backbone that decodes (SegNet): two convolutions of its finest map, as in MTAN (CVPR 2019)."""

    def __init__(self, count: int, channels: list[int]) -> None:
        super().__init__()
        self.refine = nn.Conv2d(channels[0], channels[0], 3, padding=1)
        self.out = nn.Conv2d(channels[0], count, 1)

    def forward(self, features: list[Tensor]) -> TaskOutput:
        """Features (B, C_i, H_i, W_i), finest first, to logits and feature at (H_1, W_1)."""
        feature = self.refine(features[0])
        return TaskOutput(self.out(feature).float(), feature)
