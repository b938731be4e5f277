"""A small network that nobody has trained: what is served is the same either way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory, tiny_tasks: dict[str, Any]) -> Path:
    """A model folder with five tasks, for images of 32x48."""
    import torch

    from tasktokens.config.settings import ModelSettings
    from tasktokens.models import build_network
    from tasktokens.models.files import ModelInfo, save_model

    settings = ModelSettings(backbone="test_resnet", pretrained=False, width=16)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("served") / "model"
    save_model(folder, build_network("mtl", tiny_tasks, settings), ModelInfo("mtl", settings, tiny_tasks, (32, 48)))
    return folder
