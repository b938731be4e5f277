"""Networks: the fast rewrites equal the formulas, images do not see each other, every parameter learns."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from properties import Hostile, assert_batch_independent, assert_same_output, random_batch, terms_of
from tasktokens.config import ModelSettings
from tasktokens.data.sample import Batch
from tasktokens.errors import ConfigError, WeightsError
from tasktokens.losses import masked_loss, mean, total_loss
from tasktokens.methods import METHODS, Htt, HttMethod, build_method
from tasktokens.models import NETWORKS, Network, build_network
from tasktokens.models.backbones import Backbone
from tasktokens.models.layers import Fusion, upsample, upsample_by_matrices
from tasktokens.models.light import LightDecoder
from tasktokens.models.tokens import CrossTaskGates, FineTokens
from tasktokens.tasks import Task
from tasktokens.tasks.base import channel_matmul, distribution, expectation

KINDS = [("htt", "htt"), ("htt", "paper"), ("mtl", "htt"), ("mtl", "paper")]
every_network = pytest.mark.parametrize(("kind", "variant"), KINDS, ids=["-".join(kind) for kind in KINDS])


def build(kind: str, variant: str, tasks: Mapping[str, Task], backbone: str = "test_resnet") -> Network:
    torch.manual_seed(0)
    return build_network(kind, tasks, ModelSettings(variant=variant, backbone=backbone, pretrained=False, width=16))  # type: ignore[arg-type]


def images(count: int, height: int = 64, width: int = 64) -> Tensor:
    return torch.randint(
        0, 256, (count, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def warm(network: Network) -> Network:
    """Batch-norm statistics of real data, so that evaluation mode is no special case of fresh ones."""
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(images(4))
    return network.eval()


def every_label(tasks: Mapping[str, Task], size: tuple[int, int] = (64, 64)) -> Batch:
    """Three images with labels of all tasks."""
    return random_batch(tasks, [list(tasks)] * 3, size)


def task_losses(network: Network, tasks: Mapping[str, Task], size: tuple[int, int] = (64, 64)) -> dict[str, Tensor]:
    """The loss of each task on a batch in which every label is given."""
    batch = every_label(tasks, size)
    outputs = network(batch.image)
    return {
        name: mean(
            *masked_loss(task, outputs[name].logits_at(size), batch.labels[name].value, batch.labels[name].valid)
        )
        for name, task in tasks.items()
    }


# -- exact rewrites (method notes, section 5) --------------------------------------------------------------------------
@pytest.mark.parametrize("light", [False, True])
def test_mixing_gates_is_mixing_gated_feature_maps(light: bool) -> None:
    tasks, width, channels = 3, 24, 10
    module = CrossTaskGates(tasks, width, channels, light)
    feature, stored = torch.randn(2, channels, 5, 7), torch.randn(tasks, width)
    with torch.no_grad():
        gates, mixed_tokens, affinity = module(feature, stored)
        tokens = torch.stack([module.project[t].T @ stored[t] for t in range(tasks)])
        spread = module.depth_wise(feature)
        factor = channels**-0.5 if light else 1.0
        maps = [feature * ((spread * g[:, None, None]).sum(1, keepdim=True) * factor).sigmoid() for g in tokens]
        scores = module.query(tokens) @ module.key(tokens).T / channels**0.5
        weights = scores.exp() / scores.exp().sum(1, keepdim=True)
        for t in range(tasks):
            literal = sum(weights[t, s] * maps[s] for s in range(tasks))
            torch.testing.assert_close(feature * gates[:, t : t + 1], literal, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(
                mixed_tokens[0, t], sum(weights[t, s] * tokens[s] for s in range(tasks)), atol=1e-5, rtol=1e-5
            )
    torch.testing.assert_close(affinity, weights.expand(2, -1, -1))
    assert 0 <= gates.min() <= gates.max() <= 1


def test_an_affinity_of_the_image_starts_as_that_of_the_tokens_and_then_sees_what_the_gates_let_through() -> None:
    module = CrossTaskGates(3, 24, 10, light=True, image_affinity=True)
    stored, feature = torch.randn(3, 24), torch.randn(4, 10, 5, 7)
    with torch.no_grad():
        start = module(feature, stored)[2]
        torch.testing.assert_close(start, start[:1].expand(4, -1, -1))
        assert module.seen is not None
        module.seen[1].weight.normal_()
        gates, tokens, affinity = module(feature, stored)
        assert (affinity[0] - affinity[1]).abs().max() > 1e-3
        torch.testing.assert_close(affinity.sum(2), torch.ones(4, 3))
        # An image's affinity is its own: alone it is the same.
        torch.testing.assert_close(module(feature[2:3], stored)[2], affinity[2:3])
        own = module.own_gates(module.depth_wise(feature), module.tokens_here(stored))
        torch.testing.assert_close(gates, torch.einsum("bts,bshw->bthw", affinity, own))
        torch.testing.assert_close(tokens, torch.einsum("bts,sc->btc", affinity, module.tokens_here(stored)))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(12, 18), (9, 7), (3, 11)])
def test_what_a_gpu_upsamples_by_is_bilinear_interpolation(layout: torch.memory_format, size: tuple[int, int]) -> None:
    x = torch.randn(2, 5, 6, 9, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    weights = torch.randn(2, 5, *size, dtype=torch.float64)
    results = []
    for function in (upsample, upsample_by_matrices):
        y = function(x, size)
        (gradient,) = torch.autograd.grad((y * weights).sum(), x)
        results.append((y, gradient))
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert upsample_by_matrices(x.bfloat16(), size).dtype == torch.bfloat16
        assert upsample_by_matrices(x.float(), size).dtype == torch.float32


@pytest.mark.parametrize("kind", list(NETWORKS))
def test_logits_are_fp32_under_autocast_and_stay_so_at_any_size(tiny_tasks: dict[str, Task], kind: str) -> None:
    network = build_network(kind, tiny_tasks, ModelSettings(backbone="resnet18", pretrained=False, width=16)).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        outputs = network(torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8))
        for output in outputs.values():
            assert output.logits.dtype == output.logits_at((40, 50)).dtype == torch.float32
            assert output.confidence is None or output.confidence.dtype == torch.float32


def test_fusion_is_a_1x1_convolution_over_the_concatenated_upsampled_scales() -> None:
    channels, sizes = [3, 5, 7, 4], [(16, 24), (8, 12), (4, 6), (2, 3)]
    module = Fusion(channels, 9)
    maps = [torch.randn(2, c, *size) for c, size in zip(channels, sizes, strict=True)]
    with torch.no_grad():
        fast = module(maps)
        stacked = torch.cat([F.interpolate(x, sizes[0], mode="bilinear", align_corners=False) for x in maps], dim=1)
        weight = torch.cat([project.weight for project in module.project], dim=1)
        literal = F.conv2d(stacked, weight, module.project[0].bias)
    torch.testing.assert_close(fast, literal, atol=1e-5, rtol=1e-5)
    assert sum(project.bias is not None for project in module.project) == 1


def test_class_scores_are_the_product_of_features_and_tokens() -> None:
    count, width = 7, 16
    module = LightDecoder(count, width)
    feature, tokens = torch.randn(2, width, 5, 6), torch.randn(2, count, width)
    with torch.no_grad():
        product = feature[None] * tokens.transpose(0, 1)[..., None, None]  # (K, B, C, H, W)
        scores = product.sum(2).transpose(0, 1) * width**-0.5
        literal = module.out(module.maps(feature) * torch.log1p(scores.exp()))
        torch.testing.assert_close(module(feature, tokens), literal, atol=1e-5, rtol=1e-5)


def test_channel_matmul_and_expectation_are_loops_over_pixels() -> None:
    matrix, x = torch.randn(3, 8), torch.randn(2, 8, 4, 5)
    fast = channel_matmul(matrix, x)
    p = x.exp() / x.exp().sum(1, keepdim=True)
    mean_value = expectation(distribution(x), matrix.T)
    for b in range(2):
        for row in range(4):
            for column in range(5):
                torch.testing.assert_close(fast[b, :, row, column], matrix @ x[b, :, row, column], atol=1e-5, rtol=1e-5)
                own = sum(p[b, k, row, column] * matrix[:, k] for k in range(8))
                torch.testing.assert_close(mean_value[b, :, row, column], own, atol=1e-5, rtol=1e-5)


def test_fine_tokens_differ_by_class_and_by_image() -> None:
    tokens = FineTokens(5, 16)(torch.randn(2, 16))
    assert tokens.shape == (2, 5, 16)
    assert (tokens[0] - tokens[1]).abs().max() > 1e-3
    assert (tokens[:, 0] - tokens[:, 1]).abs().max() > 1e-3


# -- learning ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("variant", ["htt", "paper"])
def test_global_tokens_are_saved_trained_and_reached_by_every_task(variant: str, tiny_tasks: dict[str, Task]) -> None:
    """Defect 1 of the release."""
    network = build("htt", variant, tiny_tasks).train()
    assert isinstance(network.global_tokens, nn.Parameter)
    assert "global_tokens" in network.state_dict()
    assert any(p is network.global_tokens for p in network.parameters())
    losses = task_losses(network, tiny_tasks)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    for at, (name, loss) in enumerate(losses.items()):
        (gradient,) = torch.autograd.grad(loss, network.global_tokens, retain_graph=True)
        assert gradient[at].abs().max() > 0, name
        # The affinity passes it on to the tokens of the other tasks.
        assert (gradient.abs().amax(dim=1) > 0).all(), name
    before = network.global_tokens.detach().clone()
    sum(losses.values()).backward()  # type: ignore[union-attr]
    optimizer.step()
    assert (network.global_tokens != before).any(dim=1).all()


@every_network
def test_every_parameter_gets_a_gradient(kind: str, variant: str, tiny_tasks: dict[str, Task]) -> None:
    network = build(kind, variant, tiny_tasks).train()
    for parameter in network.parameters():  # what starts at 0 passes no gradient on
        parameter.data += 0.01 * torch.randn_like(parameter)
    terms = terms_of(build_method(METHODS[kind].settings_class(), tiny_tasks), every_label(tiny_tasks), network, None)
    total_loss(terms).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert without == []
    zero = {name for name, p in network.named_parameters() if (p.grad == 0).all()}
    # A softmax does not feel what is added to all of its inputs: the bias of a key is no function of anything.
    assert {name for name in zero if ".key.bias" not in name} == set()


@pytest.mark.parametrize("variant", ["htt", "paper"])
@pytest.mark.parametrize("fine_tokens", [True, False])
def test_the_loss_of_the_confidence_reaches_the_confidence_alone(
    variant: str, fine_tokens: bool, tiny_tasks: dict[str, Task]
) -> None:
    """Neither the backbone nor context, attention and tokens feel it, by whatever way."""
    torch.manual_seed(0)
    settings = {"backbone": "test_resnet", "pretrained": False, "width": 16, "fine_tokens": fine_tokens}
    network = build_network("htt", tiny_tasks, ModelSettings.model_validate({"variant": variant, **settings})).train()
    for parameter in network.parameters():  # what starts at 0 passes no gradient on
        parameter.data += 0.01 * torch.randn_like(parameter)
    method = Htt(tiny_tasks, HttMethod(confidence_loss=1.0))
    terms = terms_of(method, random_batch(tiny_tasks, [list(tiny_tasks)] * 2), network, None)
    total_loss([term for term in terms if term.name.startswith("confidence/")]).backward()
    reached = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {f"heads.{name}.confidence.project" for name in tiny_tasks}


def test_the_confidence_starts_as_the_inner_product_of_feature_and_token(tiny_tasks: dict[str, Task]) -> None:
    for variant, factor in (("paper", 1.0), ("htt", 16**-0.5)):
        for output in warm(build("htt", variant, tiny_tasks))(images(2)).values():
            assert output.token is not None
            expected = torch.einsum("bdhw,bd->bhw", output.feature, output.token)[:, None] * factor
            torch.testing.assert_close(output.confidence, expected, atol=1e-5, rtol=1e-4)


@every_network
def test_parameter_groups_hold_every_parameter_once(kind: str, variant: str, tiny_tasks: dict[str, Task]) -> None:
    network = build(kind, variant, tiny_tasks)
    groups = network.parameter_groups()
    assert {id(p) for p in groups["backbone"]} == {id(p) for p in network.backbone.parameters()}  # type: ignore[union-attr]
    every = [id(p) for parameters in groups.values() for p in parameters]
    assert sorted(every) == sorted(id(p) for p in network.parameters())
    names = {id(p): name for name, p in network.named_parameters()}
    of_tokens = {names[id(p)] for p in groups["tokens"]}
    assert bool(of_tokens) == (kind == "htt")
    assert of_tokens == {
        n
        for n in names.values()
        if n.startswith(("global_tokens", "gates")) or "fine_tokens" in n or "decoder.out" in n or ".confidence." in n
    }


@pytest.mark.parametrize("kind", NETWORKS)
def test_one_task_alone_is_a_network_too(kind: str, tiny_tasks: dict[str, Task]) -> None:
    tasks = {"depth": tiny_tasks["depth"]}
    losses = task_losses(build(kind, "htt", tasks).train(), tasks)
    assert torch.isfinite(losses["depth"])


# -- images do not see each other --------------------------------------------------------------------------------------
@every_network
def test_predictions_do_not_depend_on_the_rest_of_the_batch(
    kind: str, variant: str, tiny_tasks: dict[str, Task]
) -> None:
    """Defect 2 of the release."""
    assert_batch_independent(warm(build(kind, variant, tiny_tasks)), images(4))


@every_network
def test_rows_give_what_indexing_the_whole_output_gives(kind: str, variant: str, tiny_tasks: dict[str, Task]) -> None:
    network = warm(build(kind, variant, tiny_tasks))
    chosen = [[2, 0], [3], [], [0, 1, 2, 3], [1, 1]]
    rows = {name: torch.tensor(r, dtype=torch.int64) for name, r in zip(tiny_tasks, chosen, strict=True)}
    with torch.no_grad():
        whole, some = network(images(4)), network(images(4), rows)
    for name, output in whole.items():
        assert len(some[name].logits) == len(rows[name])
        fields = {
            field: None if (x := getattr(output, field)) is None else x[rows[name]]
            for field in ("logits", "feature", "confidence", "token")
        }
        assert_same_output(some[name], type(output)(**fields))
        assert some[name].logits_at((64, 64)).shape == (len(rows[name]), tiny_tasks[name].num_tokens, 64, 64)


@every_network
@pytest.mark.parametrize(("count", "height", "width"), [(1, 57, 91), (1, 64, 64), (3, 65, 33)])
def test_odd_sizes_and_single_images_can_be_trained_on(
    kind: str, variant: str, count: int, height: int, width: int, tiny_tasks: dict[str, Task]
) -> None:
    network = build(kind, variant, tiny_tasks).train()
    outputs = network(images(count, height, width))
    assert list(outputs) == list(tiny_tasks)
    for name, output in outputs.items():
        logits = output.logits_at((height, width))
        assert logits.shape == (count, tiny_tasks[name].num_tokens, height, width)
        assert torch.isfinite(logits).all()
        assert output.feature.shape[-2:] == output.logits.shape[-2:]
    sum(o.logits.sum() for o in outputs.values()).backward()  # type: ignore[union-attr]


def test_uint8_and_float_images_give_the_same() -> None:
    backbone = Backbone("test_resnet").eval()
    with torch.no_grad():
        for a, b in zip(backbone(images(1)), backbone(images(1).float()), strict=True):
            assert torch.equal(a, b)


# -- backbones ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name",
    ["mobilenetv3_small_050", "resnet10t", "convnext_atto", "test_efficientnet", "test_byobnet", "test_mambaout"],
)
def test_families_of_timm_give_four_maps(name: str, tiny_tasks: dict[str, Task]) -> None:
    backbone = Backbone(name).eval()
    with torch.no_grad():
        maps = backbone(images(2, 64, 96))
    assert [x.shape[1] for x in maps] == backbone.channels
    assert [tuple(x.shape[-2:]) for x in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    outputs = build("htt", "htt", tiny_tasks, name).eval()(images(1))
    assert outputs["depth"].logits.shape == (1, 8, 16, 16)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 96), (128, 64)])
def test_channels_last_backbones_are_turned_also_where_sizes_equal_channels(height: int, width: int) -> None:
    """This backbone's first map has 16 channels and, at 64 pixels, 16 rows: shapes cannot tell them apart."""
    backbone = Backbone("test_mambaout").eval()
    with torch.no_grad():
        raw = backbone.network((images(1, height, width).float() - backbone.mean) / backbone.std)
        for x, y in zip(backbone(images(1, height, width)), raw, strict=True):
            torch.testing.assert_close(x, y.permute(0, 3, 1, 2))


