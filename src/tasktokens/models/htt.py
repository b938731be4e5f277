"""Hierarchical Task Tokens: the network (Zhang et al., arXiv 2411.18823, section 3)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tasktokens.models.backbones import Backbone
from tasktokens.models.layers import Design, Fusion, context_block, conv_block, token_scores
from tasktokens.models.outputs import NETWORKS, Network, Rows, TaskOutput, index_rows
from tasktokens.models.tokens import CrossTaskGates, FineTokens, OpenGates, TokenAttention, TokenDecoder
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
        self.heads = nn.ModuleDict(
            {name: HttHead(task.num_tokens, backbone.channels, design) for name, task in tasks.items()}
        )

    def forward(self, image_B3HW: Tensor, rows: Rows | None = None) -> dict[str, TaskOutput]:
        """As `Network.forward`; each `TaskOutput` has a confidence and a token too."""
        features = self.backbone(image_B3HW)
        mixed = [gates(x, self.global_tokens) for gates, x in zip(self.gates, features, strict=True)]
        outputs = {}
        for t, (name, head) in enumerate(self.heads.items()):
            chosen = None if rows is None else rows[name]
            gated = [
                index_rows(x, chosen) * index_rows(gates[:, t : t + 1], chosen)
                for x, (gates, _, _) in zip(features, mixed, strict=True)
            ]
            outputs[name] = head(gated, [index_rows(tokens[:, t], chosen) for _, tokens, _ in mixed])
        return outputs

    def of_tokens(self, name: str) -> bool:
        """What makes and mixes the tokens and what weighs class maps by them.

        Their inputs are many values of order 1, not a few of a sparse feature, so that a step of Adam, which moves
        every weight by as much, moves their outputs many times further than those of a convolution.
        """
        return name.startswith(("global_tokens", "gates.")) or ".fine_tokens." in name or ".decoder.out." in name

    def is_token(self, name: str) -> bool:
        """The global tokens, and what the fine-grained ones are made from."""
        return name == "global_tokens" or name.endswith(".fine_tokens.index")


class HttHead(nn.Module):
    """One task, from its gated feature maps and refined global token to logits."""

    def __init__(self, count: int, channels: list[int], design: Design) -> None:
        super().__init__()
        # The light variant leaves the paper's full-width 3x3 convolution a scale and a task to what follows the fusion.
        self.scales = nn.ModuleList([nn.Identity() if design.light else conv_block(c, c) for c in channels])
        self.token = nn.ModuleList([nn.Linear(c, design.width) for c in channels])
        self.fusion = Fusion(channels, design.fused)
        self.context = context_block(design)
        self.attention = TokenAttention(design.width, design.heads, design.light)
        self.fine_tokens = FineTokens(count, design.width) if design.fine_tokens else None
        self.decoder = (
            TokenDecoder(count, design.width, scaled=design.light)
            if design.fine_tokens
            else nn.Conv2d(design.width, count, 1)
        )
        self.factor = design.width**-0.5 if design.light else 1.0
        # The light variant starts from the global token; what the image adds comes in as far as it proves useful, for
        # with few labels it is learned by heart: it held the scale of each training image's depth.
        self.image_part = nn.Parameter(torch.zeros(design.width)) if design.light else None

    def forward(self, features: list[Tensor], tokens: list[Tensor]) -> TaskOutput:
        """Gated features (B, C_i, H_i, W_i) and the task's mixed global tokens (B, C_i), one per scale."""
        token_BD = torch.stack([project(token) for project, token in zip(self.token, tokens, strict=True)]).sum(0)
        fused = self.fusion([scale(x) for scale, x in zip(self.scales, features, strict=True)])
        feature = self.context(fused)
        feature, token = self.attention(feature, token_BD)
        if self.image_part is not None:
            token = token_BD + self.image_part * token
        logits = self.decoder(feature) if self.fine_tokens is None else self.decoder(feature, self.fine_tokens(token))
        # Detached: "is the prediction right here?" must not bend the feature that makes the prediction.
        confidence = token_scores(feature.detach(), token[:, None]) * self.factor
        return TaskOutput(logits.float(), feature, confidence.float(), token)
