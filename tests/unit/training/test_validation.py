"""Validation during training: what it measures, that it disturbs nothing, and that the best network is kept."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from conftest import run_cli
from properties import assert_metrics_equal, same_tensors
from resuming import stopped_at
from tasktokens.config import Config, load_config
from tasktokens.datasets.open import open_data
from tasktokens.errors import ConfigError, DataError
from tasktokens.inference import evaluate as evaluating
from tasktokens.inference.evaluate import eval_dataset, evaluate, evaluate_network
from tasktokens.metrics import mean_improvement
from tasktokens.models.files import load_model, load_weights
from tasktokens.training.callbacks import validation as validating
from tasktokens.training.checkpoint import complete_checkpoints
from tasktokens.training.log import read_rows
from tasktokens.training.trainer import train

MakeConfig = Callable[..., Config]
METHOD = {"name": "htt", "stage1_steps": 4, "stage2_steps": 4}
# Labels of all tasks, so that the few images left to train on have each.
VALIDATING = {
    "run.validate_every": 2, "data.holdout": 0.34, "data.labels": "full", "optim.batch_size": 2, "data.check": False,
    "method": METHOD, "optim.lr": 5e-3,
}  # fmt: skip


@pytest.fixture(scope="session")
def make_config(make_config_of_two: MakeConfig) -> MakeConfig:
    """Two tasks will do."""
    return make_config_of_two


@pytest.fixture(scope="module")
def run(folder_root: Path, make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps in each of two stages, validated on two of six training images every two steps."""
    return train(make_config(folder_root, tmp_path_factory.mktemp("runs") / "run", **VALIDATING), quiet=True)


def validations(run: Path) -> list[dict[str, Any]]:
    return [row for row in read_rows(run / "metrics.jsonl") if "validation" in row]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    return tensors


# -- the score ---------------------------------------------------------------------------------------------------------
def test_the_score_is_the_geometric_mean_of_the_improvements() -> None:
    reference, higher = {"semseg": 10.0, "depth": 1.0}, {"semseg": True, "depth": False}
    assert mean_improvement(reference, reference, higher) == pytest.approx(0)
    assert mean_improvement({"semseg": 40.0, "depth": 1.0}, reference, higher) == pytest.approx(100)
    assert mean_improvement({"semseg": 10.0, "depth": 0.25}, reference, higher) == pytest.approx(100)
    assert mean_improvement({"semseg": 5.0, "depth": 1.0}, reference, higher) < 0
    assert mean_improvement({"semseg": 0.0, "depth": 1.0}, reference, higher) == pytest.approx(-99.99, abs=0.01)


positive = st.floats(0.01, 100)


@given(st.tuples(positive, positive), st.tuples(positive, positive), st.tuples(positive, positive))
def test_which_is_better_does_not_depend_on_the_reference(
    one: tuple[float, float], other: tuple[float, float], reference: tuple[float, float]
) -> None:
    names, higher = ("a", "b"), {"a": True, "b": False}
    first, second, start = (dict(zip(names, values, strict=True)) for values in (one, other, reference))
    direct = mean_improvement(first, second, higher)
    scores = [mean_improvement(values, start, higher) for values in (first, second)]
    assert 1 + direct / 100 == pytest.approx((1 + scores[0] / 100) / (1 + scores[1] / 100), rel=1e-6)


# -- a run -------------------------------------------------------------------------------------------------------------
def test_rows_of_the_log_hold_the_metrics_of_the_network_of_that_step(run: Path) -> None:
    rows = validations(run)
    steps = [(row["stage"], row["step"]) for row in rows]
    assert steps == [("supervised", 2), ("supervised", 4), ("discovery", 2), ("discovery", 4)]
    assert all(row["split"] == "holdout" for row in rows)
    assert rows[0]["score"] == pytest.approx(0)
    config = load_config(run / "config.yaml")
    network, info = load_model(run)
    dataset = eval_dataset(open_data(config), "holdout", info.tasks, info.size)
    for row, checkpoint in zip(rows, complete_checkpoints(run / "checkpoints"), strict=True):
        load_weights(network, checkpoint / "student.safetensors")
        results = evaluate_network(network, dataset, 2, Accelerator(cpu=True))
        for name, values in results.items():
            stored = {k: float("nan") if v is None else v for k, v in row["validation"][name].items()}
            assert_metrics_equal(values, stored, tolerance=1e-3)


def test_the_best_network_is_kept_with_its_step(run: Path) -> None:
    rows = validations(run)
    best = max(rows, key=lambda row: row["score"])
    described = json.loads((run / "best" / "best.json").read_text())
    assert {k: described[k] for k in ("stage", "step", "score")} == {k: best[k] for k in ("stage", "step", "score")}
    number = 0 if best["stage"] == "supervised" else 1
    checkpoint = run / "checkpoints" / f"{number}-{best['step']:07d}"
    assert same_tensors(weights(run / "best"), load_file(checkpoint / "student.safetensors"))
    so_far = float("-inf")
    for row in rows:
        assert row["best"] == (row["score"] > so_far)
        so_far = max(so_far, row["score"])
    assert same_tensors(weights(run / "model"), load_file(run / "checkpoints" / "1-0000004" / "student.safetensors"))