def test_an_unknown_backbone_is_a_config_error_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"resnet18x.*did you mean 'resnet18'"):
        Backbone("resnet18x")


def test_a_backbone_with_fewer_maps_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"levit_128s.*four feature maps"):
        Backbone("levit_128s")


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.safetensors do not exist"):
        Backbone("test_resnet", weights=tmp_path / "none.safetensors")


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_weights_of_a_whole_classifier_are_taken_over(ending: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    source = timm.create_model("test_resnet")
    path = tmp_path / f"weights.{ending}"
    if ending == "pth":
        torch.save(source.state_dict(), path)
    else:
        save_file(source.state_dict(), path)
    backbone = Backbone("test_resnet", weights=path)
    own, theirs = backbone.network.state_dict(), source.state_dict()
    assert sum(torch.equal(own[key], theirs[key]) for key in own if key in theirs) == len(own)


def test_weights_of_another_network_or_no_weights_are_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_convnext").state_dict(), tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "text.safetensors").write_text("no weights")
    for name in ("other.pth", "text.pth", "text.safetensors"):
        with pytest.raises(WeightsError, match=name):
            Backbone("test_resnet", weights=tmp_path / name)


def test_a_hostile_pickle_is_not_executed(tmp_path: Path) -> None:
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"conv1.weight": Hostile(tmp_path / "made")}))
    torch.save({"conv1.weight": Hostile(tmp_path / "made")}, tmp_path / "zip.pth")
    for name in ("plain.pth", "zip.pth"):
        with pytest.raises(WeightsError, match=name):
            Backbone("test_resnet", weights=tmp_path / name)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "error", [OSError("no route to host"), RuntimeError("404"), ValueError(""), ConnectionError("x\ny")]
)
def test_an_unreachable_hub_says_what_to_do_instead(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **settings: Any) -> None:
        raise error

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(WeightsError, match=r"model\.weights=.*model\.pretrained=false") as caught:
        Backbone("test_resnet", pretrained=True)
    assert "\n" not in str(caught.value)


