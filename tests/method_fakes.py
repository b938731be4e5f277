"""Networks, teachers and batches that tests of methods and discovery share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tasktokens.config import ModelSettings
from tasktokens.methods import Term
from tasktokens.models import Network, TaskOutput, build_network
from tasktokens.tasks import Task

PRESENT = [["semseg"], ["depth", "edge"], [], ["normals", "semseg"]]
"""Tasks that each of four images has a label of."""
Tasks = Mapping[str, Task]


def build(kind: str, tasks: Tasks, seed: int = 0) -> Network:
    """A small network whose batch norm has seen a few images."""
    torch.manual_seed(seed)
    network = build_network(kind, tasks, ModelSettings(backbone="test_resnet", pretrained=False, width=16))
    with torch.no_grad():
        for _ in range(3):
            network(torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8))
    return network


def by_name(terms: list[Term]) -> dict[str, Term]:
    """The terms of a loss by their names, each of which is there once."""
    named = {term.name: term for term in terms}
    assert len(named) == len(terms)
    return named


def eager(tasks: Tasks) -> dict[str, Task]:
    """Every pixel that a teacher is the least sure of is discovered."""
    return {name: replace(task, threshold=0.0) for name, task in tasks.items()}


class Fixed(nn.Module):
    """A teacher whose output is given."""

    def __init__(self, outputs: Mapping[str, TaskOutput]) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, image: Tensor, rows: Any = None) -> Mapping[str, TaskOutput]:
        return self.outputs


def detach(output: TaskOutput) -> TaskOutput:
    """The same values without a graph."""
    fields = {
        name: None if (x := getattr(output, name)) is None else x.detach()
        for name in ("logits", "feature", "confidence", "token")
    }
    return TaskOutput(**fields)  # type: ignore[arg-type]
