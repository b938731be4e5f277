"""A backbone with `optim.backbone_lr=0` stays as it started, through every kind of step; the heads learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tasktokens.training.trainer import train

OWN = "backbone."


def weights(run: Path) -> dict[str, Any]:
    return load_file(run / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def before(folder_root: Path, make_config: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose backbone learned, so that its statistics are those of no fresh one."""
    run = tmp_path_factory.mktemp("frozen") / "before"
    return train(make_config(folder_root, run, **{"method": {"name": "mtl", "steps": 3}}), quiet=True)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"method": {"name": "mtl", "steps": 2}}, id="mtl"),
        pytest.param({"method": {"name": "htt", "stage1_steps": 2, "stage2_steps": 2}}, id="htt"),
        pytest.param({"method": {"name": "stl", "steps": 2}}, id="stl", marks=pytest.mark.slow),
        pytest.param(
            {"method": {"name": "htt", "stage1_steps": 2, "stage2_steps": 2, "teacher": "live", "ema": 0.9}},
            id="average",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"method": {"name": "mtl", "steps": 2}, "optim.balance": "upgrad"}, id="upgrad", marks=pytest.mark.slow
        ),
    ],
)
def test_a_frozen_backbone_keeps_weights_and_statistics(
    settings: dict[str, Any], before: Path, folder_root: Path, make_config: Any, tmp_path: Path
) -> None:
    frozen = {"model.weights": str(before), "optim.backbone_lr": 0}
    run = train(make_config(folder_root, tmp_path / "run", **frozen, **settings), quiet=True)
    started, ended = weights(before), weights(run)
    own = [key for key in ended if key.startswith(OWN)]
    assert any(key.endswith("running_mean") for key in own)
    for key in own:
        here = key if key in started else OWN + key.split(".", 2)[2]  # one network per task: a backbone for each
        np.testing.assert_array_equal(ended[key], started[here], err_msg=key)


def test_the_heads_of_a_frozen_backbone_learn(
    before: Path, folder_root: Path, make_config: Any, tmp_path: Path
) -> None:
    frozen = {"model.weights": str(before), "optim.backbone_lr": 0}
    short, long = (
        weights(
            train(make_config(folder_root, tmp_path / str(n), **frozen, method={"name": "mtl", "steps": n}), quiet=True)
        )
        for n in (1, 3)
    )
    moved = [key for key in short if key.startswith("heads.") and key.endswith(".weight")]
    assert moved
    assert all(not np.array_equal(short[key], long[key]) for key in moved)


def test_a_learning_backbone_moves(before: Path, folder_root: Path, make_config: Any, tmp_path: Path) -> None:
    run = train(
        make_config(
            folder_root, tmp_path / "run", **{"model.weights": str(before)}, method={"name": "mtl", "steps": 1}
        ),
        quiet=True,
    )
    started, ended = weights(before), weights(run)
    assert not all(np.array_equal(started[key], ended[key]) for key in ended if key.startswith(OWN))
