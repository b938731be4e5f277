"""The blocks of the default variant equal their formulas, written with NumPy; their cost is linear in the pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tasktokens.models.layers import Design
from tasktokens.models.light import (
    ATTENDED,
    Context,
    LightHead,
    Pointwise,
    PooledAttention,
    TwoLevelFusion,
    scores,
    softplus,
)

CHANNELS = [8, 12, 16, 20]


def features(height: int, width: int, strides: tuple[int, ...] = (1, 2, 4, 8)) -> list[torch.Tensor]:
    sizes = [(-(-height // stride), -(-width // stride)) for stride in strides]
    return [torch.randn(2, c, *size) for c, size in zip(CHANNELS, sizes, strict=True)]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", [True, False])
def test_a_pointwise_convolution_is_one(layout: torch.memory_format, bias: bool) -> None:
    module, x = Pointwise(6, 5, bias), torch.randn(3, 6, 7, 4).contiguous(memory_format=layout)
    weight = module.weight.detach().numpy()[:, :, 0, 0]
    expected = np.einsum("oc,bchw->bohw", weight, x.numpy())
    if module.bias is not None:
        expected += module.bias.detach().numpy()[:, None, None]
    result = module(x)
    np.testing.assert_allclose(result.detach().numpy(), expected, atol=1e-5)
    assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("size", [(16, 24), (9, 7), (5, 1)])
def test_fusion_adds_each_scale_at_the_size_that_it_is_nearer_to(size: tuple[int, int]) -> None:
    module, maps = TwoLevelFusion(CHANNELS, 6), features(*size)
    fine, coarse = module(maps)
    parts = [project(x) for project, x in zip(module.project, maps, strict=True)]
    half = [-(-side // 2) for side in size]
    pooled = F.avg_pool2d(parts[0], 2, ceil_mode=True)
    larger = [F.interpolate(part, half, mode="bilinear", align_corners=False) for part in parts[1:]]
    torch.testing.assert_close(fine, parts[0])
    torch.testing.assert_close(coarse, pooled + sum(larger), atol=1e-5, rtol=1e-5)


def test_fusion_of_maps_of_one_size_keeps_them_all_at_that_size() -> None:
    module, maps = TwoLevelFusion(CHANNELS, 6), features(6, 10, (1, 1, 1, 1))
    fine, coarse = module(maps)
    total = sum(project(x) for project, x in zip(module.project, maps, strict=True))
    torch.testing.assert_close(fine, total)
    torch.testing.assert_close(coarse, F.avg_pool2d(total, 2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(6, 9), (40, 20), (37, 41)])
def test_pooled_attention_is_softmax_attention_over_the_pooled_positions_and_the_token(size: tuple[int, int]) -> None:
    width, heads, own = 8, 2, 4
    module = PooledAttention(width, heads)
    feature, token = torch.randn(2, width, *size), torch.randn(2, width)
    assert torch.equal(module(feature, token)[0], feature)  # fresh, it changes nothing
    module.out.reset_parameters()
    stride = next(s for s in range(1, 99) if size[0] * size[1] <= ATTENDED * s * s)
    with torch.no_grad():
        refined, new_token = module(feature, token)
        pooled = F.avg_pool2d(feature, stride, ceil_mode=True)
        matrix, bias = module.qkv.weight.numpy(), module.qkv.bias.numpy()
        for image in range(2):
            x = torch.cat([pooled[image].flatten(1).T, token[image : image + 1]]).numpy()
            normal = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
            q, k, v = np.split(normal @ matrix.T + bias, 3, axis=1)
            parts = []
            for part in (slice(0, own), slice(own, width)):
                weights = np.exp(q[:, part] @ k[:, part].T / own**0.5)
                parts.append(weights / weights.sum(1, keepdims=True) @ v[:, part])
            mixed = module.out(torch.from_numpy(np.concatenate(parts, axis=1)))
            spatial = mixed[:-1].T.reshape(1, width, *pooled.shape[-2:])
            enlarged = F.interpolate(spatial, size, mode="bilinear", align_corners=False)[0]
            torch.testing.assert_close(refined[image], feature[image] + enlarged, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(new_token[image], mixed[-1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(8, 12), (12, 16), (13, 16), (36, 48), (128, 128), (1, 5000), (500, 700)])
def test_the_positions_that_attend_are_bounded(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    kernel = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v: seen.append(len(q[0, 0])) or kernel(q, k, v))
    with torch.no_grad():
        PooledAttention(4, 1)(torch.randn(1, 4, *size), torch.randn(1, 4))
    area = size[0] * size[1]
    ragged = sum(size) if area > ATTENDED else 0  # a last row and column that is not whole
    assert min(area, ATTENDED // 5) < seen[0] <= min(area, ATTENDED + ragged) + 1


def test_context_mixes_neighbours_and_the_mean_of_the_image_alone() -> None:
    module = Context(6).eval()
    x = torch.randn(2, 6, 10, 12)
    with torch.no_grad():
        out = module(x)
        near = module.norm(module.project(sum(branch(x) for branch in module.branches)))
        whole = module.pool(x.mean((2, 3)))[..., None, None]
        torch.testing.assert_close(out, x + torch.relu(near + whole))
        torch.testing.assert_close(module(x[1:]), out[1:], atol=1e-5, rtol=1e-5)


def test_scores_are_inner_products() -> None:
    feature, tokens = torch.randn(2, 6, 4, 5), torch.randn(2, 3, 6)
    expected = np.einsum("bdhw,bkd->bkhw", feature.numpy(), tokens.numpy())
    np.testing.assert_allclose(scores(feature, tokens).numpy(), expected, atol=1e-5)


def test_softplus_has_the_values_and_the_gradient_of_its_formula() -> None:
    x = torch.linspace(-79, 79, 1001, requires_grad=True)
    y = softplus(x)
    y.sum().backward()
    wide = x.detach().numpy().astype(np.float64)
    np.testing.assert_allclose(y.detach().numpy(), np.logaddexp(0, wide), atol=1e-6, rtol=1e-6)
    np.testing.assert_allclose(x.grad.numpy(), 1 / (1 + np.exp(-wide)), atol=1e-6)  # type: ignore[union-attr]
    assert torch.isfinite(softplus(torch.tensor([-1e30, 1e30]))).all()


@pytest.mark.parametrize("size", [(16, 24), (9, 7), (1, 1)])
@pytest.mark.parametrize("fine_tokens", [True, False])
def test_a_head_gives_logits_at_the_finest_size_in_one_layout(size: tuple[int, int], fine_tokens: bool) -> None:
    design = Design(width=8, fused=8, light=True, heads=2, fine_tokens=fine_tokens)
    head = LightHead(5, CHANNELS, design).to(memory_format=torch.channels_last).eval()
    maps = [x.contiguous(memory_format=torch.channels_last) for x in features(*size)]
    with torch.no_grad():
        output = head(maps, [torch.randn(2, c) for c in CHANNELS])
    assert output.logits.shape == (2, 5, *size)
    assert output.confidence is not None
    assert output.confidence.shape == (2, 1, *size)
    for x in (output.logits, output.feature):
        assert x.is_contiguous(memory_format=torch.channels_last)
