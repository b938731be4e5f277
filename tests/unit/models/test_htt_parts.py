"""Parts of ``htt`` that are being tried: each starts as the identity, learns, and keeps every promise of a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor

from properties import assert_batch_independent, assert_same_output, random_batch, same_tensors, terms_of
from resuming import stopped_at
from tasktokens.config import ModelSettings
from tasktokens.losses import total_loss
from tasktokens.methods import Htt, HttMethod
from tasktokens.models import Network, build_network
from tasktokens.models.flops import count_flops
from tasktokens.models.interventions import applied
from tasktokens.models.token_exchange import TokenExchange, gather, last_blocks
from tasktokens.tasks import Task, build_task
from tasktokens.training.checkpoint import complete_checkpoints
from tasktokens.training.trainer import train

Parts = dict[str, Any]
PARTS: dict[str, Parts] = {
    "token_update": {"token_update": 1},
    "two rounds": {"token_update": 2},
    "token_exchange": {"token_exchange": True},
    "modulation": {"exchange": "modulation"},
    "none": {"exchange": "none"},
    "prompt_tokens": {"prompt_tokens": True},
    "all": {"token_update": 1, "token_exchange": True, "exchange": "modulation", "prompt_tokens": True},
}
BACKBONES = ("test_resnet", "test_vit")
every_part = pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)


def build(tasks: dict[str, Task], parts: Parts, backbone: str = "test_resnet", width: int = 16) -> Network:
    torch.manual_seed(0)
    settings = {"backbone": backbone, "pretrained": False, "width": width, "htt": parts}
    return build_network("htt", tasks, ModelSettings.model_validate(settings))


def images(count: int = 3, height: int = 64, width: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def shaken(network: Network, strength: float = 0.1) -> Network:
    """What starts at 0 has an effect, and batch norm has seen images."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += strength * torch.randn_like(parameter)
        network.train()(images(4))
    return network.eval()


@pytest.mark.parametrize("parts", [p for n, p in PARTS.items() if n not in ("modulation", "none", "all")], ids=str)
def test_a_fresh_module_changes_nothing(parts: Parts, tiny_tasks: dict[str, Task]) -> None:
    plain, other = build(tiny_tasks, {}).eval(), build(tiny_tasks, parts).eval()
    fresh = other.load_state_dict(plain.state_dict(), strict=False)
    assert fresh.missing_keys
    assert not fresh.unexpected_keys
    with torch.no_grad():
        expected, found = plain(images()), other(images())
    for name, output in expected.items():
        assert_same_output(found[name], output, 1e-5)


def test_fresh_modulation_is_each_tasks_own_gate(tiny_tasks: dict[str, Task]) -> None:
    own, modulated = build(tiny_tasks, PARTS["none"]).eval(), build(tiny_tasks, PARTS["modulation"]).eval()
    modulated.load_state_dict(own.state_dict(), strict=False)
    with torch.no_grad():
        expected, found = own(images()), modulated(images())
    for name, output in expected.items():
        assert_same_output(found[name], output, 1e-5)


@every_part
@pytest.mark.parametrize("backbone", BACKBONES)
def test_gradients_reach_every_parameter(parts: Parts, backbone: str, tiny_tasks: dict[str, Task]) -> None:
    network = shaken(build(tiny_tasks, parts, backbone)).train()
    batch = random_batch(tiny_tasks, [list(tiny_tasks)] * 2)
    total_loss(terms_of(Htt(tiny_tasks, HttMethod()), batch, network, None)).backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    # A softmax does not feel what is added to all of its inputs.
    assert [name for name in still if ".key.bias" not in name] == []


@every_part
@pytest.mark.parametrize("backbone", BACKBONES)
def test_an_image_gets_what_is_its_own_and_rows_are_those_of_the_whole(
    parts: Parts, backbone: str, tiny_tasks: dict[str, Task]
) -> None:
    network = shaken(build(tiny_tasks, parts, backbone))
    assert_batch_independent(network, images())
    rows = {name: torch.tensor(r) for name, r in zip(tiny_tasks, ([2, 0], [1], [0, 1, 2], [1, 1], [2]), strict=True)}
    with torch.no_grad():
        whole, some = network(images()), network(images(), rows)
    for name, output in whole.items():
        assert_same_output(some[name], output.select(rows[name]))


@every_part
def test_every_part_can_be_intervened_on(parts: Parts, tiny_tasks: dict[str, Task]) -> None:
    network = shaken(build(tiny_tasks, parts))
    found = {(each.part, each.name): each for each in network.interventions()}
    assert (("token_update", "removed") in found) == bool(parts.get("token_update"))
    assert (("token_exchange", "removed") in found) == bool(parts.get("token_exchange"))
    assert (("global_tokens", "of another image") in found) == bool(parts.get("prompt_tokens"))
    with torch.no_grad():
        plain = network(images())
        for key, intervention in found.items():
            with applied(intervention):
                changed = network(images())
            assert any((plain[name].logits != changed[name].logits).any() for name in plain), key


