"""The engine's promises: exact resuming, atomic saves, hidden labels, guards, signals, refusals."""

from __future__ import annotations

import json
import pickle
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file

import processes
from properties import Hostile, assert_metrics_equal, same_tensors
from resuming import copy_run, stopped_at
from tasktokens.config import Config, load_config, to_yaml
from tasktokens.data.dataset import PartialDataset
from tasktokens.datasets.folder import open_folder
from tasktokens.datasets.open import all_visible, open_data
from tasktokens.errors import CheckpointError, ConfigError, DataError, RunExistsError, TrainingError
from tasktokens.inference.evaluate import eval_dataset, evaluate, evaluate_network, write_results
from tasktokens.methods import Htt, HttMethod
from tasktokens.models import build_network
from tasktokens.models.files import load_model, read_tensors, save_model
from tasktokens.training import checkpoint as checkpoints
from tasktokens.training.checkpoint import (
    Cursor,
    complete_checkpoints,
    latest_checkpoint,
    load_optimizer,
    read_cursor,
    save_checkpoint,
)
from tasktokens.training.nan_guard import FiniteGuard
from tasktokens.training.optim import make_optimizer, set_lr
from tasktokens.training.stage_networks import move_average
from tasktokens.training.trainer import train
from tasktokens.utils.signals import StopSignal

MakeConfig = Callable[..., Config]


@pytest.fixture(scope="session")
def make_config(make_config_of_two: MakeConfig) -> MakeConfig:
    """Two tasks will do."""
    return make_config_of_two


