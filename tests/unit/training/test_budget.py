"""Minutes in place of steps: by a clock that the tests turn, truth by hand; then runs equal to those of given steps."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator

from conftest import run_cli
from properties import same_tensors
from tasktokens.config import Config, MethodSettings, load_config
from tasktokens.datasets.open import open_data
from tasktokens.discovery.store import missing_labels
from tasktokens.errors import ConfigError
from tasktokens.methods import HttMethod, MtlMethod, build_method
from tasktokens.models.files import read_tensors
from tasktokens.training import budget
from tasktokens.training.budget import Costs, measure, with_minutes
from tasktokens.training.step_memory import MeasuredSteps
from tasktokens.training.trainer import train

MakeConfig = Callable[..., Config]
HTT = {"name": "htt", "views": [[1, False], [1, True]]}


class Turned:
    """A clock that stands still unless it is turned."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Turned:
    """Reading an image takes 0.25 s, a step 1 s, one with discovered labels 2 s, one late in a stage 3 s more; labels
    of the images that are seen at once take 4 s.
    """
    turned, step_of, views = Turned(), MeasuredSteps.step_of, budget.forward_views

    def steps(self: MeasuredSteps, stage: Any, batch: Any) -> Callable[[int], None]:
        take = step_of(self, stage, batch)

        def turning(number: int) -> None:
            take(number)
            turned.now += (2 if stage.discovered else 1) + 3 * (number == stage.steps - 1)

        return turning

    def looking(*arguments: Any) -> Any:
        turned.now += 4
        return views(*arguments)

    item = budget.MeasuredSteps.__init__

    def reading(self: MeasuredSteps, *arguments: Any) -> None:
        item(self, *arguments)
        own = self.dataset

        class Slow:
            def __len__(self) -> int:
                return len(own)

            def __getitem__(self, key: Any) -> Any:
                turned.now += 0.25
                return own[key]

        self.dataset = Slow()  # type: ignore[assignment]

    monkeypatch.setattr(MeasuredSteps, "step_of", steps)
    monkeypatch.setattr(MeasuredSteps, "__init__", reading)
    monkeypatch.setattr(budget, "forward_views", looking)
    return turned


def settled(config: Config, clock: Callable[[], float]) -> Config:
    return with_minutes(config, open_data(config), Accelerator(cpu=True), True, clock)