def test_a_token_gathers_the_mean_feature_of_its_pixels() -> None:
    feature, logits = torch.randn(2, 4, 3, 5), 2 * torch.randn(2, 6, 3, 5)
    x, y = feature.double().numpy(), np.exp(logits.double().numpy())
    weights = y / y.sum(1, keepdims=True)
    expected = np.einsum("bkhw,bdhw->bkd", weights, x) / weights.sum((2, 3))[..., None]
    np.testing.assert_allclose(gather(feature, logits).numpy(), expected, atol=1e-5)


def test_the_exchange_is_softmax_attention_among_the_tokens_of_all_tasks() -> None:
    module, counts, width = TokenExchange([2, 3], 8, 2), [2, 3], 8
    torch.nn.init.normal_(module.out.weight)
    tokens = [torch.randn(1, count, width) for count in counts]
    with torch.no_grad():
        found = torch.cat(module(tokens), dim=1)[0].numpy()
        whole = torch.cat(tokens, dim=1)[0].numpy()
        marked = whole + np.repeat(module.task.numpy(), counts, axis=0)
        normal = (marked - marked.mean(1, keepdims=True)) / np.sqrt(marked.var(1, keepdims=True) + 1e-5)
        q, k, v = np.split(normal @ module.qkv.weight.numpy().T + module.qkv.bias.numpy(), 3, axis=1)
        mixed = []
        for part in (slice(0, 4), slice(4, 8)):
            weights = np.exp(q[:, part] @ k[:, part].T / 2)
            mixed.append(weights / weights.sum(1, keepdims=True) @ v[:, part])
        expected = whole + np.concatenate(mixed, axis=1) @ module.out.weight.numpy().T
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_tokens_run_through_the_last_quarter_of_a_vision_transformer(tiny_tasks: dict[str, Task]) -> None:
    network: Any = build(tiny_tasks, {"prompt_tokens": True}, "vit_tiny_patch16_224")
    blocks = network.backbone.network.model.blocks
    assert network.prompts is None
    assert network.prompted == list(blocks[9:])
    lengths: list[int] = []
    for block in blocks:
        block.attn.register_forward_hook(lambda module, inputs, output: lengths.append(inputs[0].shape[1]))
    network.eval()(images(2))
    patches = 1 + 16  # and the class token
    assert lengths == [patches] * 9 + [patches + len(tiny_tasks)] * 3
    assert last_blocks(build(tiny_tasks, {}).backbone.network) == []  # type: ignore[union-attr]


def test_the_exchange_of_tokens_is_less_than_two_percent_of_the_operations() -> None:
    nyud = {
        "semseg": {"kind": "classes", "classes": [f"c{k}" for k in range(13)]},
        "depth": {"kind": "depth", "range": [0.67, 10.0], "bins": 30},
        "normals": {"kind": "normals", "centres": 40},
    }
    tasks = {name: build_task(name, spec) for name, spec in nyud.items()}

    def flops(parts: Parts) -> int:
        network, image = build(tasks, parts, "tf_efficientnet_lite0", 64).eval(), images(1, 96, 128)
        with torch.no_grad():
            return count_flops(lambda: network(image))

    plain = flops({})
    assert plain < flops({"token_exchange": True}) < 1.02 * plain


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "paper", "htt": {"token_update": 1}}, "of the variant htt"),
        ({"fine_tokens": False, "htt": {"token_exchange": True}}, "fine_tokens is false"),
        ({"global_tokens": False, "htt": {"prompt_tokens": True}}, "global_tokens is false"),
        ({"htt": {"token_update": 3}}, "less than or equal to 2"),
    ],
)
def test_parts_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelSettings.model_validate(settings)


@pytest.mark.slow
def test_a_run_that_is_resumed_ends_with_the_same_weights(
    folder_root: Path, tmp_path: Path, make_config: Callable[..., Any]
) -> None:
    changes = {"model.htt": PARTS["all"], "model.backbone": "test_resnet", "data.check": False, "data.labels": "random"}
    run = train(make_config(folder_root, tmp_path / "run", **changes), quiet=True)
    last = complete_checkpoints(run / "checkpoints")[-1]
    train(stopped_at(run, tmp_path / "again", f"{last.name[0]}-0000002"), resume=True, quiet=True)
    for path in sorted(last.glob("*.safetensors")):
        again = tmp_path / "again" / "checkpoints" / last.name / path.name
        assert same_tensors(load_file(path), load_file(again)), path.name
