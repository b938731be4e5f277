"""Trackers: TensorBoard's files hold what metrics.jsonl does; the others stay off the network unless asked."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import accelerate.tracking
import pytest

from tasktokens.config import Config, load_config
from tasktokens.errors import ConfigError
from tasktokens.training.callbacks import checkpoints as saving
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


# -- all others of accelerate ------------------------------------------------------------------------------------------
OTHERS = ["mlflow", "trackio", "comet_ml", "aim", "clearml", "dvclive", "swanlab"]


class Recorded:
    """In place of a tracker of accelerate: what it was started with, which must suit the one that it stands for."""

    started: ClassVar[list[tuple[str, dict[str, Any], Recorded]]] = []

    def __init__(self, name: str, real: Any, /, *arguments: Any, **options: Any) -> None:
        bound = inspect.signature(real.__init__).bind(None, *arguments, **options)
        self.settings: dict[str, Any] | None = None
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.tracker = SimpleNamespace(info=SimpleNamespace(run_id="given-by-mlflow"))
        self.finished = False
        self.started.append((name, dict(bound.arguments) | dict(bound.arguments.get("kwargs", {})), self))

    def start(self) -> None:
        pass

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.settings = values

    def log(self, values: dict[str, float], step: int) -> None:
        self.rows.append((step, values))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any], Recorded]]:
    """All of accelerate's trackers but two are installed, and record."""
    monkeypatch.setattr(Recorded, "started", [])
    for name in OTHERS:
        real = accelerate.tracking.LOGGER_TYPE_TO_CLASS[name]

        class Fake(Recorded):
            requires_logging_directory = real.requires_logging_directory
            __init__ = partialmethod(Recorded.__init__, name, real)

        monkeypatch.setitem(accelerate.tracking.LOGGER_TYPE_TO_CLASS, name, Fake)
    monkeypatch.setattr(accelerate.tracking, "_available_trackers", [accelerate.utils.LoggerType(n) for n in OTHERS])
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for variable in ("COMET_START_ONLINE", "SWANLAB_MODE", "MLFLOW_TRACKING_URI", "CLEARML_OFFLINE_MODE"):
        os.environ.pop(variable, None)
    return Recorded.started


def test_every_tracker_of_accelerate_gets_every_number_and_stays_in_the_run(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path, recorded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(folder_root, tmp_path / "run", **SHORT | {"run.track": OTHERS})
    with monkeypatch.context() as patch:
        kill_at(3, patch)
        with pytest.raises(KeyboardInterrupt):
            train(config, quiet=True)
    train(config, resume=True, quiet=True)
    first, second = recorded[: len(OTHERS)], recorded[len(OTHERS) :]
    assert [name for name, _, _ in first] == [name for name, _, _ in second] == OTHERS
    for (_, _, before), (_, _, after) in zip(first, second, strict=True):
        assert [step for step, values in before.rows + after.rows if "lr" in values] == [1, 2, 3, 3, 4, 5]
        assert before.finished
        assert after.finished
        assert before.settings is not None
        assert before.settings["optim.batch_size"] == 2
        assert all(isinstance(value, str | int | float) for value in before.settings.values())
        assert after.settings is None
    options = {name: given for name, given, _ in first}
    again = {name: given for name, given, _ in second}
    run = tmp_path / "run"
    assert (options["comet_ml"]["online"], options["swanlab"]["mode"]) == (False, "offline")
    assert options["comet_ml"]["experiment_key"] == again["comet_ml"]["experiment_key"]
    assert options["trackio"] == again["trackio"]
    assert "run_id" not in options["mlflow"]
    assert again["mlflow"]["run_id"] == "given-by-mlflow"
    assert (options["dvclive"]["resume"], again["dvclive"]["resume"]) == (False, True)
    assert Path(options["aim"]["logging_dir"]) == run / "aim"
    assert Path(options["dvclive"]["dir"]) == run / "dvclive"
    assert os.environ["MLFLOW_TRACKING_URI"] == (run / "mlflow").as_uri()
    assert os.environ["CLEARML_OFFLINE_MODE"] == "1"


def test_the_variables_of_a_tracker_decide(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path, recorded: Any
) -> None:
    os.environ |= {"COMET_START_ONLINE": "1", "MLFLOW_TRACKING_URI": "http://127.0.0.1:1", "SWANLAB_MODE": "cloud"}
    config = make_config(folder_root, tmp_path / "run", **SHORT | {"run.track": ["comet_ml", "mlflow", "swanlab"]})
    train(config, quiet=True)
    options = {name: given for name, given, _ in recorded}
    assert (options["comet_ml"]["online"], options["swanlab"]["mode"]) == (True, "cloud")
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:1"


@pytest.mark.parametrize(("name", "near"), [("mlfow", "mlflow"), ("comet", "comet_ml"), ("TensorBoard", "tensorboard")])
def test_a_tracker_that_nobody_knows_is_refused_with_the_nearest(
    name: str, near: str, folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f"no tracker '{name}' .did you mean '{near}'"):
        make_config(folder_root, tmp_path / "run", **{"run.track": [name]})


@pytest.mark.parametrize("name", ["tensorboard", "wandb", *OTHERS])
def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_done(
    name: str, folder_root: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerate.tracking, "_available_trackers", [])
    package = name.replace("_", "-")
    with pytest.raises(ConfigError, match=f"{name}, which is not installed: pip install {package}"):
        train(make_config(folder_root, tmp_path / "run", **{"run.track": [name]}), quiet=True)
    assert not (tmp_path / "run").exists()
