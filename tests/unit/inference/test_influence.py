"""What a part does is measured by changing it: effects that are known by construction, and those of HTT's parts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_explain import build, hooks, images, tasks  # noqa: F401, a fixture
from torch import Tensor, nn

from properties import random_label
from tasktokens import cli
from tasktokens.config import ModelSettings
from tasktokens.errors import DataError
from tasktokens.inference.influence import BATCH, batches, changes, influence
from tasktokens.models import Network, Rows, TaskOutput, build_network
from tasktokens.models.files import ModelInfo, save_model
from tasktokens.models.interventions import Intervention, applied
from tasktokens.tasks import Depth, Segmentation, Task

THREE = Segmentation("semseg", classes=("a", "b", "c"))


class Tokens(nn.Module):
    """The image's first pixel, as a class."""

    def forward(self, image_B3HW: Tensor) -> Tensor:
        return nn.functional.one_hot(image_B3HW[:, 0, 0, 0].long(), 3).float()


class ByToken(Network):
    """Every pixel of an image has the class of its token, as far as the gate lets it through; else class 0."""

    def __init__(self, gate: float) -> None:
        super().__init__({"semseg": THREE})
        self.tokens, self.gate = Tokens(), gate

    def forward(self, image_B3HW: Tensor, rows: Rows | None = None) -> dict[str, TaskOutput]:
        logits = self.gate * self.tokens(image_B3HW) + torch.tensor([0.5, 0.0, 0.0])
        whole = logits[..., None, None].expand(-1, -1, *image_B3HW.shape[-2:])
        return {"semseg": TaskOutput(whole, whole)}

    def interventions(self) -> Sequence[Intervention]:
        return (Intervention("tokens", "of another image", {self.tokens: lambda _, x: x.roll(1, 0)}, swaps=True),)


def of_classes(*classes: int) -> Tensor:
    return torch.tensor(classes, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 4, 6)


def test_what_passes_no_gate_changes_nothing_and_what_passes_it_changes_the_images_that_differ() -> None:
    image = of_classes(0, 1, 1, 2)  # each gets the token of the one before
    closed = changes(ByToken(0.0), image)["tokens", "of another image"]["semseg"]
    opened = changes(ByToken(1.0), image)["tokens", "of another image"]["semseg"]
    assert closed.tolist() == [0, 0, 0, 0]
    assert opened.tolist() == [100, 100, 0, 100]


@pytest.mark.parametrize(("kind", "expected"), [("htt", True), ("mtl", False)])
def test_a_network_offers_its_parts_or_none(kind: str, expected: bool, tasks: dict[str, Task]) -> None:  # noqa: F811
    network = build(kind, "htt", tasks)
    assert bool(network.interventions()) == expected
    assert bool(changes(network, images())) == expected


@pytest.mark.parametrize("variant", ["htt", "paper"])
@pytest.mark.parametrize("switch", [None, "global_tokens", "fine_tokens", "multi_scale"])
def test_every_part_of_htt_is_changed_and_left_as_it_was(
    variant: str,
    switch: str | None,
    tasks: dict[str, Task],  # noqa: F811
) -> None:
    torch.manual_seed(0)
    settings = {"variant": variant, "backbone": "test_resnet", "pretrained": False, "width": 16}
    network = build_network("htt", tasks, ModelSettings.model_validate(settings | ({switch: False} if switch else {})))
    for parameter in network.parameters():  # so that nothing is without effect because it starts at 0
        parameter.data += 0.1 * torch.randn_like(parameter)
    network.eval()
    plain = outputs(network)
    without_effect = {("task_tokens", "of another image")} if switch == "fine_tokens" else set()
    for intervention in network.interventions():
        with applied(intervention):
            changed = outputs(network)
        moved = max(float((plain[name] - changed[name]).abs().max()) for name in plain)
        key = (intervention.part, intervention.name)
        assert (moved > 0) == (key not in without_effect), key
    assert hooks(network) == 0
    assert all(torch.equal(plain[name], again) for name, again in outputs(network).items())


@torch.no_grad()
def outputs(network: Network) -> dict[str, Tensor]:
    return {name: output.logits for name, output in network(images()).items()}


@pytest.mark.parametrize("variant", ["htt", "paper"])
def test_each_change_is_what_its_name_says(variant: str, tasks: dict[str, Task]) -> None:  # noqa: F811
    network = build("htt", variant, tasks).eval()
    named = {(each.part, each.name): each for each in network.interventions()}
    assert len(named) == len(network.interventions())
    seen: dict[str, Any] = {}
    head, gates = network.heads["semseg"], network.gates[1]  # type: ignore[index]
    handles = [
        module.register_forward_hook(lambda _, inputs, output, name=name: seen.update({name: (inputs, output)}))
        for name, module in {"fine": head.fine_tokens, "gates": gates, "decoder": head.decoder}.items()  # type: ignore[union-attr]
    ]
    with torch.no_grad():
        network(images(3))
        before = dict(seen)
        for key in (("fine_tokens", "of another image"), ("gates", "mean over tasks"), ("scale2", "removed")):
            with applied(named[key]):
                network(images(3))
            tokens, mixed = seen["decoder"][0][1], seen["gates"][1][0]
            if key[0] == "fine_tokens":
                assert torch.equal(tokens, before["fine"][1][[2, 0, 1]])
        assert not mixed_of(network, named["scale2", "removed"], gates).any()
        mean = mixed_of(network, named["gates", "mean over tasks"], gates)
        expected = np.asarray(before["gates"][1][0]).mean(1)
        np.testing.assert_allclose(mean[:, 0].numpy(), expected, atol=1e-6)
        assert torch.equal(mean[:, 0], mean[:, 2])
    for handle in handles:
        handle.remove()
    assert mixed.shape == mean.shape


