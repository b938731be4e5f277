"""Balanced losses: factors by hand, and a run that is resumed in any phase ends with the same weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from properties import same_tensors
from resuming import stopped_at
from tasktokens.losses import Term
from tasktokens.models.files import load_model
from tasktokens.training.loss_balance import FIRST_STEPS, FirstLosses, LossBalance
from tasktokens.training.trainer import train


def terms() -> list[Term]:
    one = torch.ones(())
    return [Term(name, 2.0, one, one) for name in ("loss/depth", "feature/depth", "loss/semseg", "loss/edge")]


def test_factors_bring_weighted_losses_to_their_median() -> None:
    balance = FirstLosses({"semseg": 1.0, "depth": 0.5, "normals": 1.0, "edge": 1.0})
    before = balance.apply(terms())
    assert [term.weight for term in before] == [2.0] * 4
    for _ in range(FIRST_STEPS + 3):  # later steps have no say
        balance.add({
            "loss/semseg": torch.tensor([6.0, 3.0]), "loss/depth": torch.tensor([160.0, 2.0]),
            "loss/normals": torch.tensor([1.0, 2.0]), "loss/edge": torch.tensor([0.0, 0.0]),
        })  # fmt: skip
    # Weighted means 2, 40 and 0.5: the median is 2. No edge was labelled.
    assert balance.factors == pytest.approx({"semseg": 1.0, "depth": 2 / 40, "normals": 4.0})
    assert [term.weight for term in balance.apply(terms())] == pytest.approx([0.1, 0.1, 2.0, 2.0])


def test_nothing_is_balanced_unless_asked() -> None:
    balance = LossBalance()
    for _ in range(FIRST_STEPS):
        balance.add({"loss/depth": torch.tensor([160.0, 2.0])})
    given = terms()
    assert balance.apply(given) is given
    assert balance.state() == {}


@pytest.mark.parametrize("stop", [4, 12], ids=["while measuring", "balanced"])
def test_a_balanced_run_resumes_to_the_same_weights(
    stop: int, folder_root: Path, tmp_path: Path, make_config: Callable[..., Any]
) -> None:
    changes = {"optim.balance": "first_losses", "method": {"name": "mtl", "steps": 14}, "data.labels": "full"}
    config = make_config(folder_root, tmp_path / "run", **changes)
    train(config, quiet=True)
    plain = make_config(folder_root, tmp_path / "plain", **changes | {"optim.balance": "none"})
    train(plain, quiet=True)
    whole = load_model(config.run.dir)[0].state_dict()
    assert not same_tensors(whole, load_model(plain.run.dir)[0].state_dict())  # it makes a difference
    again = stopped_at(config.run.dir, tmp_path / "again", f"0-{stop:07d}")
    train(again, resume=True, quiet=True)
    assert same_tensors(whole, load_model(again.run.dir)[0].state_dict())
