"""Trackers: TensorBoard's files hold what metrics.jsonl does; Weights & Biases stays off the network unless asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import accelerate.tracking
import pytest

from tasktokens.config import Config, load_config
from tasktokens.errors import ConfigError
from tasktokens.training.callbacks import checkpoints as saving
from tasktokens.training.callbacks import tracking as track
from tasktokens.training.log import read_rows
from tasktokens.training.trainer import train

MakeConfig = Callable[..., Config]
SHORT = {
    "method": {"name": "htt", "stage1_steps": 2, "stage2_steps": 3}, "run.validate_every": 2, "data.holdout": 0.34,
    "optim.batch_size": 2, "data.labels": "full", "data.check": False, "run.checkpoint_every": 1,
}  # fmt: skip


@pytest.fixture(scope="session")
def make_config(make_config_of_two: MakeConfig) -> MakeConfig:
    """Two tasks will do."""
    return make_config_of_two


def logged(run: Path, tag: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard" / "tasktokens"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def kill_at(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """End the run like a kill would, while it writes that many-th checkpoint: the step is in the log and not saved."""
    save, calls = saving.save_checkpoint, iter(range(1, 99))

    def saved(*arguments: Any) -> Path:
        if next(calls) == number:
            raise KeyboardInterrupt
        return save(*arguments)

    monkeypatch.setattr(saving, "save_checkpoint", saved)


def test_tensorboard_has_every_number_once_also_of_a_resumed_run(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    config = make_config(folder_root, tmp_path / "run", **SHORT | {"run.track": ["tensorboard"]})
    with monkeypatch.context() as patch:
        kill_at(3, patch)
        with pytest.raises(KeyboardInterrupt):
            train(config, quiet=True)
    train(config, resume=True, quiet=True)
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    starts = {"supervised": 0, "discovery": 2}
    losses = [(starts[row["stage"]] + row["step"], row["loss/depth"]) for row in rows if "loss/depth" in row]
    assert [step for step, _ in losses] == [1, 2, 3, 4, 5]
    assert logged(tmp_path / "run", "loss/depth") == [(step, pytest.approx(value)) for step, value in losses]
    found = logged(tmp_path / "run", "validation/depth/absErr")
    scores = [row for row in rows if "validation" in row]
    assert [step for step, _ in found] == [2, 4, 5] == [starts[row["stage"]] + row["step"] for row in scores]
    assert [v for _, v in found] == [pytest.approx(row["validation"]["depth"]["absErr"]) for row in scores]
    assert [v for _, v in logged(tmp_path / "run", "validation/score")] == pytest.approx([r["score"] for r in scores])


def test_a_run_without_trackers_writes_none(folder_root: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    train(make_config(folder_root, tmp_path / "run", **SHORT), quiet=True)
    assert not (tmp_path / "run" / "tensorboard").exists()
    assert not (tmp_path / "run" / "wandb").exists()


class FakeRun:
    def __init__(self) -> None:
        self.rows: list[tuple[dict[str, float], int]] = []
        self.finished = False

    def log(self, values: dict[str, float], step: int) -> None:
        self.rows.append((values, step))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], FakeRun]]:
    """A stand-in for the package: what was asked of ``wandb.init``, and the run that it gave."""
    started: list[tuple[dict[str, Any], FakeRun]] = []
    module = ModuleType("wandb")

    def init(**options: Any) -> FakeRun:
        started.append((options, FakeRun()))
        return started[-1][1]

    module.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "wandb", module)
    there = [*accelerate.tracking.get_available_trackers(), accelerate.tracking.LoggerType.WANDB]
    monkeypatch.setattr(accelerate.tracking, "_available_trackers", there)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return started


def test_wandb_stays_offline_unless_asked_and_goes_on_under_the_same_id(
    folder_root: Path,
    make_config: MakeConfig,
    tmp_path: Path,
    wandb: list[tuple[dict[str, Any], FakeRun]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = make_config(folder_root, tmp_path / "run", **SHORT | {"run.track": ["wandb"]})
    with monkeypatch.context() as patch:
        kill_at(2, patch)
        with pytest.raises(KeyboardInterrupt):
            train(config, quiet=True)
    monkeypatch.setenv("WANDB_MODE", "online")
    train(config, resume=True, quiet=True)
    (first, one), (second, other) = wandb
    assert (first["mode"], second["mode"]) == ("offline", "online")
    assert first["id"] == second["id"]
    assert first["dir"] == str(tmp_path / "run")
    assert (first["project"], first["name"]) == ("tasktokens", "run")
    assert first["config"]["optim"]["batch_size"] == load_config(tmp_path / "run" / "config.yaml").optim.batch_size == 2
    assert one.finished
    assert other.finished
    assert [step for values, step in one.rows + other.rows if "lr" in values] == [1, 2, 2, 3, 4, 5]
    assert all(isinstance(v, int | float) for values, _ in other.rows for v in values.values())


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_done(
    name: str, folder_root: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(track, "get_available_trackers", list)
    with pytest.raises(ConfigError, match=f"{name}, which is not installed: pip install {name}"):
        train(make_config(folder_root, tmp_path / "run", **{"run.track": [name]}), quiet=True)
    assert not (tmp_path / "run").exists()
