"""The ``paper`` variant: its blocks equal their formulas in NumPy, and it starts as the release does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tasktokens.config import ModelSettings
from tasktokens.models import Network, build_network
from tasktokens.models.layers import Fusion
from tasktokens.models.paper import PaperFineTokens, PaperHead, TokenAttention, TokenDecoder
from tasktokens.models.tokens import CrossTaskGates
from tasktokens.tasks import Task, build_task

NYUD = {
    "semseg": {"kind": "classes", "classes": [f"class {k}" for k in range(13)]},
    "depth": {"kind": "depth", "range": [0.67, 10.0], "bins": 30},
    "normals": {"kind": "normals", "centres": 40},
}


@pytest.fixture(scope="module")
def published() -> Network:
    """At the published width, for the published tasks, as it starts."""
    torch.manual_seed(0)
    tasks: dict[str, Task] = {name: build_task(name, spec) for name, spec in NYUD.items()}
    return build_network("htt", tasks, ModelSettings(variant="paper", backbone="resnet18", pretrained=False))


def array(x: Tensor) -> np.ndarray:
    return x.detach().double().numpy()


# -- formulas ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("size", [(6, 8), (5, 7), (1, 3)])
def test_token_attention_is_softmax_attention_over_positions_and_the_token(heads: int, size: tuple[int, int]) -> None:
    width, own = 16, 16 // heads
    module = TokenAttention(width, heads).eval()
    feature, token = torch.randn(2, width, *size), torch.randn(2, width)
    with torch.no_grad():
        refined, new_token = module(feature, token)
    height, side = (-(-n // 2) for n in size)
    padded = np.pad(array(feature), ((0, 0), (0, 0), (0, size[0] % 2), (0, size[1] % 2)), mode="edge")
    cells = padded.reshape(2, width, height, 2, side, 2)
    for image in range(2):
        parts = {}
        for name in ("q", "k", "v"):
            kernel, bias = array(module.reduce[name].weight)[:, 0], array(module.reduce[name].bias)  # type: ignore[arg-type]
            reduced = np.einsum("chywx,cyx->hwc", cells[image], kernel).reshape(-1, width) + bias
            sequence = np.concatenate([reduced, array(token)[image][None]])
            linear = module.project[name]
            parts[name] = sequence @ array(linear.weight).T + array(linear.bias)  # type: ignore[arg-type]
        mixed = []
        for part in (slice(h * own, (h + 1) * own) for h in range(heads)):
            weights = np.exp(parts["q"][:, part] @ parts["k"][:, part].T / own**0.5)
            mixed.append(weights / weights.sum(1, keepdims=True) @ parts["v"][:, part])
        out = np.concatenate(mixed, axis=1)
        spatial = out[:-1] @ array(module.of_feature.weight).T + array(module.of_feature.bias)
        enlarged = nn.functional.interpolate(
            torch.from_numpy(spatial.T.reshape(1, width, height, side)).float(), size, mode="bilinear"
        )
        with torch.no_grad():
            torch.testing.assert_close(
                refined[image], module.refine(feature[image] + enlarged)[0], atol=1e-4, rtol=1e-4
            )
        expected = out[-1] @ array(module.of_token.weight).T + array(module.of_token.bias)
        np.testing.assert_allclose(array(new_token)[image], expected, atol=1e-5)


def test_class_scores_are_those_of_the_feature_after_a_depth_wise_convolution() -> None:
    module = TokenDecoder(7, 16)
    feature, tokens = torch.randn(2, 16, 5, 6), torch.randn(2, 7, 16)
    weight, bias = array(module.depth_wise.weight)[:, 0, 0, 0], array(module.depth_wise.bias)  # type: ignore[arg-type]
    scaled = array(feature) * weight[:, None, None] + bias[:, None, None]
    expected = np.logaddexp(0, np.einsum("bdhw,bkd->bkhw", scaled, array(tokens)))
    np.testing.assert_allclose(array(module.scores(feature, tokens)), expected, atol=1e-5)
    with torch.no_grad():
        literal = module.out(module.maps(feature) * torch.from_numpy(expected).float())
        torch.testing.assert_close(module(feature, tokens), literal, atol=1e-5, rtol=1e-5)


def test_the_index_enters_the_fine_tokens_as_a_linear_layer_on_one_hot_vectors() -> None:
    module, token = PaperFineTokens(5, 16), torch.randn(2, 16)
    with torch.no_grad():
        embedded = token[:, None] + module.index(torch.eye(5))
        torch.testing.assert_close(module(token), module.mix(embedded.mT).mT, atol=1e-5, rtol=1e-5)


# -- the start ---------------------------------------------------------------------------------------------------------
def test_all_after_the_backbone_starts_as_xavier_draws_it(published: Network) -> None:
    """Standard deviation sqrt(2 / (inputs + outputs)) by torch's count of both, biases 0."""
    fused = {id(m) for f in published.modules() if isinstance(f, Fusion) for m in f.project}
    seen = 0
    for name, module in published.named_modules():
        if name.startswith("backbone") or not isinstance(module, nn.Conv2d | nn.Linear) or id(module) in fused:
            continue
        weight = array(module.weight)
        area = np.prod(weight.shape[2:], dtype=int)
        expected = (2 / ((weight.shape[0] + weight.shape[1]) * area)) ** 0.5
        assert weight.std() == pytest.approx(expected, rel=5 / weight.size**0.5), name
        assert module.bias is None or not module.bias.any(), name
        seen += 1
    assert seen > 100


def test_the_fusion_starts_as_the_one_convolution_that_it_stands_for(published: Network) -> None:
    fusion = published.heads["depth"].fusion  # type: ignore[index,union-attr]
    weight = np.concatenate([array(project.weight) for project in fusion.project], axis=1)
    assert weight.shape[:2] == (512, 64 + 128 + 256 + 512)
    assert weight.std() == pytest.approx((2 / (512 + 960)) ** 0.5, rel=0.02)


@pytest.mark.parametrize(("task", "count"), [("semseg", 13), ("depth", 30), ("normals", 40)])
def test_the_index_is_small_beside_the_token(task: str, count: int, published: Network) -> None:
    head = published.heads[task]  # type: ignore[index]
    assert isinstance(head, PaperHead)
    assert isinstance(head.fine_tokens, PaperFineTokens)
    index = array(head.fine_tokens.index.weight)
    assert index.shape == (256, count)
    assert index.std() == pytest.approx(0.086, abs=0.005)


def test_few_gates_of_the_coarsest_scale_are_saturated(published: Network) -> None:
    """Of a feature of mean square 1, as batch norm leaves it: below 0.05 or above 0.95."""
    gates = published.gates[-1]  # type: ignore[index]
    assert isinstance(gates, CrossTaskGates)
    feature = torch.randn(8, 512, 9, 12).relu() * 2**0.5
    with torch.no_grad():
        own = gates.own_gates(gates.depth_wise(feature), gates.tokens_here(published.global_tokens))  # type: ignore[arg-type]
    saturated = ((own < 0.05) | (own > 0.95)).float().mean().item()
    assert 0 < saturated < 0.16
    assert gates.depth_wise.kernel_size == (1, 1)


def test_the_context_ends_in_a_bare_convolution(published: Network) -> None:
    _, last = published.heads["semseg"].context  # type: ignore[index,union-attr]
    assert isinstance(last, nn.Conv2d)
    assert (last.kernel_size, last.groups) == ((3, 3), 1)
