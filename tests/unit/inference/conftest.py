"""A model that was not trained: enough for what is written, where, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def untrained(tiny_tasks: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of the five tasks of the tiny data set, for images of 32x48."""
    import torch

    from tasktokens.config import ModelSettings
    from tasktokens.models.files import ModelInfo, save_model

    info = ModelInfo("mtl", ModelSettings(backbone="test_resnet", pretrained=False, width=16), tiny_tasks, (32, 48))
    torch.manual_seed(0)
    network = info.build()
    for name, parameter in network.named_parameters():
        if not name.startswith("backbone.") and parameter.ndim > 1:
            parameter.data.mul_(6)  # so that predictions differ from pixel to pixel
    folder = tmp_path_factory.mktemp("untrained") / "model"
    save_model(folder, network, info)
    return folder
