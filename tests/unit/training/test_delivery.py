"""A run delivers the better of its last student and that student's teacher, measured on held-out labels."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tasktokens.config import Config
from tasktokens.tasks import build_task
from tasktokens.training import delivery
from tasktokens.training.delivery import improvement
from tasktokens.training.trainer import train

MakeRun = Callable[..., Config]
TASKS = {
    "semseg": build_task("semseg", {"kind": "classes", "classes": ["a", "b"]}),
    "depth": build_task("depth", {"kind": "depth", "range": [0.5, 10.0]}),
}
SHORT = {"method.stage1_steps": 2, "method.stage2_steps": 2, "data.check": False, "tasks": {"semseg": {}, "depth": {}}}
HELD = {"data.holdout": 0.3}


@pytest.fixture
def settings(make_config: Callable[..., Config], folder_root: Path, tmp_path: Path) -> MakeRun:
    """Settings of a short run, and what is changed of them."""
    return lambda **changes: make_config(folder_root, tmp_path / "run", **(SHORT | changes))


def found(miou: float, error: float) -> dict[str, dict[str, float]]:
    return {"semseg": {"mIoU": miou}, "depth": {"absErr": error}}


@pytest.mark.parametrize(
    ("before", "after", "sign"),
    [
        (found(20, 0.5), found(21, 0.5), 1),
        (found(20, 0.5), found(20, 0.6), -1),
        (found(20, 0.5), found(30, 1.0), -1),  # half as deep an error is worth more than half of the mIoU
        (found(20, 0.5), found(20, 0.5), 0),
        ({"semseg": {"mIoU": 20.0}}, found(19, 0.1), -1),  # depth was not measured before
    ],
)
def test_improvement_is_over_the_tasks_that_both_measured(before: Any, after: Any, sign: int) -> None:
    change = improvement(TASKS, before, after)
    assert change is not None
    assert (change > 1e-9) - (change < -1e-9) == sign


def test_nothing_measured_is_no_improvement() -> None:
    assert improvement(TASKS, {}, found(20, 0.5)) is None
    assert improvement(TASKS, found(math.nan, math.nan), found(20, 0.5)) is None


def run(
    settings: MakeRun,
    monkeypatch: pytest.MonkeyPatch,
    teacher: dict[str, Any],
    student: dict[str, Any],
    **changes: Any,
) -> Path:
    """A run whose teacher and student measure as given."""
    measured = iter([teacher, student] * 2)
    monkeypatch.setattr(delivery, "_evaluate", lambda *_: next(measured))
    monkeypatch.setattr(delivery, "LEAST", 1)
    return train(settings(**(HELD | changes)), quiet=True)


def weights(folder: Path) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(folder / "model.safetensors").items()}


def test_a_student_that_is_worse_is_not_delivered_in_silence(
    settings: MakeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(settings, monkeypatch, found(30, 0.4), found(20, 0.6))
    assert weights(folder / "model") == weights(folder / "teacher")
    assert weights(folder / "student") != weights(folder / "teacher")
    record = json.loads((folder / "delivered.json").read_text())
    assert (record["network"], record["split"]) == ("teacher", "holdout")
    assert record["change"] < 0
    said = (folder / "log.txt").read_text()
    assert "WARNING: the student is worse than its teacher" in said
    train(settings(**HELD), resume=True, quiet=True)
    assert weights(folder / "model") == weights(folder / "teacher")


def test_a_student_that_is_better_is_delivered(settings: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run(settings, monkeypatch, found(20, 0.6), found(30, 0.4))
    assert weights(folder / "model") != weights(folder / "teacher")
    assert not (folder / "student").exists()
    assert json.loads((folder / "delivered.json").read_text())["network"] == "student"


def test_as_published_the_student_is_delivered_whatever_it_is(
    settings: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run(settings, monkeypatch, found(30, 0.4), found(20, 0.6), **{"method.deliver": "student"})
    assert weights(folder / "model") != weights(folder / "teacher")
    assert not (folder / "delivered.json").exists()


def test_without_held_out_labels_nothing_is_compared_and_it_says_so(settings: MakeRun) -> None:
    folder = train(settings(), quiet=True)
    assert not (folder / "delivered.json").exists()
    assert "student and teacher are not compared" in (folder / "log.txt").read_text()


def test_the_comparison_is_of_labels_that_were_not_trained_on(settings: MakeRun) -> None:
    folder = train(settings(**HELD), quiet=True)
    if (folder / "delivered.json").exists():
        record = json.loads((folder / "delivered.json").read_text())
        assert record["images"] >= delivery.LEAST
        assert {"teacher", "student"} <= record.keys()
    else:
        assert "fewer than" in (folder / "log.txt").read_text()
