"""What every network returns, and how the images that a head has to see are chosen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tasktokens.models.interventions import Intervention
from tasktokens.models.layers import upsample
from tasktokens.registry import Registry
from tasktokens.tasks import Task

Rows = Mapping[str, Tensor]
"""For each task, positions in the batch (n,) that its head computes."""


@dataclass(frozen=True)
class TaskOutput:
    """One task's output for n images. Logits are fp32 under autocast too: what is made of them needs it.

    Attributes:
        logits: (n, K, h, w) at the head's size; `logits_at` brings them to another.
        feature: (n, D, h, w), the task's feature that is distilled.
        confidence: (n, 1, h, w), logit of "the prediction is right here", or None if the network has none.
        token: (n, D), the image-conditioned task token, or None.
    """

    logits: Tensor
    feature: Tensor
    confidence: Tensor | None = None
    token: Tensor | None = None

    def select(self, rows: Tensor) -> TaskOutput:
        """The output for some of the images."""
        return TaskOutput(
            self.logits.index_select(0, rows),
            self.feature.index_select(0, rows),
            None if self.confidence is None else self.confidence.index_select(0, rows),
            None if self.token is None else self.token.index_select(0, rows),
        )

    def logits_at(self, size: Sequence[int]) -> Tensor:
        """Logits (n, K, H, W) at (height, width), bilinear."""
        return upsample(self.logits, size)


class Network(nn.Module, ABC):
    """A network for several tasks. ``tasks`` are values; ``forward`` takes uint8 images (B, 3, H, W)."""

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        super().__init__()
        self.tasks = dict(tasks)

    @abstractmethod
    def forward(self, image_B3HW: Tensor, rows: Rows | None = None) -> dict[str, TaskOutput]:
        """Outputs by task. With ``rows`` a head computes only those images, in that order.

        A head whose task has no label in an image gets an exactly zero gradient from it, so supervised training leaves
        it out. Batch norm in a head then sees the labelled images of its task only: the same distribution, since which
        labels an image has is drawn at random.
        """

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by learning rate: ``backbone``, ``tokens`` and ``others``."""
        groups: dict[str, list[nn.Parameter]] = {"backbone": [], "tokens": [], "others": []}
        for name, parameter in self.named_parameters():
            kind = "backbone" if name.startswith("backbone.") else "tokens" if self.of_tokens(name) else "others"
            groups[kind].append(parameter)
        return groups

    def of_tokens(self, name: str) -> bool:
        """Whether this parameter is of tokens, or applies them."""
        return False

    def is_token(self, name: str) -> bool:
        """Whether this parameter is a token itself: an embedding, not weights that are to be kept small."""
        return False

    def upgraded(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of an earlier version with what was added since, which gives the same network."""
        return dict(state)

    def interventions(self) -> Sequence[Intervention]:
        """Changes of parts that can be exchanged while it predicts; none unless a network says so."""
        return ()


NETWORKS: Registry[Callable[..., Network]] = Registry("network", "tasktokens.models")
"""Networks by name, which are built with (tasks, backbone, design)."""


def index_rows(x_B: Tensor, rows: Tensor | None) -> Tensor:
    """Rows of a batch; all of them for None."""
    return x_B if rows is None else x_B.index_select(0, rows)


def at_least_one(rows: Tensor) -> Tensor:
    """``rows``, or the first image where there is none: its loss is zero, and every parameter stays in the graph."""
    return rows if len(rows) else torch.zeros(1, dtype=torch.int64, device=rows.device)


def head_rows(rows: Tensor, absent: Tensor, multiple: int | None = None) -> Tensor:
    """Which images a head computes for the labels of ``rows``: those, followed by some of ``absent``.

    At least one (see `at_least_one`); on a GPU up to the next multiple of an eighth of the batch, so that there are few
    different sizes: cuDNN tunes itself for each, which in a short training took longer than all the steps.

    Args:
        rows: (n,) int64, positions with a label.
        absent: (B - n,) int64, the others.
        multiple: in place of an eighth of the batch on a GPU and 1 elsewhere.

    Examples:
        >>> head_rows(torch.tensor([1]), torch.tensor([0, 2, 3]), multiple=2)
        tensor([1, 0])
    """
    eighth = -(-(len(rows) + len(absent)) // 8)
    multiple = multiple or (eighth if rows.is_cuda else 1)
    return at_least_one(torch.cat([rows, absent[: -len(rows) % multiple]]))
