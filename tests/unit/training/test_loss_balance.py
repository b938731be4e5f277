"""Balanced losses: factors and gradients by hand, and a run that is resumed in any phase ends with the same weights."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from properties import same_tensors
from resuming import stopped_at
from tasktokens.errors import ConfigError
from tasktokens.losses import Term
from tasktokens.models.files import load_model
from tasktokens.training.gradient_balance import AGGREGATORS, GradientBalance
from tasktokens.training.loss_balance import FIRST_STEPS, DynamicAverage, FirstLosses, LossBalance
from tasktokens.training.make_balance import check_balance
from tasktokens.training.step_memory import OneProcess
from tasktokens.training.trainer import train
from tasktokens.training.uncertainty import Uncertainty


@pytest.fixture(scope="session")
def make_config(make_config_of_two: Callable[..., Any]) -> Callable[..., Any]:
    """Two tasks will do."""
    return make_config_of_two


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


# -- dynamic weight average --------------------------------------------------------------------------------------------
def test_tasks_whose_loss_falls_slowly_weigh_more() -> None:
    weights = {"semseg": 1.0, "depth": 2.0, "edge": 1.0}
    balance = DynamicAverage(weights, epoch=2)
    epochs = [{"semseg": 4.0, "depth": 3.0}, {"semseg": 2.0, "depth": 3.0}, {"semseg": 1.8, "depth": 1.5}]
    for number, losses in enumerate(epochs):
        for _ in range(2):
            assert (balance.factors == {}) == (number < 2)
            balance.add({f"loss/{name}": torch.tensor([loss * 7, 7.0]) for name, loss in losses.items()})
        if number == 0:
            continue
        before = epochs[number - 1]
        ratios = np.array([losses["semseg"] / before["semseg"], losses["depth"] / before["depth"], 1.0])
        expected = 3 * np.exp(ratios / 2) / np.exp(ratios / 2).sum()
        assert list(balance.factors.values()) == pytest.approx(expected.tolist())


def test_a_dynamic_average_goes_on_from_a_checkpoint() -> None:
    weights = {"semseg": 1.0, "depth": 1.0}
    rng = np.random.default_rng(0)
    steps = [{f"loss/{n}": torch.tensor([float(v), 1.0]) for n, v in zip(weights, rng.uniform(1, 9, 2), strict=True)}
             for _ in range(11)]  # fmt: skip
    whole, part = DynamicAverage(weights, 3), DynamicAverage(weights, 3)
    for step in steps[:7]:
        part.add(step)
    again = DynamicAverage(weights, 3)
    again.load(part.state() | {"loss/depth": [1.0, 2.0]}, torch.device("cpu"))
    for step in steps:
        whole.add(step)
    for step in steps[7:]:
        again.add(step)
    assert again.factors == pytest.approx(whole.factors)
    assert again.state() == whole.state()


# -- uncertainty -------------------------------------------------------------------------------------------------------
def test_a_learned_variance_ends_at_the_loss_and_leaves_absent_tasks_alone() -> None:
    """The minimum of exp(-s) L + s is at s = log L."""
    balance = Uncertainty(["depth", "semseg"])
    assert balance.module is not None
    losses = {"loss/depth": (6.0, 3.0), "loss/semseg": (0.0, 0.0), "joint_distance": (1.0, 1.0)}
    given = [Term(name, 1.0, torch.tensor(total), torch.tensor(count)) for name, (total, count) in losses.items()]
    counts = [term.count for term in given]
    optimizer = torch.optim.Adam(balance.module.parameters(), lr=0.05)
    first = sum((t.total / t.count.clamp(min=1)).item() for t in balance.apply(given))
    assert first == 3.0  # at first the plain sum
    for _ in range(400):
        loss = sum(t.weight * t.total / t.count.clamp(min=1) for t in balance.apply(given))
        loss = loss + balance.penalty([t.name for t in given], counts)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()
    (values,) = balance.module.parameters()
    assert values.tolist() == pytest.approx([math.log(2.0), 0.0], abs=1e-3)


# -- gradients ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", list(AGGREGATORS))
def test_joined_gradients_do_not_work_against_a_task(kind: str) -> None:
    """On conflicting gradients; a term of no task is added, and what is beside the student gets the plain sum."""
    weight, other = torch.nn.Parameter(torch.tensor([1.0, 1.0])), torch.nn.Parameter(torch.tensor(1.0))
    balance = GradientBalance(["a", "b", "absent"], kind)
    slopes = torch.tensor([[2.0, 0.0], [-1.0, 1.0], [0.0, 0.0], [0.0, 0.5]])
    shares = (slopes @ weight) * other
    engine = OneProcess(torch.device("cpu"))
    balance.backward(shares, ["loss/a", "feature/b", "loss/absent", "joint_distance"], [weight], [other])
    balance.join([weight], engine)
    assert weight.grad is not None
    joined = weight.grad - torch.tensor([0.0, 0.5])
    assert (slopes[:2] @ joined >= -1e-4).all()
    assert joined.norm() > 0.1
    assert other.grad is not None
    assert other.grad.item() == pytest.approx(slopes.sum().item())
    if kind == "upgrad":  # NumPy: each gradient is projected on what does not work against the other; then the mean
        a, b = np.array([2.0, 0.0]), np.array([-1.0, 1.0])
        projected = [a - b * min(0, a @ b) / (b @ b), b - a * min(0, a @ b) / (a @ a)]
        assert joined.tolist() == pytest.approx(np.sum(projected, axis=0).tolist(), abs=1e-2)


def test_gradients_that_agree_or_belong_to_one_task_are_added() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    balance, engine = GradientBalance(["a", "b"], "upgrad"), OneProcess(torch.device("cpu"))
    for slopes in (torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([[2.0, 1.0], [0.0, 0.0]])):
        balance.backward(slopes @ weight, ["loss/a", "loss/b"], [weight], [])
        balance.join([weight], engine)
        torch.testing.assert_close(weight.grad, slopes.sum(0), atol=1e-2, rtol=1e-2)
    balance.backward(torch.tensor([[float("nan"), 1.0], [1.0, 1.0]]) @ weight, ["loss/a", "loss/b"], [weight], [])
    balance.join([weight], engine)
    assert weight.grad is not None
    assert weight.grad[0].isnan()  # for the guard to see


def test_aggregators_need_their_library_and_no_loss_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"optim\.balance=upgrad .* fp16.*bf16"):
        check_balance("upgrad", "fp16")
    check_balance("upgrad", "bf16")
    monkeypatch.setitem(sys.modules, "torchjd", None)
    with pytest.raises(ConfigError, match=r"needs TorchJD.*pip install 'tasktokens\[balance\]'"):
        check_balance("mgda", "fp32")
    check_balance("dwa", "fp16")


# -- runs --------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def run_with(
    folder_root: Path, tmp_path_factory: pytest.TempPathFactory, make_config: Callable[..., Any]
) -> Callable[[str], Path]:
    """The finished run of a balance, made once."""

    @cache
    def run(balance: str) -> Path:
        changes = {"optim.balance": balance, "method": {"name": "mtl", "steps": 14}, "data.labels": "full"}
        return train(make_config(folder_root, tmp_path_factory.mktemp("runs") / balance, **changes), quiet=True)

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("balance", "stop"),
    [("first_losses", 4), ("first_losses", 12), ("dwa", 4), ("dwa", 12), ("uncertainty", 4), ("upgrad", 4)],
)
def test_a_balanced_run_resumes_to_the_same_weights(
    stop: int, balance: str, run_with: Callable[[str], Path], tmp_path: Path
) -> None:
    whole, plain = (load_model(run_with(name))[0].state_dict() for name in (balance, "none"))
    assert not same_tensors(whole, plain)  # it makes a difference
    again = stopped_at(run_with(balance), tmp_path / "again", f"0-{stop:07d}")
    train(again, resume=True, quiet=True)
    assert same_tensors(whole, load_model(again.run.dir)[0].state_dict())
