"""FLOPs are those of the formulas, counted by hand, on a CPU and on no device at all."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tasktokens.config import ModelSettings
from tasktokens.models import build_network
from tasktokens.models.flops import count_flops
from tasktokens.models.light import ATTENDED, PooledAttention
from tasktokens.models.paper import TokenAttention
from tasktokens.tasks import Task


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(("batch", "heads", "queries", "keys", "width"), [(1, 1, 7, 7, 16), (2, 4, 30, 5, 8)])
def test_attention_is_two_products(device: str, batch: int, heads: int, queries: int, keys: int, width: int) -> None:
    q = torch.zeros(batch, heads, queries, width, device=device, requires_grad=True)
    k = torch.zeros(batch, heads, keys, width, device=device)
    by_hand = 2 * (2 * batch * heads * queries * keys * width)
    assert count_flops(lambda: F.scaled_dot_product_attention(q, k, k)) == by_hand
    with torch.no_grad():
        assert count_flops(lambda: F.scaled_dot_product_attention(q, k, k)) == by_hand


def test_a_backward_pass_through_attention_counts_on_a_cpu() -> None:
    q = torch.zeros(2, 3, 20, 8, requires_grad=True)
    product = 2 * 2 * 3 * 20 * 20 * 8
    # Forward two products; backward four, and the weights once more, which the kernel does not keep.
    assert count_flops(lambda: F.scaled_dot_product_attention(q, q, q).sum().backward()) == (2 + 5) * product


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_token_attention_by_hand(device: str) -> None:
    batch, width, height, side = 2, 16, 12, 20
    module = TokenAttention(width, heads=1).to(device)
    feature, token = torch.zeros(batch, width, height, side, device=device), torch.zeros(batch, width, device=device)
    full, reduced = height * side, (height // 2) * (side // 2)
    length = reduced + 1
    by_hand = (
        3 * 2 * batch * width * 4 * reduced  # depth-wise 2x2, stride 2, of queries, keys, values
        + 2 * batch * length * width * 4 * width  # queries, keys, values; output
        + 2 * (2 * batch * length * length * width)
        + 2 * batch * width * width * 9 * full  # refinement
    )
    assert count_flops(lambda: module(feature, token)) == by_hand


@pytest.mark.parametrize("size", [(12, 16), (36, 48), (90, 70)])
def test_pooled_attention_by_hand(size: tuple[int, int]) -> None:
    width = 16
    stride = next(s for s in range(1, 99) if size[0] * size[1] <= ATTENDED * s * s)
    length = -(-size[0] // stride) * -(-size[1] // stride) + 1
    by_hand = 2 * length * width * 4 * width + 2 * (2 * length * length * width)
    counted = count_flops(lambda: PooledAttention(width, 4)(torch.zeros(1, width, *size), torch.zeros(1, width)))
    assert counted == by_hand


@pytest.mark.parametrize(("kind", "variant"), [("htt", "htt"), ("htt", "paper"), ("mtl", "htt")])
def test_a_network_counts_the_same_on_a_cpu_and_on_no_device(
    kind: str, variant: str, tiny_tasks: dict[str, Task]
) -> None:
    settings = ModelSettings(variant=variant, backbone="test_resnet", pretrained=False, width=16)  # type: ignore[arg-type]
    network = build_network(kind, tiny_tasks, settings).eval()

    def counted(model: nn.Module, device: str) -> int:
        with torch.no_grad():
            return count_flops(lambda: model(torch.zeros(1, 3, 64, 96, dtype=torch.uint8, device=device)))

    on_cpu = counted(network, "cpu")
    assert on_cpu == counted(network.to("meta"), "meta") > 0


@pytest.mark.slow
def test_the_cost_of_heads_is_linear_in_the_pixels(tiny_tasks: dict[str, Task]) -> None:
    network = build_network("htt", tiny_tasks, ModelSettings(backbone="test_resnet", pretrained=False, width=16)).eval()
    network.to("meta")
    sides = (128, 512, 1024)
    counts = [
        count_flops(lambda side=side: network(torch.zeros(1, 3, side, side, dtype=torch.uint8, device="meta")))  # type: ignore[misc]
        for side in sides
    ]
    for side, count in zip(sides, counts, strict=True):
        assert count / counts[0] <= (side / sides[0]) ** 2
