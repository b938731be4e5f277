"""Every network, variant and family of backbones is exported and agrees with PyTorch, or is refused in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tasktokens
from tasktokens.config import ModelSettings
from tasktokens.errors import ConfigError
from tasktokens.models import NETWORKS, build_network
from tasktokens.models.files import ModelInfo, save_model
from tasktokens.tasks import build_task

SPECS: dict[str, dict[str, Any]] = {
    "semseg": {"kind": "classes", "classes": ["floor", "wall", "chair"]},
    "depth": {"kind": "depth", "range": [0.5, 10.0], "bins": 8},
}
FAMILIES = ("tf_efficientnet_lite0", "mobilenetv3_small_050")


def check_exported(tmp_path: Path, network: str, **chosen: Any) -> None:
    tasks = {name: build_task(name, spec) for name, spec in SPECS.items()}
    settings = ModelSettings(**{"backbone": "test_resnet", "pretrained": False, "width": 16} | chosen)
    torch.manual_seed(0)
    built = build_network(network, tasks, settings)
    save_model(tmp_path / "model", built, ModelInfo(network, settings, tasks, (64, 96)))
    exported = tasktokens.export(tmp_path / "model", out=tmp_path / "model.onnx")
    assert exported.max_difference < 1e-4
    assert len(exported.differences) == 3


@pytest.mark.slow
@pytest.mark.parametrize("network", sorted(NETWORKS))
def test_networks(tmp_path: Path, network: str) -> None:
    check_exported(tmp_path, network)


@pytest.mark.slow
def test_the_published_variant(tmp_path: Path) -> None:
    check_exported(tmp_path, "htt", variant="paper")


@pytest.mark.slow
@pytest.mark.parametrize("backbone", FAMILIES)
def test_families_of_backbones(tmp_path: Path, backbone: str) -> None:
    check_exported(tmp_path, "mtl", backbone=backbone)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["test_vit", "segnet"])
def test_what_onnx_has_no_operation_for_is_refused(tmp_path: Path, backbone: str) -> None:
    """Positions that are resampled by an antialiased bicubic, and unpooling to a size that depends on the image."""
    with pytest.raises(ConfigError, match=r"^this network cannot be exported: .*; take another backbone or variant$"):
        check_exported(tmp_path, "mtl", backbone=backbone)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