def test_validating_does_not_change_the_training(
    run: Path, folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    other = train(make_config(folder_root, tmp_path / "run", **VALIDATING | {"run.validate_every": None}), quiet=True)
    assert same_tensors(weights(run / "model"), weights(other / "model"))
    assert not (other / "best").exists()
    losses = [
        [{k: v for k, v in row.items() if "loss" in k} for row in read_rows(r / "metrics.jsonl") if "lr" in row]
        for r in (run, other)
    ]
    assert losses[0] == losses[1]


def test_the_moving_average_is_validated_where_it_is_delivered(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    method = METHOD | {"schedule": "online", "stage1_steps": 1, "stage2_steps": 1}
    changes = VALIDATING | {"method": method, "run.validate_every": 99}
    run = train(make_config(folder_root, tmp_path / "run", **changes), quiet=True)
    assert [row["step"] for row in validations(run)] == [2]  # the last step is always validated
    last = complete_checkpoints(run / "checkpoints")[-1]
    assert same_tensors(weights(run / "best"), load_file(last / "teacher.safetensors"))
    assert same_tensors(weights(run / "best"), weights(run / "model"))


def test_evaluate_and_others_take_the_best_network(run: Path, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(run, tmp_path / "run")
    best = tmp_path / "run" / "best"
    results = evaluate(best, "holdout")
    described = json.loads((best / "best.json").read_text())
    for name, values in described["validation"].items():
        assert_metrics_equal(results[name], {k: float("nan") if v is None else v for k, v in values.items()}, 1e-3)
    assert (best / "evaluation-holdout.json").is_file()
    assert not (tmp_path / "run" / "evaluation-holdout.json").exists()
    code, out, err = run_cli(capsys, "evaluate", best, "--split", "holdout")
    assert code == 0, err
    assert "mIoU" in out
    assert run_cli(capsys, "discover", best, "--out", tmp_path / "found", "-q")[0] == 0


# -- resuming ----------------------------------------------------------------------------------------------------------
def comparable(run: Path) -> list[dict[str, Any]]:
    timing = ("images_per_second", "data_wait", "memory_mb", "minutes")
    return [{k: v for k, v in row.items() if k not in timing} for row in read_rows(run / "metrics.jsonl")]


@pytest.mark.parametrize("last", ["0-0000002", "0-0000004", "1-0000002", "1-0000004"])
@pytest.mark.parametrize("noted", [True, False], ids=["validated", "not validated"])
def test_a_resumed_run_has_the_same_validations_and_best(noted: bool, last: str, run: Path, tmp_path: Path) -> None:
    """Killed after its checkpoint, before or after the validation that belongs to it."""
    config = stopped_at(run, tmp_path / "run", last)
    stage, step = ("supervised", "discovery")[int(last[0])], int(last[2:])
    log = tmp_path / "run" / "metrics.jsonl"
    if not noted:
        lines = [line for line in log.read_text().splitlines() if '"validation"' not in line or f'"{stage}"' not in line
                 or json.loads(line)["step"] != step]  # fmt: skip
        log.write_text("".join(line + "\n" for line in lines))
    train(config, resume=True, quiet=True)
    rows = comparable(tmp_path / "run")
    assert sorted(map(str, rows)) == sorted(map(str, comparable(run)))
    assert (tmp_path / "run" / "best" / "best.json").read_bytes() == (run / "best" / "best.json").read_bytes()
    assert same_tensors(weights(tmp_path / "run" / "best"), weights(run / "best"))


def test_a_signal_during_a_validation_ends_the_run_and_resume_makes_up_for_it(
    run: Path,
    folder_root: Path,
    make_config: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = make_config(folder_root, tmp_path / "run", **VALIDATING)
    decode, calls = evaluating.decode_at, iter(range(10**6))

    def signalled(*arguments: Any) -> Any:
        if next(calls) == 0:
            signal.raise_signal(signal.SIGTERM)
        return decode(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(evaluating, "decode_at", signalled)
        # A signal is seen between two batches, so the two images must not be in one.
        patch.setattr(validating, "evaluate_network", lambda n, d, b, *a, **more: evaluate_network(n, d, 1, *a, **more))
        with pytest.raises(SystemExit) as stop:
            train(config, quiet=True)
    assert stop.value.code == 143
    assert "a validation was not finished" in capsys.readouterr().err
    assert [path.name for path in complete_checkpoints(tmp_path / "run" / "checkpoints")] == ["0-0000002"]
    assert validations(tmp_path / "run") == []
    train(config, resume=True, quiet=True)
    assert [row["score"] for row in validations(tmp_path / "run")] == [row["score"] for row in validations(run)]
    assert same_tensors(weights(tmp_path / "run" / "best"), weights(run / "best"))


# -- refusals ----------------------------------------------------------------------------------------------------------
def test_the_best_is_never_chosen_by_what_is_reported_or_trained_on(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    for changes, message in (
        ({"run.validate_on": "test", "run.evaluate": "test"}, "measured on these images"),
        ({"run.validate_on": "test"}, "measured on these images"),
        ({"run.validate_on": "train"}, "hidden labels stay hidden"),
    ):
        with pytest.raises(ConfigError, match=f"run.validate_on is .*{message}.*data.holdout"):
            train(make_config(folder_root, tmp_path / "run", **VALIDATING | changes), quiet=True)
    for changes, message in (({"data.holdout": 0.0}, "set aside"), ({"run.validate_on": "vla"}, "no split 'vla'")):
        with pytest.raises(DataError, match=message):
            train(make_config(folder_root, tmp_path / "run", **VALIDATING | changes), quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_split_without_labels_is_refused(own_folder: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    for name in ("depth", "semseg"):
        for number in (6, 7):
            (own_folder / name / f"im0{number}.png").unlink()
    (own_folder / "dataset.yaml").write_text((own_folder / "dataset.yaml").read_text().replace("test:", "val:"))
    changes = VALIDATING | {"run.validate_on": "val", "data.holdout": 0.0, "tasks": {"depth": {}, "semseg": {}}}
    with pytest.raises(DataError, match="no image of 'val' has a label"):
        train(make_config(own_folder, tmp_path / "run", **changes), quiet=True)
