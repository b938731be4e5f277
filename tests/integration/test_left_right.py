"""Left and right from the folder to the filled labels: second views, the model's memory of mirrors, and the warning."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from conftest import discovered_rows, run_cli
from tasktokens.discovery.pseudo_labels import enlarge, forward_views
from tasktokens.discovery.views import second_view
from tasktokens.inference.discover import discover
from tasktokens.inference.predictor import Predictor
from tasktokens.inspection.check import check
from tasktokens.methods import HttMethod, build_method
from tasktokens.models import TaskOutput
from tasktokens.models.files import load_model, read_info
from tasktokens.models.layers import upsample
from tasktokens.tasks import Task, build_task
from tasktokens.training.trainer import train

MakeConfig = Callable[..., Any]
CLASSES = ["background", "left arm", "right arm"]
PAIR = [["left arm", "right arm"]]
SIZE = (32, 64)


def arms(root: Path, **settings: Any) -> Path:
    """Eight images of two arms of one colour, the left one on the left half."""
    rng = np.random.default_rng(0)
    for number in range(8):
        image, ids = rng.integers(0, 60, (*SIZE, 3), dtype=np.uint8), np.zeros(SIZE, np.uint8)
        for half, class_ in ((0, 1), (SIZE[1] // 2, 2)):
            top, left = rng.integers(0, 12), half + rng.integers(2, 12)
            image[top : top + 16, left : left + 12], ids[top : top + 16, left : left + 12] = (200, 160, 120), class_
        for name, array in (("images", image), ("parts", ids)):
            (root / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(root / name / f"{number}.png")
    (root / "train.txt").write_text("\n".join("0123456"), encoding="utf-8")
    (root / "test.txt").write_text("7", encoding="utf-8")
    task = {"kind": "classes", "classes": CLASSES, **settings}
    description = {"splits": {"train": "train.txt", "test": "test.txt"}, "tasks": {"parts": task}}
    (root / "dataset.yaml").write_text(yaml.safe_dump(description), encoding="utf-8")
    return root


class Halves(torch.nn.Module):
    """Says by its place alone what is left and what is right, as a network that never saw a mirror image may."""

    def forward(self, image_B3HW: Tensor) -> dict[str, TaskOutput]:
        size = [side // 4 for side in image_B3HW.shape[-2:]]
        bright = upsample(image_B3HW.float(), size).mean(1, keepdim=True) / 255
        left = (torch.arange(size[1]) < size[1] // 2).float().expand_as(bright)
        logits = torch.cat([1 - bright, bright * left, bright * (1 - left)], dim=1) * 9
        return {"parts": TaskOutput(logits=logits, feature=logits, confidence=None, token=None)}


class Equivariant(torch.nn.Module):
    """Tells the arms by a colour that a mirror would exchange: its answer to a mirror image is the mirrored label."""

    def forward(self, image_B3HW: Tensor) -> dict[str, TaskOutput]:
        first = Halves()(image_B3HW)["parts"].logits
        second = Halves()(image_B3HW.flip(-1))["parts"].logits.flip(-1)[:, [0, 2, 1]]
        logits = first + second
        return {"parts": TaskOutput(logits=logits, feature=logits, confidence=None, token=None)}


def tasks_of(**settings: Any) -> dict[str, Task]:
    return {"parts": build_task("parts", {"kind": "classes", "classes": CLASSES, **settings})}


def image_of_arms() -> Tensor:
    image = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    image[..., 16:40, 8:24] = 200
    image[..., 20:44, 36:56] = 200
    return image


# -- views -------------------------------------------------------------------------------------------------------------
def test_a_second_view_that_is_not_mirrored_is_the_enlarged_image() -> None:
    image, network, tasks = image_of_arms(), Halves(), tasks_of()
    one, two = network(image)["parts"], forward_views(tasks, network, image, second_view(1.5), mirror=False)["parts"]
    larger = network(enlarge(image, 1.5))["parts"]
    torch.testing.assert_close(two.logits, (one.logits + upsample(larger.logits, (16, 16))) / 2)
    torch.testing.assert_close(two.feature, (one.feature + upsample(larger.feature, (16, 16))) / 2)
    mirrored = forward_views(tasks, network, image, second_view(1.5))["parts"]
    arm, found = one.logits.argmax(1) > 0, one.logits.argmax(1)
    kept, mixed = ((each.logits.argmax(1) == found)[arm].float().mean() for each in (two, mirrored))
    assert kept > 0.95
    assert mixed < 0.9, "a mirrored view would mix up left and right here"


def test_without_a_mirror_and_a_zoom_there_is_no_second_view() -> None:
    seen: list[Tensor] = []
    network = Halves()
    network.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0]))
    image = image_of_arms()
    found = forward_views(tasks_of(), network, image, second_view(1.0), mirror=False)
    assert len(seen) == 1
    assert torch.equal(found["parts"].logits, Halves()(image)["parts"].logits)


def test_a_mirrored_view_of_paired_classes_agrees_with_the_first() -> None:
    image, network = image_of_arms(), Equivariant()
    one, two = network(image)["parts"], forward_views(tasks_of(mirror=PAIR), network, image, second_view())["parts"]
    torch.testing.assert_close(two.logits, one.logits)
    torch.testing.assert_close(two.feature, one.feature)  # no mean of a left and a right arm's
    unpaired = forward_views(tasks_of(), network, image, second_view())["parts"]
    assert (unpaired.logits - one.logits).abs().max() > 1


@pytest.mark.parametrize("flip", [True, False])
def test_teachers_and_calibration_look_as_training_does(flip: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from properties import random_batch, terms_of
    from tasktokens.config import ModelSettings
    from tasktokens.discovery import calibration
    from tasktokens.methods import htt
    from tasktokens.models import build_network

    told: list[bool] = []

    def spy(*args: Any) -> dict[str, TaskOutput]:
        told.append(args[4])
        return forward_views(*args)

    monkeypatch.setattr(htt, "forward_views", spy)
    monkeypatch.setattr(calibration, "forward_views", spy)
    tasks = tasks_of(mirror=PAIR)
    network = build_network("htt", tasks, ModelSettings(backbone="test_resnet", pretrained=False, width=16)).eval()
    method = build_method(HttMethod(thresholds="calibrated"), tasks, flip)
    batch = random_batch(tasks, [["parts"], []])
    terms_of(method, batch, network, network)
    calibrator = method.calibrator()
    assert calibrator is not None
    calibrator.add(calibrator.start(), batch, network)
    assert told == [flip, flip]


# -- a run -------------------------------------------------------------------------------------------------------------
def run_of(make_config: MakeConfig, root: Path, run: Path, steps: int = 2, **changes: Any) -> Path:
    train(make_config(root, run, **{
        "data.size": list(SIZE), "data.labels": 0.5, "data.augmentation": {"scale": [1.0, 1.0]} | changes,
        "model.backbone": "test_resnet", "method": {"name": "mtl", "steps": steps}, "optim.lr": 0.01,
        "optim.batch_size": 7, "data.check": False,
    }), quiet=True)  # fmt: skip
    return run


def test_a_model_notes_its_pairs_and_whether_it_saw_mirror_images(make_config: MakeConfig, tmp_path: Path) -> None:
    root = arms(tmp_path / "data", mirror=PAIR)
    for flip in (True, False):
        run = run_of(make_config, root, tmp_path / f"run{flip}", flip=flip)
        info = read_info(run / "model")
        assert (info.mirrored, info.largest_zoom) == (flip, 1.0)
        assert Predictor(run, "cpu", views=2).zoom == (1.25 if flip else 1.0)  # of no size that training never had
        assert info.tasks["parts"].spec()["mirror"] == PAIR
    out = Path(discover(run, tmp_path / "out", quiet=True))
    assert yaml.safe_load((out / "dataset.yaml").read_text(encoding="utf-8"))["tasks"]["parts"]["mirror"] == PAIR

    path = run / "model" / "model.json"  # a model of before says neither
    values = json.loads(path.read_text(encoding="utf-8"))
    del values["mirrored"], values["largest_zoom"], values["tasks"]["parts"]["mirror"]
    path.write_text(json.dumps(values), encoding="utf-8")
    info = load_model(run)[1]
    assert (info.mirrored, info.largest_zoom) == (True, None)
    assert info.tasks == tasks_of()


@pytest.mark.slow
def test_discovery_of_two_views_keeps_left_and_right_where_training_did(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    """Two views fill in the arms as well as one, since the model remembers that it never saw a mirror image."""
    root = arms(tmp_path / "data")
    run = run_of(make_config, root, tmp_path / "run", steps=120, flip=False, scale=[1.0, 1.3])
    right = {}
    for views in (1, 2):
        out = Path(discover(run, tmp_path / f"out{views}", threshold=0.0, quiet=True, views=views))
        ids = [row["id"] for row in discovered_rows(out)]
        assert ids
        pairs = [[np.asarray(Image.open(f / "parts" / f"{id}.png")) for f in (out, root)] for id in ids]
        found = [found if found.ndim == 2 else found[..., 0] for found, _ in pairs]
        arm = [true > 0 for _, true in pairs]
        right[views] = np.mean([(f == t)[a].mean() for f, (_, t), a in zip(found, pairs, arm, strict=True)])
    assert right[1] > 0.7
    assert right[2] > right[1] - 0.05
    image = np.asarray(Image.open(root / "images" / "7.png"))
    predictor = Predictor(run, "cpu", views=2)
    once = predictor(image)["parts"].value_CHW
    predictor.info = type(predictor.info)(**{**vars(predictor.info), "mirrored": True})
    assert (predictor(image)["parts"].value_CHW != once).any()


# -- the warning -------------------------------------------------------------------------------------------------------
def codes(report: Any) -> list[str]:
    return [finding.code for finding in report.findings]


def test_check_warns_of_unpaired_arms_until_they_are_paired_or_nothing_is_mirrored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = arms(tmp_path / "data")
    report = check(root, workers=1)
    assert report.ok
    assert "left-right-unpaired" in codes(report)
    code, out, _ = run_cli(capsys, "check", root, "--workers", "1")
    assert code == 0
    assert "mirror: [[left arm, right arm]]" in out
    settings = {"data": {"kind": "folder", "root": str(root), "augmentation": {"flip": False}}}
    assert "left-right-unpaired" not in codes(check(settings, workers=1))
    assert "left-right-unpaired" not in codes(check(arms(tmp_path / "paired", mirror=PAIR), workers=1))


def test_check_names_a_pair_of_an_unknown_class(tmp_path: Path) -> None:
    (finding,) = check(arms(tmp_path / "data", mirror=[["left arm", "right amr"]]), workers=1).findings
    assert (finding.severity, finding.code) == ("error", "cannot-open")
    assert "did you mean 'right arm'?" in finding.message


@pytest.mark.parametrize("flip", [True, False])
def test_a_run_says_that_unpaired_arms_cannot_be_learned(
    flip: bool, make_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tasktokens.datasets.open import open_data
    from tasktokens.inspection.before_training import check_before_run

    changes = {"data.size": list(SIZE), "data.labels": "full", "data.augmentation": {"flip": flip}}
    config = make_config(arms(tmp_path / "data"), tmp_path / "run", **changes)
    for _ in range(2):  # also where the files were checked before
        check_before_run(open_data(config), config)
        assert ("mirror: [[left arm, right arm]]" in capsys.readouterr().err) is flip
