"""A network with folded batch norms predicts the same, and cannot be trained."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tasktokens.config import ModelSettings
from tasktokens.errors import CheckpointError
from tasktokens.models import build_network
from tasktokens.models.files import ModelInfo, load_model, save_model
from tasktokens.models.fold import Folded, fold_batch_norms
from tasktokens.tasks import Task


def images(count: int = 2) -> Tensor:
    return torch.randint(256, (count, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def with_statistics(network: nn.Module) -> nn.Module:
    """Batch norms far from the identity."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    return network.eval()


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet", "mobilenetv3_small_050", "test_vit"])
@pytest.mark.parametrize(("kind", "variant"), [("htt", "htt"), ("htt", "paper"), ("mtl", "htt")])
def test_every_network_predicts_the_same_folded(
    kind: str, variant: str, backbone: str, tiny_tasks: dict[str, Task]
) -> None:
    torch.manual_seed(0)
    settings = ModelSettings(variant=variant, backbone=backbone, pretrained=False, width=16)  # type: ignore[arg-type]
    network = with_statistics(build_network(kind, tiny_tasks, settings))
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    with torch.no_grad():
        before = network(images())
        after = fold_batch_norms(network)(images())
    for name, output in before.items():
        for field in ("logits", "feature", "confidence", "token"):
            a, b = getattr(output, field), getattr(after[name], field)
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b, atol=1e-4 * float(a.abs().max()), rtol=1e-4)
    folded = sum(isinstance(m, Folded) for m in network.modules())
    assert folded == norms  # in these networks each follows a convolution


def test_what_a_fold_would_change_stays_as_it_is() -> None:
    class TwoReaders(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.last = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x.float())
            return self.last(self.norm(y) + y)

    network = with_statistics(TwoReaders())
    state = {name: x.clone() for name, x in network.state_dict().items()}
    before = network(images())
    assert torch.equal(fold_batch_norms(network)(images()), before)
    assert not any(isinstance(m, Folded) for m in network.modules())
    assert all(torch.equal(x, state[name]) for name, x in network.state_dict().items())


def test_a_norm_before_its_convolution_stays() -> None:
    network = with_statistics(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)))

    class Float(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.inner(x.float())
            return result

    fold_batch_norms(Float().eval())
    assert isinstance(network[2], nn.BatchNorm2d)


def test_a_folded_network_cannot_be_trained_and_one_in_training_is_not_folded(tiny_tasks: dict[str, Task]) -> None:
    network = build_network("mtl", tiny_tasks, ModelSettings(backbone="test_resnet", pretrained=False, width=8))
    with pytest.raises(ValueError, match="training mode"):
        fold_batch_norms(network.train())
    fold_batch_norms(network.eval())
    network.eval()
    with pytest.raises(RuntimeError, match="load_model"):
        network.train()


def test_folding_draws_nothing_from_torchs_generator(tiny_tasks: dict[str, Task]) -> None:
    settings = ModelSettings(backbone="test_resnet", pretrained=False, width=8)
    network = build_network("htt", tiny_tasks, settings).eval()
    state = torch.get_rng_state()
    fold_batch_norms(network)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("kind", "variant", "refused"), [("htt", "htt", True), ("htt", "paper", True), ("mtl", "htt", False)]
)
def test_models_of_format_1_are_read_but_for_heads_that_changed(
    kind: str, variant: str, refused: bool, tiny_tasks: dict[str, Task], tmp_path: Path
) -> None:
    settings = ModelSettings(variant=variant, backbone="test_resnet", pretrained=False, width=8)  # type: ignore[arg-type]
    network = with_statistics(build_network(kind, tiny_tasks, settings))
    save_model(tmp_path, network, ModelInfo(kind, settings, tiny_tasks, (64, 96)))  # type: ignore[arg-type]
    description = tmp_path / "model.json"
    description.write_text(re.sub(r'"format": \d+', '"format": 1', description.read_text()))
    if refused:
        with pytest.raises(CheckpointError, match=r"model\.json is of an earlier version.*train it again"):
            load_model(tmp_path)
        return
    with torch.no_grad():
        expected = network(images())
        for folded in (False, True):
            for name, output in load_model(tmp_path, folded=folded)[0](images()).items():
                torch.testing.assert_close(output.logits, expected[name].logits, atol=1e-3, rtol=1e-4)
