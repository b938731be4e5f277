"""Hierarchical Task Tokens: the network (Zhang et al., arXiv 2411.18823, section 3)."""

from __future__ import annotations

import math
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
from tasktokens.models.token_exchange import Prompts, TokenExchange, last_blocks, running_along
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
                CrossTaskGates(len(tasks), deepest, c, design.light, design.image_affinity, design.exchange)
                if gate
                else OpenGates()
                for c, gate in zip(backbone.channels, gated, strict=True)
            ]
        )
        head = LightHead if design.light else PaperHead
        self.heads = nn.ModuleDict(
            {name: head(task.num_tokens, backbone.channels, design) for name, task in tasks.items()}
        )
        counts = [task.num_tokens for task in tasks.values()]
        self.token_exchange = TokenExchange(counts, design.width, design.heads) if design.token_exchange else None
        self.prompts: nn.Module | None = None
        self.prompted = last_blocks(backbone.network) if design.prompt_tokens else []
        if design.prompt_tokens and not self.prompted:
            self.prompts = Prompts(deepest, math.gcd(deepest, 4))
        if not design.light:
            init_as_published(self.gates, self.heads)

    def forward(self, image_B3HW: Tensor, rows: Rows | None = None) -> dict[str, TaskOutput]:
        """As `Network.forward`; each `TaskOutput` has a confidence and a token too."""
        features, global_tokens = self._features(image_B3HW)
        mixed = [gates(x, global_tokens) for gates, x in zip(self.gates, features, strict=True)]
        computed = rows if self.token_exchange is None else None  # tokens of all tasks meet, whatever is asked for
        chosen = None if computed is None else [computed[name] for name in self.heads]
        gated = []
        for module, x, (gates, tokens, _) in zip(self.gates, features, mixed, strict=True):
            factors = module.channel_factors(x, gates, tokens)  # type: ignore[operator]
            gated.append(gate_by_task(x, gates, chosen, factors))
        inputs = {}
        for t, name in enumerate(self.heads):
            tokens = [index_rows(tokens[:, t], None if computed is None else computed[name]) for _, tokens, _ in mixed]
            inputs[name] = [maps[t] for maps in gated], tokens
        if self.token_exchange is None:
            return {name: head(*inputs[name]) for name, head in self.heads.items()}
        return self._exchanged(inputs, rows)

    def _features(self, image_B3HW: Tensor) -> tuple[list[Tensor], Tensor]:
        """The backbone's maps, and the global tokens (T, C), or (B, T, C) where they saw the image."""
        if self.prompted:
            with running_along(self.prompted, self.global_tokens) as tokens:
                return self.backbone(image_B3HW), tokens[0]
        features = self.backbone(image_B3HW)
        if self.prompts is None:
            return features, self.global_tokens
        last, tokens_BTC = self.prompts(features[-1], self.global_tokens)
        return [*features[:-1], last], tokens_BTC

    def _exchanged(
        self, inputs: Mapping[str, tuple[list[Tensor], list[Tensor]]], rows: Rows | None
    ) -> dict[str, TaskOutput]:
        """Outputs of heads whose fine tokens have met those of the other tasks."""
        assert self.token_exchange is not None
        heads = {name: head for name, head in self.heads.items() if isinstance(head, LightHead)}
        encoded = {name: head.encode(*inputs[name]) for name, head in heads.items()}
        met = self.token_exchange([tokens for _, _, tokens in encoded.values()])
        outputs = {}
        for (name, head), (feature, token, _), tokens in zip(heads.items(), encoded.values(), met, strict=True):
            if rows is not None:
                feature, token, tokens = (x.index_select(0, rows[name]) for x in (feature, token, tokens))
            outputs[name] = head.decode(feature, token, tokens)
        return outputs

    def of_tokens(self, name: str) -> bool:
        """What makes and mixes the tokens and what weighs class maps by them.

        Their inputs are many values of order 1, not a few of a sparse feature, so that a step of Adam, which moves
        every weight by as much, moves their outputs many times further than those of a convolution.
        """
        parts = (".fine_tokens.", ".decoder.out.", ".confidence.", ".update.")
        return name.startswith(("global_tokens", "gates.", "token_exchange.", "prompts.")) or any(
            part in name for part in parts
        )

    def is_token(self, name: str) -> bool:
        """The global tokens, what the fine-grained ones are made from, and what starts as the identity."""
        return name in ("global_tokens", "token_exchange.task") or name.endswith(
            (".fine_tokens.index", ".confidence.project")
        )

    def interventions(self) -> Sequence[Intervention]:
        """Tokens, gates, attention and scales, for all tasks at once."""
        of_image = bool(self.prompted) or self.prompts is not None
        return tuple(htt_interventions(list(self.gates), list(self.heads.values()), self.token_exchange, of_image))

    def upgraded(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """With the projections of the confidence's tokens, which earlier versions did not have."""
        start = {name: torch.eye(len(p)) for name, p in self.named_parameters() if name.endswith(".confidence.project")}
        return start | dict(state)


def gate_by_task(
    feature_BCHW: Tensor, gates_BTHW: Tensor, rows: Sequence[Tensor] | None, factors_BTC: Tensor | None = None
) -> list[Tensor]:
    """The feature map times each task's gate, and its channels' factors, of that task's rows: each (n_t, C, H, W).

    All rows are selected at once, so that the backward pass adds them up once.

    Args:
        rows: for each task positions in the batch; all of them for None.
    """
    count = gates_BTHW.shape[1]
    if rows is None:
        maps = [feature_BCHW * gates_BTHW[:, t : t + 1] for t in range(count)]
        if factors_BTC is None:
            return maps
        return [x * factors_BTC[:, t, :, None, None] for t, x in enumerate(maps)]
    images = torch.cat(list(rows))
    pairs = torch.cat([row * count + t for t, row in enumerate(rows)])
    selected = feature_BCHW.index_select(0, images) * gates_BTHW.flatten(0, 1).index_select(0, pairs)[:, None]
    if factors_BTC is not None:
        selected = selected * factors_BTC.flatten(0, 1).index_select(0, pairs)[..., None, None]
    return list(torch.split(selected, [len(row) for row in rows]))
