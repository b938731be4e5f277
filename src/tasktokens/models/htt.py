"""Hierarchical Task Tokens: the network (Zhang et al., arXiv 2411.18823, section 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tasktokens.models.backbones import Backbone
from tasktokens.models.htt_parts import htt_interventions
from tasktokens.models.interventions import Intervention
from tasktokens.models.layers import Design, init_as_published
from tasktokens.models.light import LightHead
from tasktokens.models.outputs import NETWORKS, Network, Rows, TaskOutput, index_rows
from tasktokens.models.paper import PaperHead
from tasktokens.models.tokens import CrossTaskGates, OpenGates
from tasktokens.tasks import Task


@NETWORKS.register("htt")
class HttNetwork(Network):
    """Global task tokens exchange features across tasks; fine-grained tokens turn them into predictions.

    Args:
        tasks: T tasks by name.
        backbone: four feature maps.
        design: sizes; ``light`` is the ``htt`` variant, else the network of the paper.
    """

    def __init__(self, tasks: Mapping[str, Task], backbone: Backbone, design: Design) -> None:
        super().__init__(tasks)
        self.backbone = backbone
        deepest = backbone.channels[-1]
        tokens = torch.randn(len(tasks), deepest)
        if design.global_tokens:
            self.global_tokens = nn.Parameter(tokens)
        else:  # a task's token is then the sum of its projections' biases
            self.register_buffer("global_tokens", torch.zeros_like(tokens))
        gated = [design.global_tokens and (design.multi_scale or scale == 3) for scale in range(4)]
        self.gates = nn.ModuleList(
            [
                CrossTaskGates(len(tasks), deepest, c, design.light, design.image_affinity) if gate else OpenGates()
                for c, gate in zip(backbone.channels, gated, strict=True)
            ]
        )
        head = LightHead if design.light else PaperHead
        self.heads = nn.ModuleDict(
            {name: head(task.num_tokens, backbone.channels, design) for name, task in tasks.items()}
        )
        if not design.light:
            init_as_published(self.gates, self.heads)

    def forward(self, image_B3HW: Tensor, rows: Rows | None = None) -> dict[str, TaskOutput]:
        """As `Network.forward`; each `TaskOutput` has a confidence and a token too."""
        features = self.backbone(image_B3HW)
        mixed = [gates(x, self.global_tokens) for gates, x in zip(self.gates, features, strict=True)]
        chosen = None if rows is None else [rows[name] for name in self.heads]
        gated = [gate_by_task(x, gates, chosen) for x, (gates, _, _) in zip(features, mixed, strict=True)]
        outputs = {}
        for t, (name, head) in enumerate(self.heads.items()):
            tokens = [index_rows(tokens[:, t], None if rows is None else rows[name]) for _, tokens, _ in mixed]
            outputs[name] = head([maps[t] for maps in gated], tokens)
        return outputs

    def of_tokens(self, name: str) -> bool:
        """What makes and mixes the tokens and what weighs class maps by them.

        Their inputs are many values of order 1, not a few of a sparse feature, so that a step of Adam, which moves
        every weight by as much, moves their outputs many times further than those of a convolution.
        """
        parts = (".fine_tokens.", ".decoder.out.", ".confidence.")
        return name.startswith(("global_tokens", "gates.")) or any(part in name for part in parts)

    def is_token(self, name: str) -> bool:
        """The global tokens, what the fine-grained ones are made from, and what starts as the identity."""
        return name == "global_tokens" or name.endswith((".fine_tokens.index", ".confidence.project"))

    def interventions(self) -> Sequence[Intervention]:
        """Tokens, gates, attention and scales, for all tasks at once."""
        return tuple(htt_interventions(list(self.gates), list(self.heads.values())))

    def upgraded(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """With the projections of the confidence's tokens, which earlier versions did not have."""
        start = {name: torch.eye(len(p)) for name, p in self.named_parameters() if name.endswith(".confidence.project")}
        return start | dict(state)


def gate_by_task(feature_BCHW: Tensor, gates_BTHW: Tensor, rows: Sequence[Tensor] | None) -> list[Tensor]:
    """The feature map times each task's gate, of that task's rows: for each task (n_t, C, H, W).

    All rows are selected at once, so that the backward pass adds them up once.

    Args:
        rows: for each task positions in the batch; all of them for None.
    """
    count = gates_BTHW.shape[1]
    if rows is None:
        return [feature_BCHW * gates_BTHW[:, t : t + 1] for t in range(count)]
    images = torch.cat(list(rows))
    pairs = torch.cat([row * count + t for t, row in enumerate(rows)])
    selected = feature_BCHW.index_select(0, images) * gates_BTHW.flatten(0, 1).index_select(0, pairs)[:, None]
    return list(torch.split(selected, [len(row) for row in rows]))
