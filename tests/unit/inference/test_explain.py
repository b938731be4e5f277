"""Looking inside: the stages are those that the forward pass used, nothing is left behind, a picture shows them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import tasktokens
from conftest import CLASSES
from tasktokens import cli
from tasktokens.config import ModelSettings
from tasktokens.errors import CheckpointError, DataError, RunExistsError
from tasktokens.inference.predictor import Predictor
from tasktokens.models import Network, build_network
from tasktokens.models.explain import recording, stages
from tasktokens.models.files import ModelInfo, save_model
from tasktokens.tasks import Task, build_task

KINDS = [("htt", "htt"), ("htt", "paper"), ("mtl", "htt"), ("mtl", "paper")]
every_network = pytest.mark.parametrize(("kind", "variant"), KINDS, ids=["-".join(kind) for kind in KINDS])
TASKS = {"semseg": {"kind": "classes", "classes": CLASSES}, "depth": {"kind": "depth", "range": [0.5, 10.0], "bins": 8},
         "edge": {"kind": "edge"}}  # fmt: skip


def settings(variant: str = "htt", backbone: str = "test_resnet") -> ModelSettings:
    return ModelSettings(variant=variant, backbone=backbone, pretrained=False, width=16)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tasks() -> dict[str, Task]:
    return {name: build_task(name, spec) for name, spec in TASKS.items()}


def build(kind: str, variant: str, tasks: Mapping[str, Task], **changes: Any) -> Network:
    torch.manual_seed(0)
    return build_network(kind, tasks, settings(variant, **changes))


def images(count: int = 2, height: int = 48, width: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def hooks(network: Network) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules())


@every_network
def test_the_stages_end_in_what_the_network_returns(kind: str, variant: str, tasks: dict[str, Task]) -> None:
    network = build(kind, variant, tasks).eval()
    with torch.no_grad():
        before = network(images())
        seen = stages(network, images())
        after = network(images())
    for name in tasks:
        for field in ("logits", "feature", "confidence", "token"):
            expected = getattr(before[name], field)
            if expected is None:
                assert kind == "mtl"
                assert f"{name}.{field}" not in seen
            else:
                assert torch.equal(seen[f"{name}.{field}"], expected)
                assert torch.equal(getattr(after[name], field), expected)


@every_network
def test_names_and_shapes(kind: str, variant: str, tasks: dict[str, Task]) -> None:
    network = build(kind, variant, tasks)
    seen = stages(network, images(2))
    channels, count, width = network.backbone.channels, len(tasks), 16  # type: ignore[union-attr]
    fused = 16 if variant == "htt" else 32
    sizes = [tuple(seen[f"scale{i}.features"].shape[2:]) for i in range(1, 5)]
    assert sizes[0] > sizes[1] > sizes[2] > sizes[3]
    expected: dict[str, tuple[int, ...]] = {}
    for i, (c, size) in enumerate(zip(channels, sizes, strict=True), 1):
        expected[f"scale{i}.features"] = (2, c, *size)
        if kind == "htt":
            expected |= {f"scale{i}.{gates}": (2, count, *size) for gates in ("own_gates", "gates")}
            expected |= {f"scale{i}.affinity": (2, count, count), f"scale{i}.tokens": (2, count, c)}
            expected |= {f"{name}.gated{i}": (2, c, *size) for name in tasks}
    context = sizes[1] if (kind, variant) == ("htt", "htt") else sizes[0]
    for name, task in tasks.items():
        expected |= {f"{name}.fused": (2, fused, *context), f"{name}.context": (2, width, *context)}
        expected |= {f"{name}.feature": (2, width, *sizes[0])}
        expected |= {f"{name}.logits": (2, task.num_tokens, *sizes[0])}
        if kind == "htt":
            expected |= {f"{name}.{stage}": (2, task.num_tokens, *sizes[0]) for stage in ("token_maps", "class_maps")}
            expected |= {f"{name}.{token}": (2, width) for token in ("token", "global_token")}
            expected |= {f"{name}.fine_tokens": (2, task.num_tokens, width), f"{name}.confidence": (2, 1, *sizes[0])}
    assert {name: tuple(stage.shape) for name, stage in seen.items()} == expected


@pytest.mark.parametrize("variant", ["htt", "paper"])
def test_the_stages_follow_from_each_other(variant: str, tasks: dict[str, Task]) -> None:
    network = build("htt", variant, tasks)
    seen = stages(network, images())
    for i in range(1, 5):
        feature, own, affinity = (seen[f"scale{i}.{what}"] for what in ("features", "own_gates", "affinity"))
        assert own.min() >= 0
        assert own.max() <= 1
        torch.testing.assert_close(affinity.sum(2), torch.ones(2, len(tasks)))
        for t, name in enumerate(tasks):
            # The method's own words: the gated maps of all tasks, mixed.
            literal = sum(affinity[:, t, s, None, None, None] * feature * own[:, s : s + 1] for s in range(len(tasks)))
            torch.testing.assert_close(seen[f"{name}.gated{i}"], literal, atol=1e-5, rtol=1e-4)
            assert torch.equal(seen[f"{name}.gated{i}"], feature * seen[f"scale{i}.gates"][:, t : t + 1])
    for name in tasks:
        feature, tokens = seen[f"{name}.feature"], seen[f"{name}.fine_tokens"]
        decoder: Any = network.heads[name].decoder  # type: ignore[index, union-attr]
        scored = feature * 16**-0.5 if variant == "htt" else decoder.depth_wise(feature)
        scores = F.softplus(torch.einsum("bdhw,bkd->bkhw", scored, tokens))
        torch.testing.assert_close(seen[f"{name}.token_maps"], scores, atol=1e-5, rtol=1e-4)
        weighed = seen[f"{name}.class_maps"] * seen[f"{name}.token_maps"]
        torch.testing.assert_close(seen[f"{name}.logits"], decoder.out(weighed), atol=1e-5, rtol=1e-4)


def test_nothing_is_left_behind(tasks: dict[str, Task]) -> None:
    network = build("htt", "htt", tasks).train()
    network.backbone.eval()  # type: ignore[union-attr, operator]
    modes = [module.training for module in network.modules()]
    state = {key: value.clone() for key, value in network.state_dict().items()}
    hooked = hooks(network)
    seen = stages(network, images())
    assert not any(stage.requires_grad for stage in seen.values())
    with pytest.raises(ValueError, match="shape"):
        stages(network, images()[:, :1])
    with pytest.raises(RuntimeError, match="stop"), recording(network):
        raise RuntimeError("stop")
    assert hooks(network) == hooked
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_recording_a_training_pass_keeps_gradients(tasks: dict[str, Task]) -> None:
    network = build("htt", "htt", tasks).train()
    with recording(network) as seen:
        network(images())
    seen["depth.token_maps"].sum().backward()
    assert network.global_tokens.grad is not None  # type: ignore[union-attr]
    assert network.global_tokens.grad.abs().sum() > 0  # type: ignore[union-attr, operator]


def test_a_plain_vision_transformer(tasks: dict[str, Task]) -> None:
    seen = stages(build("htt", "htt", tasks, backbone="vit_tiny_patch16_224"), images(1, 64, 64))
    assert {tuple(seen[f"scale{i}.gates"].shape) for i in range(1, 5)} == {(1, len(tasks), 4, 4)}


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32), (0, 3, 32, 32), (1, 3, 0, 32)])
def test_bad_shapes(shape: tuple[int, ...], tasks: dict[str, Task]) -> None:
    with pytest.raises(ValueError, match="expected images of shape"):
        stages(build("mtl", "htt", tasks), torch.zeros(shape, dtype=torch.uint8))


# -- the verb ----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tasks: dict[str, Task]) -> dict[str, Path]:
    """A saved, untrained model of each kind."""
    base = tmp_path_factory.mktemp("models")
    for kind in ("htt", "mtl"):
        network = build(kind, "htt", tasks)
        save_model(base / kind, network, ModelInfo(kind, settings(), tasks, (32, 48)))
    return {kind: base / kind for kind in ("htt", "mtl")}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A landscape and, one folder down, a tall strip."""
    for name, (height, width) in {"a": (45, 60), "nested/b": (160, 30)}.items():
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        path = tmp_path / "in" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path / "in"


