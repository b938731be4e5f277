"""Thresholds measured on held-out images: what they become, what they may see, exact resuming, refusals."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor

from conftest import run_cli
from method_fakes import Fixed, build, detach
from properties import random_batch, same_tensors
from tasktokens.config import Config, to_yaml
from tasktokens.datasets.open import open_data
from tasktokens.discovery.calibration import AccuracyCalibrator
from tasktokens.discovery.pseudo_labels import forward_views
from tasktokens.errors import ConfigError, DataError
from tasktokens.methods import Htt, HttMethod, Stage, build_method
from tasktokens.models.files import load_model
from tasktokens.tasks import Task
from tasktokens.training.callbacks import Calibration
from tasktokens.training.checkpoint import complete_checkpoints
from tasktokens.training.log import RunLog
from tasktokens.training.trainer import train

MakeConfig = Callable[..., Config]
TWO_STAGE = {"name": "htt", "stage1_steps": 2, "stage2_steps": 4, "thresholds": "calibrated", "target_accuracy": 0.2}
ONLINE = TWO_STAGE | {"schedule": "online", "calibrate_every": 2, "ramp": 2}
# Half of the six training images, with enough labels that each task has a visible and a hidden one in both halves.
CALIBRATED: dict[str, Any] = {
    "method": TWO_STAGE, "data.holdout": 0.5, "data.labels": "0.67", "optim.batch_size": 2, "data.check": False,
    "run.checkpoint_every": 1, "optim.token_lr": 1,  # so much that the teacher's sure pixels change within six steps
}  # fmt: skip


def thresholds_of(checkpoint: Path) -> dict[str, Tensor]:
    state = load_file(checkpoint / "method.safetensors")
    return {name: tensor for name, tensor in state.items() if not name.endswith("_seen")}


# -- which labels ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("labels", ["one", "random", "0.67", "full"])
def test_held_out_images_show_labels_by_the_same_rule(labels: str, own_folder: Path, make_config: MakeConfig) -> None:
    config = make_config(own_folder, own_folder / "run", **{"data.holdout": 0.34, "data.labels": labels, "tasks": {
        "depth": {}, "semseg": {}}})  # fmt: skip
    data = open_data(config)
    assert tuple(data.held) == data.holdout
    counts = [len(seen) for seen in data.held.values()]
    assert counts == {"one": [1, 1], "random": [1, 1], "full": [2, 2]}.get(labels, counts)
    assert sum(counts) == {"0.67": 2}.get(labels, sum(counts))
    assert open_data(config).held == data.held


def test_a_given_split_says_what_held_out_images_show(own_folder: Path, make_config: MakeConfig) -> None:
    rows = [f"im0{i},{int(i != 2)},{int(i < 5)}" for i in range(6)]
    (own_folder / "given.csv").write_text("\n".join(["id,depth,semseg", *rows]))
    changes = {"data.labels": str(own_folder / "given.csv"), "tasks": {"depth": {}, "semseg": {}}}
    data = open_data(make_config(own_folder, own_folder / "run", **changes, **{"data.holdout": 0.5}))
    shown = {row.split(",")[0]: row.split(",")[1:] for row in rows}
    both = data.train | data.held
    assert {id: [str(int(t in seen)) for t in ("depth", "semseg")] for id, seen in both.items()} == shown


# -- what they become --------------------------------------------------------------------------------------------------
def test_thresholds_are_the_least_confidence_above_which_the_teacher_is_right_often_enough(
    tiny_tasks: Mapping[str, Task],
) -> None:
    batch = random_batch(tiny_tasks, [["semseg", "depth"], ["depth"], []])
    teacher = build("htt", tiny_tasks, 1).eval()
    taught = {name: detach(output) for name, output in teacher(batch.image).items()}
    method = Htt(tiny_tasks, HttMethod(thresholds="calibrated", target_accuracy=0.4, teacher_views=1))
    calibrator = method.calibrator()
    assert isinstance(calibrator, AccuracyCalibrator)
    sums = calibrator.start()
    calibrator.add(sums, batch, Fixed(taught))
    calibrator.finish(sums)
    task, labels = tiny_tasks["depth"], batch.labels["depth"]
    logits = taught["depth"].logits[labels.rows]
    pairs = [task.resize(v, ok, tuple(logits.shape[-2:])) for v, ok in zip(labels.value, labels.valid, strict=True)]
    target, valid = torch.stack([v for v, _ in pairs]), torch.stack([ok for _, ok in pairs])
    right, sure = task.correct(task.decode(logits), target)[valid], task.confidence(logits)[valid]
    assert sums["depth"].state[0].sum() == valid.sum() > 0
    enough = [k / 50 for k in range(50) if (sure > k / 50).any() and right[sure > k / 50].float().mean() >= 0.4]
    expected = enough[0] if enough else 1.0
    assert method.thresholds.of(task, torch.ones(1, 1, 1, 1)).item() == pytest.approx(expected)
    # No label, no claim: nothing of such a task is discovered.
    assert method.thresholds.of(tiny_tasks["edge"], torch.ones(1, 1, 1, 1)).item() == 1


def test_it_is_due_before_the_first_discovery_and_online_again_and_again(tiny_tasks: Mapping[str, Task]) -> None:
    def due(**settings: Any) -> list[tuple[str, int]]:
        method = Htt(tiny_tasks, HttMethod(thresholds="calibrated", stage1_steps=3, stage2_steps=6, **settings))
        calibrator = method.calibrator()
        assert calibrator is not None
        return [(s.name, step) for s in method.stages() for step in range(s.steps) if calibrator.due(s, step)]

    assert due() == [("discovery", 0)]
    assert due(schedule="online", calibrate_every=2) == [("online", 3), ("online", 5), ("online", 7)]
    assert due(schedule="online") == [("online", 3)]
    for settings in (HttMethod(), HttMethod(thresholds="adaptive")):
        assert Htt(tiny_tasks, settings).calibrator() is None


def test_the_division_into_batches_and_mirrored_views_change_nothing(
    tiny_tasks: Mapping[str, Task],
) -> None:
    network = build("htt", tiny_tasks, 1).eval()
    batches = [random_batch(tiny_tasks, [list(tiny_tasks)] * 2, seed=seed) for seed in range(2)]
    method = Htt(tiny_tasks, HttMethod(thresholds="calibrated"))
    calibrator = method.calibrator()
    assert calibrator is not None
    whole, halves = calibrator.start(), [calibrator.start(), calibrator.start()]
    for batch, half in zip(batches, halves, strict=True):
        teacher = Fixed(forward_views(tiny_tasks, network, batch.image))
        calibrator.add(whole, batch, teacher)
        calibrator.add(half, batch, teacher)
    for name in tiny_tasks:
        assert torch.equal(whole[name].state, halves[0][name].state + halves[1][name].state)


# -- in a run ----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def runs(folder_root: Path, make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {
        name: train(make_config(folder_root, folder / name, **CALIBRATED | {"method": method}), quiet=True)
        for name, method in (("two-stage", TWO_STAGE), ("online", ONLINE))
    }


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["two-stage", "online"])
def test_a_run_resumed_before_or_after_a_calibration_ends_with_the_same_bits(
    schedule: str, runs: Mapping[str, Path], folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    method, whole = {"two-stage": TWO_STAGE, "online": ONLINE}[schedule], runs[schedule]
    saved = complete_checkpoints(whole / "checkpoints")
    assert len(saved) == 6
    # Saved after step 2: calibration comes next; after step 3: it has been.
    for kept in (2, 3):
        run = tmp_path / str(kept)
        shutil.copytree(whole, run)
        config = make_config(folder_root, run, **CALIBRATED | {"method": method})
        (run / "config.yaml").write_text(to_yaml(config))
        for later in complete_checkpoints(run / "checkpoints")[kept:]:
            shutil.rmtree(later)
        train(config, resume=True, quiet=True)
        for part in ("student", "method", "optimizer"):
            final = f"checkpoints/{saved[-1].name}/{part}.safetensors"
            a, b = load_file(whole / final), load_file(run / final)
            assert same_tensors(a, b), part
    before, after = thresholds_of(saved[1]), thresholds_of(saved[2])
    assert not same_tensors(before, after)
    if schedule == "two-stage":  # online they are measured again
        assert same_tensors(after, thresholds_of(saved[-1]))


def test_a_run_has_what_its_teacher_gives_and_says_what_it_saw(
    runs: Mapping[str, Path], folder_root: Path, make_config: MakeConfig
) -> None:
    run = runs["two-stage"]
    config = make_config(folder_root, run, **CALIBRATED)
    data, accelerator = open_data(config), Accelerator(cpu=True)
    teacher, info = load_model(run / "teacher")
    method = build_method(config.method, info.tasks)
    calibration = Calibration(method, data, info.tasks, config, accelerator)
    assert calibration.measure(Stage("discovery", 4, teacher=True), 0, teacher, RunLog(None, True))
    state = method.state()
    assert state is not None
    last = complete_checkpoints(run / "checkpoints")[-1]
    assert same_tensors(dict(state.state_dict()), load_file(last / "method.safetensors"))
    assert "calibrated on 3 held-out images before step 0 of stage discovery" in (run / "log.txt").read_text()
    header, *rows = (run / "labels-holdout.csv").read_text().splitlines()
    assert header == "id,semseg,depth,normals,edge,saliency"
    assert {row.split(",")[0] for row in rows} == set(data.holdout)


def test_ranks_share_the_images_and_add_up_what_they_found(
    runs: Mapping[str, Path], folder_root: Path, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(folder_root, runs["two-stage"], **CALIBRATED)
    data, (teacher, info) = open_data(config), load_model(runs["two-stage"] / "teacher")
    monkeypatch.setattr("tasktokens.training.callbacks.calibration.raise_on_all_ranks", nullcontext)

    def found(rank: int, ranks: int) -> list[Tensor]:
        given: list[Tensor] = []

        def reduce(state: Tensor, how: str) -> Tensor:
            assert how == "sum"
            given.append(state)
            return state

        accelerator: Any = SimpleNamespace(
            process_index=rank, num_processes=ranks, device=torch.device("cpu"), autocast=nullcontext, reduce=reduce
        )
        calibration = Calibration(build_method(config.method, info.tasks), data, info.tasks, config, accelerator)
        assert calibration.measure(Stage("discovery", 4, teacher=True), 0, teacher, RunLog(None, True))
        return given

    whole, first, second = found(0, 1), found(0, 2), found(1, 2)
    for one, other, both in zip(first, second, whole, strict=True):
        # A network's outputs depend on the number of images in a batch by rounding.
        torch.testing.assert_close((one + other).sum((1, 2)), both.sum((1, 2)), rtol=1e-3, atol=3)
        assert (one + other)[0].sum() == both[0].sum()
    assert all(sum(state.sum() for state in states) > 0 for states in (first, second))


def test_hidden_labels_of_held_out_images_change_nothing(
    runs: Mapping[str, Path], own_folder: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config(own_folder, tmp_path / "run", **CALIBRATED)
    data = open_data(config)
    hidden = [
        own_folder / task / f"{id}.png" for id, seen in data.held.items() for task in data.tasks if task not in seen
    ]
    assert len(hidden) == 5
    for path in hidden:
        path.write_bytes(b"nobody may look at this")
    run = train(config, quiet=True)
    one, other = (folder / "model/model.safetensors" for folder in (run, runs["two-stage"]))
    assert one.read_bytes() == other.read_bytes()


# -- refusals ----------------------------------------------------------------------------------------------------------
def test_calibration_without_held_out_images_is_refused(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config(folder_root, tmp_path / "run", **CALIBRATED | {"data.holdout": 0.0})
    with pytest.raises(ConfigError, match=r"calibrated needs labelled images.*data\.holdout=0.*data\.holdout=0\.1"):
        train(config, quiet=True)
    (tmp_path / "c.yaml").write_text(to_yaml(config))
    code, _, said = run_cli(capsys, "train", "--config", tmp_path / "c.yaml")
    assert code == 2
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_a_task_without_a_visible_held_out_label_is_named(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config(folder_root, tmp_path / "run", **CALIBRATED)
    data = open_data(config)
    data = replace(data, held={id: tuple(set(seen) - {"edge"}) for id, seen in data.held.items()})
    method = build_method(config.method, data.tasks)
    with pytest.raises(DataError, match="none of the 3 held-out images shows a label of task 'edge'"):
        Calibration(method, data, data.tasks, config, Accelerator(cpu=True))
