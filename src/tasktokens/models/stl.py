"""Single-task networks side by side: a backbone and a head per task, which share nothing."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import Tensor, nn

from tasktokens.models.backbones import Backbone
from tasktokens.models.layers import Design
from tasktokens.models.mtl import BaselineNetwork
from tasktokens.models.outputs import NETWORKS, Network, Rows, TaskOutput, index_rows
from tasktokens.tasks import Task


@NETWORKS.register("stl")
class SingleTaskNetworks(Network):
    """One network per task, each as the MTL baseline has it for one task alone."""

    def __init__(self, tasks: Mapping[str, Task], backbone: Backbone, design: Design) -> None:
        super().__init__(tasks)
        each = {name: BaselineNetwork({name: task}, copy.deepcopy(backbone), design) for name, task in tasks.items()}
        self.backbone = nn.ModuleDict({name: network.backbone for name, network in each.items()})
        self.heads = nn.ModuleDict({name: network.heads[name] for name, network in each.items()})

    def forward(self, image_B3HW: Tensor, rows: Rows | None = None) -> dict[str, TaskOutput]:
        """As `Network.forward`; with ``rows`` a task's backbone sees those images alone, too."""
        return {
            name: head(self.backbone[name](index_rows(image_B3HW, None if rows is None else rows[name])))
            for name, head in self.heads.items()
        }