@pytest.fixture(scope="session")
def reference(folder_root: Path, make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of four steps in each of two stages, with a checkpoint at every second step."""
    return train(make_config(folder_root, tmp_path_factory.mktemp("runs") / "reference"), quiet=True)


@pytest.fixture(scope="session")
def live_reference(folder_root: Path, make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a teacher that is asked at each step, at all levels."""
    method = {"name": "htt", "stage1_steps": 4, "stage2_steps": 4, "teacher": "live",
              "feature_level": 0.1, "token_level": 0.1}  # fmt: skip
    run = tmp_path_factory.mktemp("runs") / "live"
    return train(make_config(folder_root, run, method=method), quiet=True)


def weights(run: Path, which: str = "model") -> dict[str, Any]:
    return load_file(run / which / "model.safetensors")


def rows(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    timing = ("images_per_second", "data_wait", "memory_mb", "minutes")
    return [{key: value for key, value in line.items() if key not in timing} for line in lines]


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# -- a run -------------------------------------------------------------------------------------------------------------
def test_a_run_folder_holds_what_the_run_was_made_of(reference: Path) -> None:
    config = load_config(reference / "config.yaml")
    assert config.run.dir == reference
    data = open_data(config)
    labels = (reference / "labels.csv").read_text().splitlines()
    assert labels[0] == "id," + ",".join(data.tasks)
    assert len(labels) == 1 + len(data.train)
    assert torch.__version__.startswith(json.loads((reference / "environment.json").read_text())["torch"])
    steps = [(row["stage"], row["step"]) for row in rows(reference) if "step" in row]
    assert steps == [(stage, step) for stage in ("supervised", "discovery") for step in (1, 2, 3, 4)]
    assert rows(reference)[-1] == {"finished": True}
    network, info = load_model(reference)
    assert not network.training
    assert list(info.tasks) == list(data.tasks)
    assert info.tasks["depth"].num_tokens > data.tasks["depth"].num_tokens  # widened by the zoom range


def test_training_changes_every_part_of_the_network(reference: Path) -> None:
    """The student is not its teacher, and the teacher is the network of the first stage."""
    first = load_file(reference / "checkpoints" / "0-0000002" / "student.safetensors")
    second = load_file(reference / "checkpoints" / "0-0000004" / "student.safetensors")
    assert same_tensors(weights(reference, "teacher"), second)
    assert not torch.equal(first["global_tokens"], second["global_tokens"])
    assert not torch.equal(weights(reference)["global_tokens"], second["global_tokens"])


def test_the_same_seed_gives_the_same_bits_whatever_cannot_matter(
    reference: Path, make_folder: Callable[..., Path], make_config: MakeConfig, tmp_path: Path
) -> None:
    """Another copy of the data, workers, no cache, other intervals of logs and checkpoints."""
    changes = {"data.workers": 2, "data.cache": False, "run.checkpoint_every": 3, "run.log_every": 3, "run.keep": 1}
    run = train(make_config(make_folder(tmp_path / "data"), tmp_path / "run", **changes), quiet=True)
    assert same_tensors(weights(run), weights(reference))
    assert len(complete_checkpoints(run / "checkpoints")) == 1


def test_another_seed_gives_other_weights(
    reference: Path, folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    changes = {"seed": 1, "method": {"name": "htt", "stage1_steps": 1, "stage2_steps": 0}}
    run = train(make_config(folder_root, tmp_path / "run", **changes), quiet=True)
    assert not torch.equal(weights(run)["global_tokens"], weights(reference)["global_tokens"])


@pytest.mark.parametrize("student", ["fresh", "teacher"])
def test_the_student_starts_as_asked(student: str, folder_root: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    """With a learning rate of nothing the weights stay what they started from."""
    method = {"name": "htt", "stage1_steps": 1, "stage2_steps": 1, "student": student}
    changes = {"method": method, "optim.lr": 1e-30, "optim.weight_decay": 0.0}
    run = train(make_config(folder_root, tmp_path / "run", **changes), quiet=True)
    for name in ("global_tokens", "backbone.network.conv1.0.weight", "heads.depth.decoder.maps.weight"):
        assert torch.equal(weights(run)[name], weights(run, "teacher")[name]) == (student == "teacher"), name


def test_hidden_labels_change_nothing(
    reference: Path, own_folder: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    """Every hidden label file is rewritten, with unreadable bytes or with a valid picture of other labels."""
    config = make_config(own_folder, tmp_path / "run")
    data = open_data(config)
    hidden = [
        own_folder / name / f"{id}.png"
        for id in data.collection.images
        for name in data.tasks
        if name not in data.train.get(id, ())
    ]
    assert len(hidden) == 8 * 2 - 6
    for number, path in enumerate(hidden):
        if number % 2:
            path.write_bytes(b"garbage")
        else:
            Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    assert same_tensors(weights(train(config, quiet=True)), weights(reference))


def test_visible_labels_do_change_the_weights(
    reference: Path, own_folder: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    """What the test above would also show if labels were not read at all."""
    config = make_config(
        own_folder, tmp_path / "run", **{"method": {"name": "htt", "stage1_steps": 4, "stage2_steps": 0}}
    )
    data = open_data(config)
    for id, names in data.train.items():
        path = own_folder / names[0] / f"{id}.png"
        Image.fromarray(np.ascontiguousarray(np.asarray(Image.open(path))[::-1])).save(path)
    assert not same_tensors(weights(train(config, quiet=True)), weights(reference, "teacher"))


# -- resuming ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("teacher", ["once", "live"])
@pytest.mark.parametrize("last", ["0-0000002", "0-0000004", "1-0000002", "1-0000004"])
def test_a_resumed_run_ends_with_the_same_bits(
    last: str, teacher: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """In stage 1, at the change of stages, in stage 2, and at the end."""
    reference: Path = request.getfixturevalue("reference" if teacher == "once" else "live_reference")
    config = stopped_at(reference, tmp_path / "run", last)
    for name in ("model", "teacher", "metrics.jsonl"):
        path = tmp_path / "run" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if last.startswith("0") and teacher == "once":
        shutil.rmtree(tmp_path / "run" / "discovered")
    train(config, resume=True, quiet=True)
    # A teacher that was asked once is not needed any more when the second stage has begun.
    for which in ("model", "teacher") if teacher == "live" or last.startswith("0") else ("model",):
        assert same_tensors(weights(tmp_path / "run", which), weights(reference, which))
    done, all_done = ([row for row in rows(run) if "step" in row] for run in (tmp_path / "run", reference))
    assert len(done) == {"0-0000002": 6, "0-0000004": 4, "1-0000002": 2, "1-0000004": 0}[last]
    assert done == all_done[len(all_done) - len(done) :]
    for path in complete_checkpoints(reference / "checkpoints"):
        if path.name > last:
            for file in ("student", "teacher", "optimizer"):
                if (path / f"{file}.safetensors").exists():
                    again = tmp_path / "run" / "checkpoints" / path.name / f"{file}.safetensors"
                    assert same_tensors(load_file(again), load_file(path / f"{file}.safetensors")), (path.name, file)


@pytest.mark.slow
def test_in_further_rounds_the_student_is_the_next_teacher(
    reference: Path, folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    """The first round is that of a run of one round, the second sees other crops; resumed at its start or within it."""
    method = {"name": "htt", "stage1_steps": 4, "stage2_steps": 4, "rounds": 2}
    whole = train(make_config(folder_root, tmp_path / "whole", method=method), quiet=True)
    assert same_tensors(weights(whole, "teacher"), weights(reference))
    assert not same_tensors(weights(whole), weights(reference))
    stages = [row["stage"] for row in rows(whole) if "step" in row]
    assert stages == ["supervised"] * 4 + ["discovery"] * 4 + ["discovery2"] * 4
    first, second = ([row for row in rows(whole) if row.get("stage") == name] for name in ("discovery", "discovery2"))
    assert first[0]["loss/depth"] != second[0]["loss/depth"]
    for last in ("1-0000004", "2-0000002"):
        train(stopped_at(whole, tmp_path / last, last), resume=True, quiet=True)
        for which in ("model", "teacher"):
            assert same_tensors(weights(tmp_path / last, which), weights(whole, which)), last


@pytest.mark.parametrize("done", [2, 6])
def test_an_online_run_resumes_with_the_same_bits(
    done: int, folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    """Before the discovery losses set in, and after: the moving average is part of the state."""
    method = {"name": "htt", "schedule": "online", "stage1_steps": 4, "stage2_steps": 4, "ramp": 2}
    whole = train(make_config(folder_root, tmp_path / "whole", method=method), quiet=True)
    train(stopped_at(whole, tmp_path / "again", f"0-{done:07d}"), resume=True, quiet=True)
    assert same_tensors(weights(tmp_path / "again"), weights(whole))
    # What is delivered is the average, not the student.
    last = complete_checkpoints(whole / "checkpoints")[-1]
    assert same_tensors(weights(whole), load_file(last / "teacher.safetensors"))
    assert not same_tensors(weights(whole), load_file(last / "student.safetensors"))
    found = {
        row["step"]: any(key.startswith("discovered_loss/") for key in row) for row in rows(whole) if "step" in row
    }
    # Step 5 (the first after four) would have weight 0; the losses set in at the sixth.
    assert [step for step, there in found.items() if there] == [6, 7, 8]


def test_the_moving_average_covers_weights_and_statistics() -> None:
    average, network = torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3)
    with torch.no_grad():
        network.weight.fill_(3.0)
        network.running_mean.fill_(2.0)  # type: ignore[union-attr]
        network.num_batches_tracked.fill_(7)  # type: ignore[union-attr]
    move_average(average, network, 0.75)
    assert torch.allclose(average.weight, torch.full((3,), 1.5))
    assert torch.allclose(average.running_mean, torch.full((3,), 0.5))  # type: ignore[arg-type]
    move_average(average, network, 0.0)
    assert torch.equal(average.weight, network.weight)


@pytest.mark.slow
def test_the_late_zoom_range_sets_in_within_a_run_and_survives_a_resume(
    reference: Path, folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    """A quarter of two stages of four steps and the rest, which sees images otherwise; and all of the second stage."""

    def run_with(late_from: float) -> Path:
        augmentation = {"scale": [0.8, 1.3], "late_scale": [1.0, 1.0], "late_from": late_from}
        config = make_config(folder_root, tmp_path / f"from-{late_from}", **{"data.augmentation": augmentation})
        return train(config, quiet=True)

    half = run_with(0.5)
    assert same_tensors(weights(half, "teacher"), weights(reference, "teacher"))
    assert not same_tensors(weights(half), weights(reference))
    whole = run_with(0.25)
    assert rows(whole)[:2] == rows(reference)[:2]
    assert rows(whole)[2] != rows(reference)[2]
    for last in ("0-0000002", "1-0000002"):
        train(stopped_at(whole, tmp_path / last, last), resume=True, quiet=True)
        assert same_tensors(weights(tmp_path / last), weights(whole)), last


def test_the_bins_of_depth_hold_what_is_zoomed_late(
    reference: Path, folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    changes = {"data.augmentation": {"scale": [0.8, 1.3], "late_scale": [0.5, 2.0]}}
    config = make_config(folder_root, tmp_path / "run", **changes, method={"name": "mtl", "steps": 1})
    wide, usual = (load_model(run)[1].tasks["depth"] for run in (train(config, quiet=True), reference))
    assert wide == open_data(config).tasks["depth"].widened((0.5, 2.0))
    assert wide.num_tokens > usual.num_tokens


def test_resuming_with_other_settings_is_refused(reference: Path, tmp_path: Path) -> None:
    config = copy_run(reference, tmp_path / "run")
    before = listing(tmp_path / "run")
    other = config.model_copy(update={"optim": config.optim.model_copy(update={"lr": 0.5})})
    with pytest.raises(ConfigError, match=r"other settings.*'lr: 0\.004' there, 'lr: 0\.5' here"):
        train(other, resume=True, quiet=True)
    assert listing(tmp_path / "run") == before


def test_resuming_nothing_is_refused(folder_root: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(folder_root, tmp_path / "run")
    with pytest.raises(CheckpointError, match="no run to resume"):
        train(config, resume=True, quiet=True)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(to_yaml(config))
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        train(config, resume=True, quiet=True)


def test_a_folder_in_use_is_refused_and_untouched(reference: Path, tmp_path: Path) -> None:
    config = copy_run(reference, tmp_path / "run")
    before = listing(tmp_path / "run")
    with pytest.raises(RunExistsError, match=r"not empty.*--resume or --overwrite"):
        train(config, quiet=True)
    assert listing(tmp_path / "run") == before


def test_overwriting_starts_anew(reference: Path, tmp_path: Path) -> None:
    config = copy_run(reference, tmp_path / "run")
    (tmp_path / "run" / "old.txt").write_text("x")
    short = config.method.model_copy(update={"stage1_steps": 1, "stage2_steps": 0})
    train(config.model_copy(update={"method": short}), overwrite=True, quiet=True)
    assert not (tmp_path / "run" / "old.txt").exists()
    assert [path.name for path in complete_checkpoints(tmp_path / "run" / "checkpoints")] == ["0-0000001"]


def test_overwriting_does_not_delete_a_folder_that_is_no_run(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")
    with pytest.raises(RunExistsError, match="no run"):
        train(make_config(folder_root, tmp_path / "home"), overwrite=True, quiet=True)
    assert (tmp_path / "home" / "thesis.txt").exists()


def test_a_split_to_evaluate_that_is_not_there_is_an_error_before_training(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    for split, message in (("tets", "did you mean 'test'"), ("holdout", "set aside")):
        with pytest.raises(DataError, match=message):
            train(make_config(folder_root, tmp_path / "run", **{"run.evaluate": split}), quiet=True)
        assert not (tmp_path / "run").exists()


# -- checkpoints -------------------------------------------------------------------------------------------------------
def tiny_state(make_config: MakeConfig, root: Path, seed: int = 0) -> tuple[Any, torch.optim.Optimizer]:
    config = make_config(root, Path("unused"))
    torch.manual_seed(seed)
    network = build_network("mtl", {"depth": open_data(config).tasks["depth"]}, config.model)
    optimizer = make_optimizer(network, config.optim)
    network(torch.zeros(2, 3, 32, 48, dtype=torch.uint8))["depth"].logits.sum().backward()
    optimizer.step()
    return network, optimizer


def test_an_incomplete_checkpoint_is_passed_over(folder_root: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    network, optimizer = tiny_state(make_config, folder_root)
    for step in (2, 4):
        save_checkpoint(tmp_path, Cursor(0, step), network, None, optimizer, keep=9)
    whole = (tmp_path / "0-0000004" / "student.safetensors").read_bytes()
    for name in ("0-0000006", ".1-0000002.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "student.safetensors").write_bytes(whole[: len(whole) // 2])
    checkpoints.mark_complete(tmp_path / ".1-0000002.tmp")
    assert latest_checkpoint(tmp_path).name == "0-0000004"
    assert read_cursor(latest_checkpoint(tmp_path)) == Cursor(0, 4)


@pytest.mark.parametrize("broken", ["student", "optimizer", "cursor"])
def test_a_save_that_fails_leaves_the_older_checkpoint(
    broken: str, folder_root: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, optimizer = tiny_state(make_config, folder_root)
    save_checkpoint(tmp_path, Cursor(0, 2), network, None, optimizer, keep=1)
    before = listing(tmp_path / "0-0000002")
    save = checkpoints.save_file

    def fail(tensors: Any, path: Path) -> None:
        if path.stem == broken:
            path.write_bytes(b"half")
            raise OSError("no space left on device")
        save(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_file", fail)
        if broken == "cursor":
            patch.setattr(
                checkpoints.strict_json, "dumps", lambda *_: (_ for _ in ()).throw(OSError("no space left on device"))
            )
        with pytest.raises(CheckpointError, match=r"0-0000004 \(no space.*older ones are still there"):
            save_checkpoint(tmp_path, Cursor(0, 4), network, None, optimizer, keep=1)
    assert latest_checkpoint(tmp_path).name == "0-0000002"
    assert listing(tmp_path / "0-0000002") == before
    save_checkpoint(tmp_path, Cursor(0, 4), network, None, optimizer, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["0-0000004"]


def test_only_the_newest_checkpoints_are_kept_in_order_of_stage_and_step(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    network, optimizer = tiny_state(make_config, folder_root)
    for stage, step in ((0, 9), (0, 10), (0, 100), (1, 2)):
        save_checkpoint(tmp_path, Cursor(stage, step), network, None, optimizer, keep=2)
    assert [read_cursor(path) for path in complete_checkpoints(tmp_path)] == [Cursor(0, 100), Cursor(1, 2)]


def test_the_optimiser_comes_back_with_its_moments(folder_root: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    network, optimizer = tiny_state(make_config, folder_root)
    path = save_checkpoint(tmp_path, Cursor(0, 1), network, None, optimizer, keep=1)
    _, other = tiny_state(make_config, folder_root, seed=1)
    load_optimizer(path, other)
    ours, theirs = optimizer.state_dict(), other.state_dict()
    assert ours["state"].keys() == theirs["state"].keys()
    parameters = [p for group in other.param_groups for p in group["params"]]
    for index, state in ours["state"].items():
        assert same_tensors(state, theirs["state"][index])
        # torch's fused kernels go through memory without looking at strides.
        assert theirs["state"][index]["exp_avg"].stride() == parameters[index].stride()


def test_moments_of_another_order_of_parameters_are_refused(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    network, optimizer = tiny_state(make_config, folder_root)
    path = save_checkpoint(tmp_path, Cursor(0, 1), network, None, optimizer, keep=1)
    optimizer.param_groups.reverse()
    with pytest.raises(CheckpointError, match=r"exp_avg.* of number \d+ is \[.*\], expected \[.*another version"):
        load_optimizer(path, optimizer)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"stage": "x", "step": 1}', '{"stage": 1}'])
def test_a_damaged_cursor_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "cursor.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"cursor\.json is damaged"):
        read_cursor(tmp_path)


# -- loading -----------------------------------------------------------------------------------------------------------
def test_a_pickle_in_place_of_safetensors_is_refused_and_not_executed(live_reference: Path, tmp_path: Path) -> None:
    config = copy_run(live_reference, tmp_path / "run")
    hostile = tmp_path / "hostile"
    torch.save({"a": Hostile(tmp_path / "made")}, hostile)
    plain = pickle.dumps(Hostile(tmp_path / "made"))
    for content in (hostile.read_bytes(), plain):
        (tmp_path / "run" / "model" / "model.safetensors").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"model\.safetensors"):
            load_model(tmp_path / "run")
        for name in ("optimizer", "teacher", "student"):
            path = latest_checkpoint(tmp_path / "run" / "checkpoints") / f"{name}.safetensors"
            whole = path.read_bytes()
            path.write_bytes(content)
            checkpoints.mark_complete(path.parent)  # as whoever puts it there would
            with pytest.raises(CheckpointError, match=rf"{name}\.safetensors"):
                train(config, resume=True, quiet=True)
            path.write_bytes(whole)
            checkpoints.mark_complete(path.parent)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"{}"])
def test_a_damaged_weights_file_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"w\.safetensors"):
        read_tensors(tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="does not exist"):
        read_tensors(tmp_path / "none.safetensors")


def test_a_truncated_weights_file_is_named(reference: Path, tmp_path: Path) -> None:
    whole = (reference / "model" / "model.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(CheckpointError, match=r"w\.safetensors is no complete"):
        read_tensors(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.pop("tasks"), lambda v: v.update(format=99), lambda v: v.update(network="other"),
        lambda v: v.update(size=3), lambda v: v.update(model={"width": "x"}),
        lambda v: v["tasks"]["depth"].update(kind="other"),
    ],
    ids=["no tasks", "format", "network", "size", "model", "kind"],
)  # fmt: skip
def test_a_model_description_that_does_not_fit_is_a_checkpoint_error(
    change: Callable[[dict[str, Any]], Any], reference: Path, tmp_path: Path
) -> None:
    shutil.copytree(reference / "model", tmp_path / "model")
    values = json.loads((tmp_path / "model" / "model.json").read_text())
    change(values)
    (tmp_path / "model" / "model.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"model\.json"):
        load_model(tmp_path)


def test_no_model_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no trained model"):
        load_model(tmp_path)


def test_a_saved_model_predicts_the_same(reference: Path, tmp_path: Path) -> None:
    network, info = load_model(reference / "model")
    save_model(tmp_path / "copy", network, info)
    again, other = load_model(tmp_path / "copy")
    assert other == info
    image = torch.randint(0, 256, (1, 3, 32, 48), dtype=torch.uint8)
    with torch.no_grad():
        for name, output in network(image).items():
            assert torch.equal(output.logits, again(image)[name].logits)


def test_a_run_starts_from_the_weights_of_another(
    reference: Path, folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    frozen = {
        "optim.lr": 1e-30,
        "optim.weight_decay": 0.0,
        "method": {"name": "htt", "stage1_steps": 1, "stage2_steps": 0},
    }
    run = train(make_config(folder_root, tmp_path / "run", **frozen), init_from=reference, quiet=True)
    started, source = weights(run), weights(reference)
    # Statistics of batch norm move on in the one step.
    fixed = [name for name in source if "running" not in name and "num_batches" not in name]
    assert [name for name in fixed if (started[name] - source[name]).abs().max() > 1e-20] == []


def test_a_second_stage_alone_is_that_of_the_whole_run(
    reference: Path, folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    whole = load_config(reference / "config.yaml").method
    assert isinstance(whole, HttMethod)
    alone = make_config(folder_root, tmp_path / "alone", method=whole.model_dump() | {"stage1_steps": 0})
    train(alone, init_from=reference / "teacher", quiet=True)
    assert {row["stage"] for row in rows(alone.run.dir) if "stage" in row} == {"discovery"}
    mine, theirs = weights(alone.run.dir), weights(reference)
    assert all(torch.equal(mine[name], tensor) for name, tensor in theirs.items())


def test_a_first_stage_without_steps_needs_a_network(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config(folder_root, tmp_path / "run", method={"name": "htt", "stage1_steps": 0, "stage2_steps": 1})
    with pytest.raises(ConfigError, match=r"'supervised' has no steps.*--init-from RUN"):
        train(config, quiet=True)
    assert not config.run.dir.exists()


def test_weights_of_other_tasks_or_another_network_are_refused(
    reference: Path, folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    one_step = {"name": "htt", "stage1_steps": 1, "stage2_steps": 0}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"tasks": {"depth": {}, "edge": {}}, "method": one_step}, "for the tasks semseg, depth.*for depth, edge"),
        ({"method": {"name": "mtl", "steps": 1}}, "'htt' network.*trains 'mtl'"),
        ({"model.width": 24, "method": one_step}, "another network.*shape"),
        ({"model.backbone": "mobilenetv3_small_050", "method": one_step}, "another network.*missing"),
    ]
    for number, (changes, message) in enumerate(cases):
        with pytest.raises(CheckpointError, match=message):
            train(make_config(folder_root, tmp_path / str(number), **changes), init_from=reference, quiet=True)
    with pytest.raises(CheckpointError, match="no trained model"):
        train(make_config(folder_root, tmp_path / "none", method=one_step), init_from=tmp_path, quiet=True)


# -- guards ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_gradient_leaves_weights_and_moments_alone(kind: type[torch.optim.Adam], bad: float) -> None:
    weight = torch.nn.Parameter(torch.ones(5))
    optimizer = kind([weight], lr=0.1, weight_decay=0.1, fused=True)
    guard = FiniteGuard(optimizer, torch.device("cpu"), patience=3)

    def step(gradient: float) -> None:
        weight.grad = torch.full((5,), 0.5)
        weight.grad[2] = gradient
        guard.before_update(weight.grad.norm(), ("sample",))
        optimizer.step()

    step(1.0)
    before = (weight.detach().clone(), {k: v.clone() for k, v in optimizer.state[weight].items()})
    for expected in (1, 2):
        step(bad)
        assert guard.check() == expected
    assert torch.equal(weight, before[0])
    assert same_tensors(optimizer.state[weight], before[1])
    step(1.0)
    assert guard.check() == 0
    assert not torch.equal(weight, before[0])
    assert torch.isfinite(weight).all()


def test_too_many_bad_steps_in_a_row_are_an_error_that_names_the_samples() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    guard = FiniteGuard(torch.optim.Adam([weight], fused=True), torch.device("cpu"), patience=3)
    for number in range(5):
        guard.before_update(torch.tensor(1.0 if number < 2 else float("nan")), (f"image{number}",))
        if number < 4:
            guard.check()
    with pytest.raises(TrainingError, match=r"3 steps in a row.*image2, image3, image4") as caught:
        guard.check()
    assert "image1" not in str(caught.value)


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], bool]], None]:
    """Make the loss NaN at the steps (counted from 0) that a rule picks."""

    def install(rule: Callable[[int], bool]) -> None:
        terms, count = Htt.terms, iter(range(10**6))

        def spoilt(self: Htt, *arguments: Any) -> Any:
            factor = float("nan") if rule(next(count)) else 1.0
            return [replace(term, total=term.total * factor) for term in terms(self, *arguments)]

        monkeypatch.setattr(Htt, "terms", spoilt)

    return install


def test_a_nan_in_training_is_skipped_and_counted(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path, spoil: Callable[[Callable[[int], bool]], None]
) -> None:
    spoil(lambda step: step in (1, 2))
    changes = {"method": {"name": "htt", "stage1_steps": 4, "stage2_steps": 0}, "run.checkpoint_every": 1}
    run = train(make_config(folder_root, tmp_path / "run", **changes), quiet=True)
    assert [row["skipped"] for row in rows(run) if "step" in row] == [0, 1, 2, 0]
    at = [load_file(path / "optimizer.safetensors") for path in complete_checkpoints(run / "checkpoints")]
    assert same_tensors(at[0], at[1])
    assert same_tensors(at[1], at[2])
    assert not same_tensors(at[2], at[3])
    network, _ = load_model(run)
    assert all(torch.isfinite(p).all() for p in network.parameters())


def test_training_on_nan_ends_with_the_names_of_the_samples(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path, spoil: Callable[[Callable[[int], bool]], None]
) -> None:
    spoil(lambda step: step >= 1)
    changes = {"method": {"name": "htt", "stage1_steps": 99, "stage2_steps": 0}, "run.checkpoint_every": 99}
    with pytest.raises(TrainingError, match=r"10 steps in a row.*Samples: .*im0"):
        train(make_config(folder_root, tmp_path / "run", **changes), quiet=True)
    assert rows(tmp_path / "run")[-1]["step"] == 10


def test_metrics_rows_are_json_that_any_reader_takes(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path, spoil: Callable[[Callable[[int], bool]], None]
) -> None:
    spoil(lambda step: step == 0)
    changes = {"method": {"name": "htt", "stage1_steps": 1, "stage2_steps": 0}}
    run = train(make_config(folder_root, tmp_path / "run", **changes), quiet=True)

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    for line in (run / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_signals_are_only_noted_and_handlers_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignal() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert (stop.received, stop.exit_code) == (signal.SIGTERM, 143)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.fixture
def long_run(folder_root: Path, make_config: MakeConfig, tmp_path: Path) -> Iterator[tuple[Config, processes.Process]]:
    """A run without an end in another process, after its first steps."""
    changes = {"method": {"name": "htt", "stage1_steps": 2, "stage2_steps": 10**6}, "run.checkpoint_every": 10**6}
    config = make_config(folder_root, tmp_path / "run", **changes)
    metrics = tmp_path / "run" / "metrics.jsonl"
    with processes.started(before=partial(train, config, quiet=True)) as process:
        process.until(lambda: metrics.is_file() and "discovery" in metrics.read_text())
        yield config, process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"])
def test_a_signal_saves_a_checkpoint_and_ends_the_run(
    number: signal.Signals, code: int, long_run: tuple[Config, processes.Process]
) -> None:
    config, process = long_run
    process.send_signal(number)
    assert process.wait() == code, process.errors
    assert "Traceback" not in process.errors
    cursor = read_cursor(latest_checkpoint(config.run.dir / "checkpoints"))
    assert cursor.stage == 1
    assert cursor.step == rows(config.run.dir)[-1]["step"]
    assert read_tensors(latest_checkpoint(config.run.dir / "checkpoints") / "student.safetensors")


# -- optimiser ---------------------------------------------------------------------------------------------------------
def test_the_learning_rate_warms_up_and_falls_to_near_nothing(folder_root: Path, make_config: MakeConfig) -> None:
    config = make_config(folder_root, Path("unused"), **{"optim.backbone_lr": 0.1, "optim.warmup": 4, "optim.lr": 0.5})
    _, optimizer = tiny_state(make_config, folder_root)
    network = build_network("mtl", {"depth": open_data(config).tasks["depth"]}, config.model)
    optimizer = make_optimizer(network, config.optim)
    rates = []
    for step in range(100):
        set_lr(optimizer, config.optim, step, 100)
        rates.append(optimizer.param_groups[-1]["lr"])
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * rates[-1])
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) <= 0.5
    assert rates.index(max(rates)) == 4
    assert all(a > b for a, b in pairwise(rates[4:]))
    assert rates[50] == pytest.approx(0.5 * 0.5**0.9)
    assert rates[-1] < 0.01


def test_backbone_and_tokens_have_learning_rates_of_their_own(folder_root: Path, make_config: MakeConfig) -> None:
    rates = {"optim.lr": 0.5, "optim.warmup": 0, "optim.backbone_lr": 0.1, "optim.token_lr": 0.01}
    config = make_config(folder_root, Path("unused"), **rates)
    network = build_network("htt", open_data(config).tasks, config.model)
    optimizer = make_optimizer(network, config.optim)
    set_lr(optimizer, config.optim, 0, 100)
    rate_of = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    found = {kind: {rate_of[id(p)] for p in ps} for kind, ps in network.parameter_groups().items()}
    assert found == {"backbone": {0.05}, "tokens": {0.005}, "others": {0.5}}


def test_every_parameter_is_in_the_optimiser_and_tokens_are_not_decayed(
    folder_root: Path, make_config: MakeConfig
) -> None:
    config = make_config(folder_root, Path("unused"), **{"optim.weight_decay": 0.5})
    network = build_network("htt", open_data(config).tasks, config.model)
    decay = {
        id(p): group["weight_decay"]
        for group in make_optimizer(network, config.optim).param_groups
        for p in group["params"]
    }
    assert decay.keys() == {id(p) for p in network.parameters()}
    for name, p in network.named_parameters():
        token = name == "global_tokens" or name.endswith(("fine_tokens.index", "confidence.project"))
        assert decay[id(p)] == (0.0 if token or p.ndim == 1 else 0.5), name


# -- evaluation --------------------------------------------------------------------------------------------------------
def test_evaluation_does_not_depend_on_the_batch_size(reference: Path) -> None:
    network, info = load_model(reference)
    data = open_data(load_config(reference / "config.yaml"))
    dataset = eval_dataset(data, "train", info.tasks, info.size)
    # Also straight after training, when the network is in training mode.
    results = [evaluate_network(network.train(), dataset, size, Accelerator(cpu=True)) for size in (1, 2, 5)]
    assert results[0].keys() == info.tasks.keys()
    for other in results[1:]:
        for name in info.tasks:
            assert_metrics_equal(other[name], results[0][name], tolerance=1e-3)
    assert all(
        np.isfinite(values[task.metric().primary])
        for task, values in zip(info.tasks.values(), results[0].values(), strict=True)
    )


def test_images_without_a_label_do_not_count(reference: Path, own_folder: Path) -> None:
    network, info = load_model(reference)
    for number in (0, 1, 2, 5):  # the first batch has no label for depth at all
        (own_folder / "depth" / f"im0{number}.png").unlink()
    shutil.rmtree(own_folder / "semseg")
    folder = open_folder(own_folder)

    def results(ids: tuple[str, ...]) -> dict[str, dict[str, float]]:
        dataset = PartialDataset(folder, all_visible(folder, ids, info.tasks), info.tasks, info.size)
        return evaluate_network(network, dataset, 2, Accelerator(cpu=True))

    whole, labelled = results(folder.split("train")), results(("im03", "im04"))
    assert_metrics_equal(whole["depth"], labelled["depth"], tolerance=1e-3)
    assert all(np.isnan(value) for value in whole["semseg"].values())


def test_evaluate_writes_the_metrics_of_a_split(reference: Path, tmp_path: Path) -> None:
    copy_run(reference, tmp_path / "run")
    results = evaluate(tmp_path / "run", "test")
    stored = json.loads((tmp_path / "run" / "evaluation-test.json").read_text())
    assert stored.keys() == results.keys()
    assert stored["depth"]["RMSE"] == results["depth"]["RMSE"]
    before = listing(tmp_path / "run")
    evaluate(tmp_path / "run", "train", write=False)
    assert listing(tmp_path / "run") == before


def test_evaluate_says_what_is_missing(reference: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no run folder"):
        evaluate(tmp_path)
    with pytest.raises(DataError, match="no split 'vla'"):
        evaluate(reference, "vla")
    with pytest.raises(DataError, match="set aside"):
        evaluate(reference, "holdout")


def test_a_metric_of_nothing_is_null(tmp_path: Path) -> None:
    write_results(tmp_path / "r.json", {"depth": {"RMSE": float("nan"), "absErr": 0.5}})
    assert json.loads((tmp_path / "r.json").read_text()) == {"depth": {"RMSE": None, "absErr": 0.5}}


def test_a_finished_run_evaluates_itself(folder_root: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    changes = {
        "method": {"name": "mtl", "steps": 1}, "run.evaluate": "holdout", "data.holdout": 0.3, "data.labels": "full",
    }  # fmt: skip
    run = train(make_config(folder_root, tmp_path / "run", **changes), quiet=True)
    values = json.loads((run / "evaluation-holdout.json").read_text())
    assert list(values) == ["semseg", "depth"]
    again = evaluate(run, "holdout", write=False)
    for name, measured in again.items():
        assert_metrics_equal(measured, {k: np.nan if v is None else v for k, v in values[name].items()})
