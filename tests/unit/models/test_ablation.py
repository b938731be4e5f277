"""Each part of HTT can be turned off alone by the configuration, and what is turned off has no effect."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tasktokens.config import ModelSettings
from tasktokens.discovery.pseudo_labels import feature_weights
from tasktokens.inference.explain import explain
from tasktokens.models import TaskOutput, build_network
from tasktokens.models.explain import stages
from tasktokens.tasks import Task
from tasktokens.training.trainer import train

SWITCHES = ("global_tokens", "multi_scale", "fine_tokens", "image_affinity")


@pytest.fixture(scope="session")
def make_config(make_config_of_two: Callable[..., Any]) -> Callable[..., Any]:
    """Two tasks will do."""
    return make_config_of_two


def build(tasks: dict[str, Task], **changes: Any) -> Any:
    torch.manual_seed(0)
    settings = {"backbone": "test_resnet", "pretrained": False, "width": 16} | changes
    return build_network("htt", tasks, ModelSettings(**settings)).eval()


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("variant", ["htt", "paper"])
def test_every_parameter_that_is_left_learns(switch: str, variant: str, tiny_tasks: dict[str, Task]) -> None:
    network = build(tiny_tasks, variant=variant, **{switch: False}).train()
    for parameter in network.parameters():  # gates that start at 0 pass no gradient on
        parameter.data += 0.01 * torch.randn_like(parameter)
    outputs = network(torch.rand(2, 3, 64, 64) * 255)
    # Squares: a plain sum has no gradient through a normalisation.
    parts = [x for out in outputs.values() for x in (out.logits, out.confidence, out.token)]
    torch.stack([x.square().sum() for x in parts]).sum().backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert all(parameter.grad is not None for parameter in network.parameters())  # nothing is left out of the graph
    # A softmax does not feel what is added to all of its inputs; nor a projection of a zero token.
    unfelt = re.compile(r"\.key\.bias$" if switch == "fine_tokens" else r"\.key\.bias$|\.token\.\d\.weight$")
    assert [name for name in still if not unfelt.search(name)] == []


def test_without_global_tokens_features_pass_as_they_are(tiny_tasks: dict[str, Task]) -> None:
    network = build(tiny_tasks, global_tokens=False)
    seen = stages(network, torch.rand(1, 3, 64, 64) * 255)
    for scale in range(1, 5):
        assert torch.equal(seen[f"semseg.gated{scale}"], seen[f"scale{scale}.features"])
        assert torch.equal(seen[f"scale{scale}.affinity"][0], torch.eye(len(tiny_tasks)))
    assert "global_tokens" not in dict(network.named_parameters())


def test_without_multi_scale_the_coarsest_alone_is_gated(tiny_tasks: dict[str, Task]) -> None:
    seen = stages(build(tiny_tasks, multi_scale=False), torch.rand(1, 3, 64, 64) * 255)
    open_scales = [bool((seen[f"scale{scale}.gates"] == 1).all()) for scale in range(1, 5)]
    assert open_scales == [True, True, True, False]


def test_without_fine_tokens_a_linear_classifier_decodes(tiny_tasks: dict[str, Task]) -> None:
    network = build(tiny_tasks, fine_tokens=False)
    seen = stages(network, torch.rand(1, 3, 64, 64) * 255)
    head = network.heads["depth"]
    expected = torch.einsum("kd,bdhw->bkhw", head.decoder.weight[:, :, 0, 0], seen["depth.feature"])
    torch.testing.assert_close(seen["depth.logits"], expected + head.decoder.bias[:, None, None], atol=1e-5, rtol=1e-4)
    assert "depth.token_maps" not in seen


def test_without_confidence_weighting_every_pair_weighs_the_same() -> None:
    output = TaskOutput(torch.zeros(2, 4, 3, 3), torch.zeros(2, 8, 3, 3), torch.randn(2, 1, 3, 3))
    pixels = torch.ones(2, 1, 6, 6, dtype=torch.bool)
    assert (feature_weights(output, torch.tensor([0]), pixels, weighted=False) == 1).all()
    weighted = feature_weights(output, torch.tensor([0]), pixels)
    assert (weighted[0] == 1).all()
    assert (weighted[1] < 1).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{f"model.{switch}": False} for switch in SWITCHES]
    + [{"method.prediction_level": 0}, {"method.feature_level": 0}, {"method.confidence_weighting": False}],
    ids=str,
)
def test_a_run_without_a_part_trains_and_can_be_loaded(
    changes: dict[str, Any], folder_root: Path, tmp_path: Path, make_config: Callable[..., Any]
) -> None:
    short = {"method.stage1_steps": 2, "method.stage2_steps": 2, "run.evaluate": "test"}
    run = train(make_config(folder_root, tmp_path / "run", **short | changes), quiet=True)
    results = json.loads((run / "evaluation-test.json").read_text())
    assert set(results) == {"semseg", "depth"}
    (picture,) = explain(run, [folder_root / "images" / "im07.png"], tmp_path / "explained", quiet=True)
    assert picture.is_file()
