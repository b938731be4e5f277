"""Task prototypes: vectors that stand for a task, which every feature is compared with and refined by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasktokens.models.backbones import Backbone
from tasktokens.models.diffusion import CrossAttention
from tasktokens.models.layers import Design, Fusion, context_block, conv_block, separable_block, upsample
from tasktokens.models.outputs import NETWORKS, Network, Rows, TaskOutput, index_rows
from tasktokens.tasks import Task

CODES, PER_TASK, TEMPERATURE = 256, 16, 0.1
"""Entries of the codebook, prototypes of each task, and what cosines are divided by."""


@dataclass(frozen=True)
class PrototypeOutput(TaskOutput):
    """The output with what training needs of it.

    Attributes:
        association: (n, T, h, w) logits: which task's prototypes each position is like.
        image: (B, 3, h, w) the image made again of the shared feature, in [0, 1], or None where no gradient is kept.
        commitment: (B, 1, h, w) squared distance of the shared feature from its entry of the codebook, or None.
    """

    association: Tensor | None = None
    image: Tensor | None = None
    commitment: Tensor | None = None


@NETWORKS.register("prototypes")
class PrototypeNetwork(Network):
    """A shared feature enriched by a codebook; task features that attend to the prototypes of all tasks.

    Args:
        tasks: T tasks by name. backbone: four feature maps. design: sizes.
    """

    def __init__(self, tasks: Mapping[str, Task], backbone: Backbone, design: Design) -> None:
        super().__init__(tasks)
        self.backbone = backbone
        self.fusion = Fusion(backbone.channels, design.fused)
        self.codebook = nn.Parameter(torch.randn(CODES, design.fused) * design.fused**-0.5)
        self.image = nn.Sequential(conv_block(design.fused, design.width), nn.Conv2d(design.width, 3, 3, padding=1))
        self.prototypes = nn.Parameter(torch.randn(len(tasks), PER_TASK, design.width) * design.width**-0.5)
        self.heads = nn.ModuleDict({name: PrototypeHead(task.num_tokens, design) for name, task in tasks.items()})

    def forward(self, image_B3HW: Tensor, rows: Rows | None = None) -> dict[str, TaskOutput]:
        """As `Network.forward`, of `PrototypeOutput`."""
        encoded = self.fusion(self.backbone(image_B3HW))
        code = self._nearest(encoded)
        shared = encoded + code
        image = commitment = None
        if torch.is_grad_enabled():  # prediction needs neither
            image = self.image(shared).float().sigmoid()
            # The codebook follows the feature; the pull the other way is weaker, as in VQ-VAE.
            there, back = (encoded.detach() - code).float().square(), (encoded - code.detach()).float().square()
            commitment = (there + 0.25 * back).mean(dim=1, keepdim=True)
        outputs: dict[str, TaskOutput] = {}
        for name, head in self.heads.items():
            logits, feature, association = head(
                index_rows(shared, None if rows is None else rows[name]), self.prototypes
            )
            outputs[name] = PrototypeOutput(
                logits, feature, association=association, image=image, commitment=commitment
            )
        return outputs

    def is_token(self, name: str) -> bool:
        """Codebook and prototypes are embeddings."""
        return name in ("codebook", "prototypes")

    def _nearest(self, x_BCHW: Tensor) -> Tensor:
        """The entry of the codebook that is nearest to each position, in the shape of ``x``."""
        flat_NC = x_BCHW.detach().permute(0, 2, 3, 1).reshape(-1, x_BCHW.shape[1])
        with torch.no_grad(), torch.autocast(x_BCHW.device.type, enabled=False):
            book = self.codebook.to(torch.get_default_dtype())
            scores = flat_NC.to(book.dtype) @ book.T - 0.5 * book.square().sum(1)  # the largest has the least distance
            index_N = scores.argmax(dim=1)
        batch, channels, height, width = x_BCHW.shape
        # As one matmul: the backward pass of indexing adds in no fixed order on a GPU.
        chosen = F.one_hot(index_N, CODES).to(self.codebook.dtype) @ self.codebook
        return chosen.view(batch, height, width, channels).permute(0, 3, 1, 2)


class PrototypeHead(nn.Module):
    """One task: context, association with all prototypes, attention to them, a linear classifier of pixels."""

    def __init__(self, count: int, design: Design) -> None:
        super().__init__()
        width = design.width
        block = separable_block if design.light else conv_block
        self.context = context_block(design)
        self.key = nn.Linear(width, width)
        self.attention = CrossAttention(width, design.heads)
        self.refine = block(width, width)
        self.out = nn.Conv2d(width, count, 1)

    def forward(self, shared_BCHW: Tensor, prototypes_TMD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Shared feature and prototypes (T, M, D) to logits, feature (B, D, h, w) and association (B, T, h, w)."""
        feature = self.context(shared_BCHW)
        association = self.associate(feature, prototypes_TMD)
        half = F.avg_pool2d(feature, 2, ceil_mode=True)
        tasks, each = prototypes_TMD.shape[:2]
        # How much a position takes of a task's prototypes grows with how much it is like them.
        share = F.avg_pool2d(association.log_softmax(dim=1), 2, ceil_mode=True).flatten(2).mT
        bias = share.repeat_interleave(each, dim=2)
        keys = prototypes_TMD.flatten(0, 1).expand(len(feature), tasks * each, -1)
        found = self.attention(half.flatten(2).mT, keys, bias).mT.reshape(half.shape)
        refined = self.refine(feature + upsample(found, feature.shape[-2:]))
        return self.out(refined).float(), refined, association

    def associate(self, feature_BDHW: Tensor, prototypes_TMD: Tensor) -> Tensor:
        """Logits (B, T, h, w) of the task whose prototypes a position is like: a soft maximum of their cosines."""
        tasks, each = prototypes_TMD.shape[:2]
        own = self.key(feature_BDHW.permute(0, 2, 3, 1)).float()
        cosines = F.normalize(own, dim=-1) @ F.normalize(prototypes_TMD.float(), dim=-1).flatten(0, 1).T
        scores = (cosines.float() / TEMPERATURE).view(*cosines.shape[:-1], tasks, each)
        association: Tensor = scores.logsumexp(dim=-1).permute(0, 3, 1, 2)
        return association