def test_without_loading_weights_nothing_is_looked_up(
    monkeypatch: pytest.MonkeyPatch, tiny_tasks: dict[str, Task], tmp_path: Path
) -> None:
    """A saved model is built again without the hub and without the file that its backbone once came from."""
    asked: list[Any] = []
    create = timm.create_model

    def watch(*arguments: Any, **settings: Any) -> Any:
        asked.append(settings["pretrained"])
        return create(*arguments, **settings)

    monkeypatch.setattr(timm, "create_model", watch)
    settings = ModelSettings(backbone="test_resnet", pretrained=True, weights=tmp_path / "gone.pth", width=16)
    build_network("mtl", tiny_tasks, settings, load_weights=False)
    assert asked
    assert not any(asked)


@pytest.mark.parametrize(
    "name",
    ["swin_tiny_patch4_window7_224", "vit_tiny_patch16_224", "vit_small_patch14_dinov2", "vit_small_patch16_dinov3"],
)
def test_transformers_take_any_size(name: str, tiny_tasks: dict[str, Task]) -> None:
    network = build("htt", "htt", tiny_tasks, name).eval()
    for height, width in ((75, 110), (33, 47)):
        with torch.no_grad():
            output = network(images(1, height, width))["depth"]
        assert output.logits_at((height, width)).shape == (1, 8, height, width)
        assert output.logits.isfinite().all()


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"])
def test_transformers_built_for_one_size_take_another(name: str) -> None:
    backbone = Backbone(name).eval()
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 64, 96, dtype=torch.uint8))
    assert [x.shape[1] for x in maps] == backbone.channels
    assert all(x.shape[2] * 3 == x.shape[3] * 2 for x in maps)


def test_a_transformer_without_stages_gives_blocks_at_even_depths() -> None:
    """Compared with what comes out of each block, by hooks."""
    backbone = Backbone("vit_tiny_patch16_224").eval()
    blocks: list[Tensor] = []
    for block in backbone.network.model.blocks:
        block.register_forward_hook(lambda module, inputs, output: blocks.append(output))
    with torch.no_grad():
        maps = backbone(images(1, 64, 96))
    assert len(blocks) == 12
    assert [tuple(x.shape[2:]) for x in maps] == [(4, 6)] * 4
    patches = [x.flatten(2).transpose(1, 2) for x in maps]
    depths = [[torch.equal(x, block[:, -24:]) for block in blocks].index(True) for x in patches]
    assert depths == [2, 5, 8, 11]


@pytest.mark.parametrize("name", ["test_resnet", "mobilenetv3_small_050"])
def test_a_network_in_stages_gives_its_last_four(name: str) -> None:
    coarse = [item["reduction"] for item in Backbone(name).network.feature_info.get_dicts()]
    assert coarse == sorted(set(coarse))
    assert coarse[-1] == 32
