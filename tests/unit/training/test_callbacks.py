"""What a user hangs onto a run: when it is called, with what, and that it changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from properties import same_tensors
from tasktokens.config import Config
from tasktokens.training.callbacks import Callback
from tasktokens.training.checkpoint import complete_checkpoints, fault
from tasktokens.training.log import Row, read_rows
from tasktokens.training.trainer import Trainer, train

MakeConfig = Callable[..., Config]
CHANGES = {
    "method": {"name": "htt", "stage1_steps": 2, "stage2_steps": 3}, "run.validate_every": 2, "data.holdout": 0.34,
    "optim.batch_size": 2, "data.labels": "full", "data.check": False, "run.checkpoint_every": 3, "run.keep": 9,
}  # fmt: skip


@pytest.fixture(scope="session")
def make_config(make_config_of_two: MakeConfig) -> MakeConfig:
    """Two tasks will do."""
    return make_config_of_two


class Diary(Callback):
    """Writes down every call: its name, stage and step."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, int]] = []
        self.rows: list[Row] = []
        self.losses: list[float] = []

    def _note(self, event: str, trainer: Trainer) -> None:
        self.calls.append((event, trainer.stage.name, trainer.step))

    def on_start(self, trainer: Trainer) -> None:
        self._note("start", trainer)

    def on_stage_start(self, trainer: Trainer) -> None:
        self._note("stage", trainer)
        assert trainer.teacher is None
        assert (trainer.discoverer is not None) == (trainer.stage.name == "discovery" and trainer.step == 0)

    def on_step_start(self, trainer: Trainer) -> None:
        self._note("before", trainer)

    def on_step(self, trainer: Trainer) -> None:
        self._note("step", trainer)
        self.losses.append(float(trainer.losses["loss/depth"]))

    def on_log(self, trainer: Trainer, row: Row) -> None:
        self.rows.append(row)

    def on_checkpoint(self, trainer: Trainer, folder: Path) -> None:
        self._note("checkpoint", trainer)
        assert folder.parent == trainer.folder / "checkpoints"
        assert fault(folder) is None

    def on_validation(self, trainer: Trainer, row: Row) -> None:
        self._note("validation", trainer)
        assert row["validation"]["depth"]["absErr"] > 0

    def on_end(self, trainer: Trainer) -> None:
        self._note("end", trainer)
        assert (trainer.folder / "model" / "model.safetensors").is_file()

    def on_close(self, trainer: Trainer) -> None:
        self._note("close", trainer)


def test_every_moment_of_a_run_is_told_in_order_and_changes_nothing(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    diary = Diary()
    run = train(make_config(folder_root, tmp_path / "run", **CHANGES), quiet=True, callbacks=[diary])
    first, second = "supervised", "discovery"
    assert diary.calls == [
        ("start", first, 0), ("stage", first, 0), ("before", first, 0), ("step", first, 1), ("before", first, 1),
        ("checkpoint", first, 2), ("validation", first, 2), ("step", first, 2),
        ("stage", second, 0), ("before", second, 0), ("step", second, 1), ("before", second, 1),
        ("checkpoint", second, 2), ("validation", second, 2), ("step", second, 2), ("before", second, 2),
        ("checkpoint", second, 3), ("validation", second, 3), ("step", second, 3),
        ("close", second, 3), ("end", second, 3),
    ]  # fmt: skip
    rows = read_rows(run / "metrics.jsonl")
    assert diary.rows == rows
    assert diary.losses == [row["loss/depth"] for row in rows if "loss/depth" in row]
    alone = train(make_config(folder_root, tmp_path / "alone", **CHANGES), quiet=True)
    ours, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (run, alone))
    assert same_tensors(ours, theirs)


@pytest.mark.parametrize("event", ["on_step", "on_checkpoint", "on_validation"])
def test_an_error_of_a_callback_ends_the_run_which_can_go_on(
    event: str, folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    class Failing(Diary):
        pass

    def fail(self: Any, trainer: Trainer, *rest: Any) -> None:
        if trainer.stage.name == "discovery" and trainer.step == 2:
            raise ValueError("mine")

    setattr(Failing, event, fail)
    config, failing = make_config(folder_root, tmp_path / "run", **CHANGES), Failing()
    with pytest.raises(ValueError, match="mine"):
        train(config, quiet=True, callbacks=[failing])
    assert failing.calls[-1] == ("close", "discovery", 2)
    assert "ended by ValueError: mine" in (tmp_path / "run" / "log.txt").read_text()
    assert len(complete_checkpoints(tmp_path / "run" / "checkpoints")) == 2
    diary = Diary()
    train(config, resume=True, quiet=True, callbacks=[diary])
    steps = [(stage, step) for name, stage, step in diary.calls if name == "step"]
    assert steps == [("discovery", 3)]
    # A validation that was not written down is made up for.
    assert (("validation", "discovery", 2) in diary.calls) == (event == "on_checkpoint")
