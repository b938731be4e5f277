"""SegNet as a backbone: shapes, what is unpooled where, gradients, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from properties import assert_batch_independent, random_batch
from tasktokens.config import ModelSettings
from tasktokens.errors import WeightsError
from tasktokens.losses import masked_loss
from tasktokens.models import build_network
from tasktokens.models.backbones import Backbone
from tasktokens.models.segnet import SegNet
from tasktokens.tasks import Task

SMALL = (4, 6, 8, 10, 12)


@pytest.mark.parametrize("size", [(64, 96), (50, 70), (33, 47)])
def test_the_decoder_gives_maps_of_the_image_and_its_halves(size: tuple[int, int]) -> None:
    network = SegNet(SMALL).eval()
    with torch.no_grad():
        maps = network(torch.randn(2, 3, *size))
    halves = [size]
    for _ in range(3):
        halves.append((-(-halves[-1][0] // 2), -(-halves[-1][1] // 2)))
    assert [tuple(x.shape) for x in maps] == [(2, c, *s) for c, s in zip((4, 4, 6, 8), halves, strict=True)]
    assert [x.shape[1] for x in maps] == network.feature_info.channels()


def test_values_go_back_to_where_the_maximum_was() -> None:
    network = SegNet(SMALL, layers=(1, 1, 1, 1, 1)).eval()
    encoded: list[torch.Tensor] = []
    unpooled: list[torch.Tensor] = []
    network.encoder[0].register_forward_hook(lambda _m, _i, output: encoded.append(output))
    network.decoder[0].register_forward_pre_hook(lambda _m, inputs: unpooled.append(inputs[0]))
    with torch.no_grad():
        network(torch.randn(1, 3, 32, 32))
    windows, filled = (x[0].unfold(1, 2, 2).unfold(2, 2, 2).flatten(3).numpy() for x in (encoded[0], unpooled[0]))
    for channel in range(4):
        for row in range(16):
            for column in range(16):
                place = windows[channel, row, column].argmax()
                others = [v for k, v in enumerate(filled[channel, row, column]) if k != place]
                assert others == [0, 0, 0]


def test_networks_on_it_predict_at_full_size_and_learn_everywhere(tiny_tasks: dict[str, Task]) -> None:
    torch.manual_seed(0)
    network = build_network("mtl", tiny_tasks, ModelSettings(backbone="segnet", pretrained=False, width=16))
    batch = random_batch(tiny_tasks, [list(tiny_tasks)] * 2)
    outputs = network(batch.image)
    losses = []
    for name, task in tiny_tasks.items():
        assert outputs[name].logits.shape == (2, task.num_tokens, 64, 64)
        losses.append(masked_loss(task, outputs[name].logits, batch.labels[name].value, batch.labels[name].valid)[0])
    torch.stack(losses).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())
    assert_batch_independent(network, batch.image)


def test_it_has_no_imagenet_weights_and_takes_ones_own(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"'segnet'.*model\.pretrained=false"):
        Backbone("segnet", pretrained=True)
    torch.manual_seed(1)
    save_file(SegNet().state_dict(), tmp_path / "own.safetensors")
    torch.manual_seed(2)
    taken = Backbone("segnet", weights=tmp_path / "own.safetensors").network
    torch.manual_seed(1)
    assert all(torch.equal(a, b) for a, b in zip(taken.parameters(), SegNet().parameters(), strict=True))
