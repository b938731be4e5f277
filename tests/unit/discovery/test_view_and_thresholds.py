"""The student's strong view, thresholds that learn, and the token level."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor

from method_fakes import PRESENT, build, by_name
from properties import random_batch, terms_of
from tasktokens.discovery.thresholds import Thresholds
from tasktokens.methods import Htt, HttMethod, StrongView, Term
from tasktokens.methods.strong_view import blur, strong_view
from tasktokens.tasks import Task
from tasktokens.training.step import combine, means_of
from tasktokens.training.trainer import train

MakeConfig = Callable[..., Any]


@pytest.fixture(scope="session")
def make_config(make_config_of_two: MakeConfig) -> MakeConfig:
    """Two tasks will do."""
    return make_config_of_two


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int = 6, height: int = 48, width: int = 64) -> Tensor:
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=seeded())


# -- the student's view ------------------------------------------------------------------------------------------------
def test_a_view_of_no_strength_is_the_image() -> None:
    image = pictures()
    assert torch.equal(strong_view(image, StrongView(photometric=0, grey=0, blur=0), seeded()), image)


def test_grey_images_have_equal_channels_and_the_others_are_left_alone() -> None:
    image = pictures(40)
    view = strong_view(image, StrongView(photometric=0, grey=0.5, blur=0), seeded())
    grey = (view == view[:, :1]).flatten(1).all(dim=1)
    assert 5 < int(grey.sum()) < 35
    assert (view[~grey].int() - image[~grey].int()).abs().max() <= 1


def test_blur_keeps_flat_images_and_means_and_takes_detail_away() -> None:
    image = pictures(8, 200, 160)
    blurred = blur(image, 1.0, seeded())
    assert torch.equal(blur(torch.full_like(image, 93), 1.0, seeded()), torch.full_like(image, 93))
    assert (blurred.float().mean((2, 3)) - image.float().mean((2, 3))).abs().max() < 2
    less = blurred.float().std((2, 3)) < image.float().std((2, 3)) - 1
    assert less.float().mean() > 0.5  # each by its own amount, some by next to nothing
    assert torch.equal(blur(image, 0.0, seeded()), image)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # as in a step of training
        assert torch.equal(blur(image, 1.0, seeded()), blurred)


def test_blur_of_some_leaves_the_others_as_they_are() -> None:
    image = pictures(40, 200, 32)
    same = (blur(image, 0.5, seeded()) == image).flatten(1).all(dim=1)
    assert 5 < int(same.sum()) < 35


def test_a_view_is_drawn_from_the_generator_alone() -> None:
    image, settings = pictures(), StrongView(blur=0.5)
    assert torch.equal(strong_view(image, settings, seeded()), strong_view(image, settings, seeded()))
    assert not torch.equal(strong_view(image, settings, seeded()), strong_view(image, settings, seeded(4)))


# -- the token level ---------------------------------------------------------------------------------------------------
def test_tokens_are_taught_where_labels_are_missing_and_agreement_costs_nothing(tiny_tasks: dict[str, Task]) -> None:
    network = build("htt", tiny_tasks).eval()
    batch = random_batch(tiny_tasks, PRESENT)
    method = Htt(
        tiny_tasks, HttMethod(teacher_views=1, token_level=0.5, strong=StrongView(photometric=0, grey=0, blur=0))
    )
    same = by_name(terms_of(method, batch, network, network))
    other = by_name(terms_of(method, batch, network, build("htt", tiny_tasks, 1).eval()))
    for name, task in tiny_tasks.items():
        assert same[f"token/{name}"].count == len(batch.labels[name].absent)
        assert same[f"token/{name}"].total.item() == pytest.approx(0, abs=1e-5)
        assert other[f"token/{name}"].total > 0
        assert other[f"token/{name}"].weight == 0.5 * task.weight
    assert not any(
        name.startswith("token/")
        for name in by_name(terms_of(Htt(tiny_tasks, HttMethod(token_level=0)), batch, network, network))
    )


# -- thresholds --------------------------------------------------------------------------------------------------------
def observe(thresholds: Thresholds, terms: list[Term]) -> None:
    thresholds.observe(means_of(terms, combine(terms, Accelerator(cpu=True))[1]))


def test_adaptive_thresholds_are_the_running_mean_confidence_of_each_class(tiny_tasks: dict[str, Task]) -> None:
    task = tiny_tasks["semseg"]
    thresholds = Thresholds(tiny_tasks, adaptive=True)
    prediction = torch.tensor([0, 0, 1, 3])[None, None, None]
    confidence = torch.tensor([0.9, 0.7, 0.4, 0.6])[None, None, None]
    pixels = torch.tensor([True, True, True, False])[None, None, None]
    assert (thresholds.of(task, prediction) == torch.tensor(task.threshold)).all()
    observe(thresholds, thresholds.statistics(task, prediction, confidence, pixels))
    found = thresholds.of(task, torch.arange(4)[None, None, None]).flatten()
    # Classes 2 and 3 were not met: they keep the task's own threshold.
    torch.testing.assert_close(found, torch.tensor([0.8, 0.4, task.threshold, task.threshold]))
    observe(thresholds, thresholds.statistics(task, prediction, confidence * 0 + 0.2, pixels))
    torch.testing.assert_close(thresholds.of(task, torch.zeros(1, 1, 1, 1)).item(), 0.5)


def test_a_teacher_s_nan_never_reaches_the_thresholds(tiny_tasks: dict[str, Task]) -> None:
    task = tiny_tasks["depth"]
    thresholds = Thresholds(tiny_tasks, adaptive=True)
    ones = torch.ones(1, 1, 2, 2)
    observe(thresholds, thresholds.statistics(task, ones, ones * float("nan"), ones.bool()))
    assert thresholds.of(task, ones).unique().item() == pytest.approx(task.threshold)
    observe(thresholds, thresholds.statistics(task, ones, ones * 0.3, ones.bool()))
    assert thresholds.of(task, ones).unique().item() == pytest.approx(0.3)


def test_fixed_thresholds_stay(tiny_tasks: dict[str, Task]) -> None:
    thresholds = Thresholds(tiny_tasks, adaptive=False)
    ones = torch.ones(1, 1, 2, 2)
    assert thresholds.statistics(tiny_tasks["depth"], ones, ones, ones.bool()) == []


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["two-stage", "online"])
def test_adaptive_thresholds_are_saved_and_a_resumed_run_ends_with_the_same_bits(
    schedule: str, folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    changes = {"method.thresholds": "adaptive", "method.schedule": schedule}
    whole = train(make_config(folder_root, tmp_path / "a", **changes), quiet=True)
    shutil.copytree(whole, tmp_path / "b")
    last = sorted((tmp_path / "b" / "checkpoints").iterdir())
    for later in last[-1:]:
        shutil.rmtree(later)
    config = make_config(folder_root, tmp_path / "b", **changes)
    text = (tmp_path / "b" / "config.yaml").read_text().replace(str(whole), str(tmp_path / "b"))
    (tmp_path / "b" / "config.yaml").write_text(text)
    train(config, resume=True, quiet=True)
    final = sorted((whole / "checkpoints").iterdir())[-1].name
    for part in ("student", "method", "optimizer"):
        a = load_file(whole / "checkpoints" / final / f"{part}.safetensors")
        b = load_file(tmp_path / "b" / "checkpoints" / final / f"{part}.safetensors")
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a), part
    learned = load_file(whole / "checkpoints" / final / "method.safetensors")
    assert any(bool((tensor > 0).any()) for key, tensor in learned.items() if key.endswith("_seen"))
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert not any(key.startswith("teacher/") for row in rows for key in row)
