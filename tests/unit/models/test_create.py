"""Networks without a configuration file."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import tasktokens
from tasktokens.errors import ConfigError, WeightsError
from tasktokens.tasks import Task


@pytest.mark.parametrize("network", ["htt", "mtl"])
@pytest.mark.parametrize("form", ["tasks", "specs", "list"])
def test_tasks_come_in_any_form(network: str, form: str, tiny_tasks: dict[str, Task]) -> None:
    tasks: Any = {"tasks": tiny_tasks, "list": list(tiny_tasks.values())}.get(form)
    tasks = tasks or {name: task.spec() for name, task in tiny_tasks.items()}
    built = tasktokens.create_model(network, tasks, backbone="test_resnet", width=16)
    assert isinstance(built, torch.nn.Module)
    assert built.training
    assert built.tasks == tiny_tasks
    outputs = built(torch.zeros(2, 3, 32, 48, dtype=torch.uint8))
    assert {name: output.logits.shape[1] for name, output in outputs.items()} == {
        name: task.num_tokens for name, task in tiny_tasks.items()
    }


def test_the_network_has_the_seed_of_torch(tiny_tasks: dict[str, Task]) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        states.append(tasktokens.create_model("htt", tiny_tasks, backbone="test_resnet", width=16).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"network": "hht"}, "did you mean 'htt'"),
        ({"backbone": "resnt18"}, "did you mean"),
        ({"widht": 16}, "did you mean 'width'"),
        ({"tasks": {}}, "at least one task"),
        ({"tasks": {"depth": {"kind": "dept"}}}, "did you mean 'depth'"),
        ({"variant": "large"}, "variant"),
    ],
)
def test_mistakes(arguments: dict[str, Any], message: str, tiny_tasks: dict[str, Task]) -> None:
    with pytest.raises(ConfigError, match=message):
        tasktokens.create_model(**{"tasks": tiny_tasks, "backbone": "test_resnet", **arguments})


def test_missing_weights(tiny_tasks: dict[str, Task]) -> None:
    with pytest.raises(WeightsError, match="do not exist"):
        tasktokens.create_model("htt", tiny_tasks, "test_resnet", weights="missing.safetensors")
