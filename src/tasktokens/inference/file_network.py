"""An exported file in the place of a network, for tiles, videos and evaluation; on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tasktokens.config import ModelSettings
from tasktokens.models import Network
from tasktokens.models.files import ModelInfo, load_model
from tasktokens.models.outputs import Rows, TaskOutput
from tasktokens.tasks import Task, build_task
from tasktokens.utils.file_kinds import is_exported

if TYPE_CHECKING:
    from tasktokens.exported.predictor import ExportedPredictor


class FileNetwork(Network):
    """A file that computes logits.

    Args:
        tasks: by name, in the order of the file.
        predictor: the file.
    """

    def __init__(self, tasks: Mapping[str, Task], predictor: ExportedPredictor) -> None:
        super().__init__(tasks)
        self._predictor = predictor

    def forward(self, image_B3HW: Tensor, rows: Rows | None = None) -> dict[str, TaskOutput]:
        """As `Network.forward`; the logits stand in the place of the feature."""
        image = np.ascontiguousarray(image_B3HW.permute(0, 2, 3, 1).cpu().numpy())
        outputs = {}
        for name, array in self._predictor.logits(image).items():
            found = torch.from_numpy(array).to(image_B3HW.device)
            logits = found if rows is None else found[rows[name]]
            outputs[name] = TaskOutput(logits, logits)
        return outputs


def load_network(
    path: str | Path, device: torch.device | str = "cpu", folded: bool = False
) -> tuple[Network, ModelInfo]:
    """`load_model`, also of a file that ``tasktokens export`` wrote. Raises `CheckpointError`, `ConfigError`."""
    if not is_exported(path):
        return load_model(path, device, folded)
    from tasktokens.exported.predictor import ExportedPredictor

    predictor = ExportedPredictor(Path(path))
    tasks = {
        name: build_task(name, {**task.spec, "threshold": task.threshold})
        for name, task in predictor.info.tasks.items()
    }
    info = ModelInfo("exported", ModelSettings(pretrained=False), tasks, predictor.info.size)
    return FileNetwork(tasks, predictor).eval(), info