@pytest.mark.slow
def test_pictures_and_figures(models: dict[str, Path], photos: Path, tmp_path: Path, tasks: dict[str, Task]) -> None:
    pictures = tasktokens.explain(models["htt"], [photos], tmp_path / "out", quiet=True)
    assert pictures == [tmp_path / "out" / "a.png", tmp_path / "out" / "nested" / "b.png"]
    for path in pictures:
        drawn = np.asarray(Image.open(path).convert("RGB"))
        assert min(drawn.shape[:2]) > 300
        assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 100
    found = json.loads((tmp_path / "out" / "explain.json").read_text())
    assert found["tasks"] == list(tasks)
    assert set(found["images"]) == {"a", "nested/b"}
    figures = found["images"]["a"]
    for matrix in figures["affinity"].values():
        np.testing.assert_allclose(np.sum(matrix, axis=1), 1, atol=1e-3)
    predictor = Predictor(models["htt"])
    predictions = predictor(np.asarray(Image.open(photos / "a.png")))
    for name, own in figures["tasks"].items():
        assert own["confidence"] == pytest.approx(predictions[name].confidence.mean(), abs=1e-4)
        assert own["sure"] == pytest.approx((predictions[name].confidence > tasks[name].threshold).mean(), abs=1e-4)
        assert set(own["gates"]) == set(own["own_gates"]) == {"1", "2", "3", "4"}
        assert sum(own["tokens"].values()) == pytest.approx(1, abs=1e-2)
    assert set(figures["tasks"]["semseg"]["tokens"]) <= set(CLASSES)
    assert all(token.endswith(" m") for token in figures["tasks"]["depth"]["tokens"])