@pytest.mark.parametrize(("workers", "parts"), [(0, 1), (2, 1), (0, 2)])
def test_the_steps_of_one_stage_fill_the_minutes(
    workers: int, parts: int, clock: Turned, folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    changes = {"data.workers": workers, "optim.accumulate": parts, "optim.minutes": 10.0, "optim.batch_size": 4}
    config = make_config(folder_root, tmp_path / "run", method={"name": "mtl", "steps": 7}, **changes)
    found = settled(config, clock)
    images, step = 4 / parts, 1 + 3 / 2
    seconds = parts * (max(step, 0.25 * images / workers) if workers else step + 0.25 * images)
    assert found.method == MtlMethod(steps=round(600 / seconds))
    assert found.optim.minutes is None
    rest = {"method": config.method, "optim": config.optim}
    assert found.model_copy(update=rest) == config


@pytest.mark.slow
def test_the_stages_keep_their_proportion_and_discovering_counts(
    clock: Turned, folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    method = HTT | {"stage1_steps": 300, "stage2_steps": 100, "rounds": 2}
    changes = {"data.workers": 0, "optim.minutes": 30.0, "optim.batch_size": 4}
    config = make_config(folder_root, tmp_path / "run", method=method, **changes)
    found: Any = settled(config, clock).method
    data = open_data(config)
    discovering = 2 * len(missing_labels(data.train, data.tasks)) * (0.25 + 4 / 4)
    factor = (1800 - discovering) / (300 * (2.5 + 1) + 2 * 100 * (3.5 + 1))
    assert (found.stage1_steps, found.stage2_steps) == (round(300 * factor), round(100 * factor))
    assert abs(found.stage1_steps - 3 * found.stage2_steps) <= 3


def test_where_another_network_is_the_teacher_the_first_stage_stays_empty(
    clock: Turned, folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    method = HTT | {"stage1_steps": 0, "stage2_steps": 100}
    found: Any = settled(make_config(folder_root, tmp_path, method=method, **{"optim.minutes": 5.0}), clock).method
    assert found.stage1_steps == 0 < found.stage2_steps


@pytest.mark.parametrize("method", [HTT, HTT | {"steps": 30}, HTT | {"schedule": "online"}, HTT | {"rounds": 3}])
@pytest.mark.parametrize("factor", [0.013, 0.37, 1, 12.7])
def test_what_is_scaled_is_valid_and_in_proportion(method: dict[str, Any], factor: float) -> None:
    before = HttMethod.model_validate(method)
    after = before.scaled(factor)
    assert HttMethod.model_validate(after.model_dump()) == after
    for a, b in zip(build_method(before, {}).stages(), build_method(after, {}).stages(), strict=True):
        assert b.steps == pytest.approx(max(1, a.steps * factor), abs=2)


def test_a_method_without_steps_says_so() -> None:
    class Own(MethodSettings):
        name: str = "own"

    with pytest.raises(ConfigError, match="method 'own' has no setting of steps that minutes could set"):
        Own().scaled(2.0)


@pytest.mark.slow
def test_minutes_that_are_too_few_are_refused_with_how_many_would_do(
    clock: Turned, folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    changes = {"optim.batch_size": 4, "data.workers": 0}
    for minutes in (0.001, 0.2):
        config = make_config(folder_root, tmp_path / "run", method=HTT, **changes, **{"optim.minutes": minutes})
        with pytest.raises(ConfigError, match=r"a stage needs 10; give about [\d.]+ or more") as refused:
            settled(config, clock)
    enough = float(re.findall(r"give about ([\d.]+)", str(refused.value))[0])
    settled(make_config(folder_root, tmp_path / "run", method=HTT, **changes, **{"optim.minutes": enough}), clock)


def test_all_ranks_take_what_the_first_measured(
    clock: Turned, folder_root: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(folder_root, tmp_path / "run", method={"name": "mtl"}, **{"optim.minutes": 1.0})
    monkeypatch.setattr(budget, "all_gather", lambda _, own: [Costs({"supervised": 0.5}, 0.0), own])
    assert settled(config, clock).method == MtlMethod(steps=120)


@pytest.mark.parametrize("value", [0, -1, "many", float("nan"), float("inf")])
def test_minutes_are_a_number_above_zero(value: object, make_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"optim\.minutes"):
        make_config(tmp_path, tmp_path / "run", **{"optim.minutes": value})


@pytest.mark.slow
def test_a_run_of_minutes_is_that_of_its_steps_and_resumes_with_them(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """By the real clock, whose answer nobody knows: the same number of steps given beforehand gives the same bits."""
    method = HTT | {"stage1_steps": 20, "stage2_steps": 10}
    real = measure

    def short(*arguments: Any) -> Costs:
        """What was measured, scaled to few steps."""
        costs = real(*arguments)
        assert min(costs.step.values()) > 0 < costs.discovering
        return Costs({name: value / sum(costs.step.values()) for name, value in costs.step.items()}, 0.0)

    monkeypatch.setattr(budget, "measure", short)
    config = make_config(folder_root, tmp_path / "minutes", method=method, **{"optim.minutes": 0.3})
    run = train(config)
    said = re.search(r"optim.minutes: 0.3 are (\d+) steps of stage supervised", capsys.readouterr().err)
    assert said is not None
    kept: Any = load_config(run / "config.yaml")
    assert kept.optim.minutes is None
    assert kept.method.stage1_steps == int(said[1])
    steps = {"stage1_steps": kept.method.stage1_steps, "stage2_steps": kept.method.stage2_steps}
    same = train(make_config(folder_root, tmp_path / "steps", method=method | steps), quiet=True)
    weights = [read_tensors(each / "model" / "model.safetensors") for each in (run, same)]
    assert same_tensors(*weights)
    monkeypatch.setattr(budget, "measure", None)  # measured once
    before = (run / "config.yaml").read_bytes()
    for again in (config, load_config(run / "config.yaml")):
        train(again, resume=True, quiet=True)
        assert (run / "config.yaml").read_bytes() == before


def test_minutes_too_few_leave_no_folder(folder_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run_cli(
        capsys, "train", "-q", f"data.root={folder_root}", "data.size=[32,48]", "model.backbone=test_resnet",
        "model.pretrained=false", "optim.minutes=1e-6", f"run.dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert code == 2
    assert "a stage needs 10" in err
    assert not (tmp_path / "run").exists()