def mixed_of(network: Network, intervention: Intervention, gates: nn.Module) -> Tensor:
    """The gates of a scale that the heads get."""
    kept: list[Tensor] = []
    with applied(intervention):
        handle = gates.register_forward_hook(lambda _, inputs, output: kept.append(output[0]))
        network(images(3))
        handle.remove()
    return kept[0]


FLAT = "no spatial branch"


def test_untrained_fine_tokens_know_nothing_of_their_image(tasks: dict[str, Task]) -> None:  # noqa: F811
    """In ``htt`` the image's part of the token starts at 0: swapping tokens changes nothing but rounding. So does what
    the attention adds.
    """
    network = build("htt", "htt", tasks)
    found = changes(network, images())
    for key in (("fine_tokens", "of another image"), ("task_tokens", "of another image"), ("attention", FLAT)):
        assert all(change.max() < 1e-4 for change in found[key].values())
    for head in network.heads.values():  # type: ignore[operator,union-attr]
        head.attention.out.reset_parameters()
    found = changes(network, images())
    assert all(change.max() < 1e-4 for change in found["fine_tokens", "of another image"].values())
    assert any(change.max() > 1e-3 for change in found["attention", FLAT].values())


# -- differences -------------------------------------------------------------------------------------------------------
def test_differences_are_in_the_unit_of_the_task(tiny_tasks: Mapping[str, Task]) -> None:
    rng = np.random.default_rng(0)
    for task in tiny_tasks.values():
        a, b = (random_label(task, (5, 7), rng)[None] for _ in range(2))
        difference = task.difference(a, b)
        assert difference.shape == (1, 1, 5, 7)
        assert not task.difference(a, a).any()
        x, y = a.double().numpy(), b.double().numpy()
        expected = {
            "%": lambda x, y: 100.0 * (x != y),
            "°": lambda x, y: np.degrees(np.arccos((x * y).sum(1, keepdims=True).clip(-1, 1))),
        }.get(task.difference_unit, lambda x, y: abs(x - y).mean(1, keepdims=True))(x, y)
        np.testing.assert_allclose(difference.numpy(), expected, atol=1e-3, rtol=1e-4)
    assert Depth("depth", minimum=1.0, maximum=2.0).difference_unit == "m"
    assert replace(Depth("depth", minimum=0.1, maximum=0.5), inverse=True).difference_unit == ""


# -- batches -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("count", [2, 3, BATCH, BATCH + 1, BATCH + 2, 2 * BATCH + 1, 3 * BATCH])
def test_no_image_is_alone_and_none_is_left_out(count: int) -> None:
    made = [ids for ids, _ in batches((str(n), torch.zeros(3, 2, 2)) for n in range(count))]
    assert [id for ids in made for id in ids] == [str(n) for n in range(count)]
    assert all(2 <= len(ids) <= BATCH + 1 for ids in made)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_are_refused(count: int) -> None:
    with pytest.raises(DataError, match=f"at least two; found {count}"):
        list(batches((str(n), torch.zeros(3, 2, 2)) for n in range(count)))


# -- the verb ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def model(tmp_path: Path, tiny_tasks: dict[str, Task]) -> Callable[[str], Path]:
    def save(kind: str) -> Path:
        settings = ModelSettings(backbone="test_resnet", pretrained=False, width=16)
        torch.manual_seed(0)
        network = build_network(kind, tiny_tasks, settings)
        save_model(tmp_path / kind, network, ModelInfo(kind, settings, tiny_tasks, (32, 48)))
        return tmp_path / kind

    return save


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int | str | None:
    monkeypatch.setattr("sys.argv", ["tasktokens", *map(str, arguments)])
    with pytest.raises(SystemExit) as raised:
        cli.main()
    return raised.value.code


def test_the_table_has_80_columns_and_the_file_has_every_image(
    model: Callable[[str], Path],
    folder_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = run(monkeypatch, "explain", model("htt"), folder_root / "images", "--influence", "--out", tmp_path / "out")
    assert not code
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "fine_tokens" in shown
    assert "saliency" in shown
    written = json.loads((tmp_path / "out" / "influence.json").read_text())
    assert written["units"] == {"semseg": "%", "depth": "m", "normals": "°", "edge": "", "saliency": ""}
    assert set(written["by_image"]) == {f"im0{n}" for n in range(8)}
    for at, row in enumerate(written["rows"]):
        each = [rows[at]["changed"] for rows in written["by_image"].values()]
        assert row["changed"] == pytest.approx(np.mean(each), abs=2e-4)


def test_json_is_the_rows_alone_and_a_single_image_is_refused_without_hindering_the_next_command(
    model: Callable[[str], Path],
    folder_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ("explain", model("htt"), folder_root / "images" / "im00.png")
    options = ("--influence", "--json", "-q", "--out", tmp_path / "out")
    assert run(monkeypatch, *arguments, *options) == 2
    assert "at least two" in capsys.readouterr().err
    assert not run(monkeypatch, *arguments, folder_root / "images" / "im01.png", *options)
    rows = json.loads(capsys.readouterr().out)
    assert {"part", "intervention", "task", "changed", "unit"} == set(rows[0])


def test_a_network_without_such_parts_says_so(
    model: Callable[[str], Path],
    folder_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert influence(model("mtl"), folder_root / "images", None).rows == ()
    out = tmp_path / "out"
    assert not run(monkeypatch, "explain", model("mtl"), folder_root / "images", "--influence", "--out", out)
    assert "names no parts that can be exchanged" in capsys.readouterr().err


def test_images_or_influence_must_be_asked_for(
    model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "explain", model("htt")) == 2
    assert "give the images to explain" in capsys.readouterr().err