def test_a_baseline_shows_what_it_has(models: dict[str, Path], photos: Path, tmp_path: Path) -> None:
    tasktokens.explain(models["mtl"], [photos / "a.png"], tmp_path / "out", quiet=True)
    figures = json.loads((tmp_path / "out" / "explain.json").read_text())["images"]["a"]
    assert figures["affinity"] == {}
    assert set(figures["tasks"]["depth"]) == {"confidence", "sure"}


def test_every_kind_of_task_names_its_tokens(tiny_tasks: dict[str, Task]) -> None:
    for task in tiny_tasks.values():
        names = task.token_names()
        assert len(set(names)) == len(names) == task.num_tokens
        assert all(names)


def test_mistakes(models: dict[str, Path], photos: Path, tmp_path: Path) -> None:
    model, out = models["htt"], tmp_path / "out"
    with pytest.raises(CheckpointError, match="no trained model"):
        tasktokens.explain(tmp_path / "nothere", [photos], out)
    with pytest.raises(DataError, match="no image at"):
        tasktokens.explain(model, [photos / "nothere.jpg"], out)
    assert not out.exists()
    (photos / "broken.png").write_bytes((photos / "a.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"broken\.png"):  # the others are explained all the same
        tasktokens.explain(model, [photos], out, quiet=True)
    assert (out / "nested" / "b.png").is_file()
    assert set(json.loads((out / "explain.json").read_text())["images"]) == {"a", "nested/b"}
    with pytest.raises(RunExistsError, match="is not empty"):
        tasktokens.explain(model, [photos / "a.png"], out)
    tasktokens.explain(model, [photos / "a.png"], out, overwrite=True, quiet=True)
    assert set(json.loads((out / "explain.json").read_text())["images"]) == {"a"}


def test_the_command_line(
    models: dict[str, Path], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    words = ["tasktokens", "explain", str(models["mtl"]), str(photos / "*.png"), "--out", str(tmp_path / "out"), "-q"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert (tmp_path / "out" / "a.png").is_file()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "is not empty" in capsys.readouterr().err
