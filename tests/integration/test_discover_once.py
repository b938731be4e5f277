"""A teacher that is asked once: the run discovers labels between its stages, and keeps every promise of the engine."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from properties import same_tensors
from resuming import copy_run, stopped_at
from tasktokens.config import Config, load_config
from tasktokens.datasets.prepared import sha256
from tasktokens.discovery import store as stores
from tasktokens.discovery.store import StoreWriter
from tasktokens.errors import CheckpointError, DataError
from tasktokens.methods import Htt
from tasktokens.models.files import load_model
from tasktokens.training.checkpoint import complete_checkpoints, read_cursor
from tasktokens.training.log import read_rows
from tasktokens.training.trainer import train

MakeConfig = Callable[..., Config]
VIEWS = [[1, False], [1.25, True]]
METHOD: dict[str, Any] = {"name": "htt", "stage1_steps": 2, "stage2_steps": 4, "views": VIEWS, "token_level": 0.5}


@pytest.fixture(scope="session")
def make_config(make_config_of_two: MakeConfig) -> MakeConfig:
    """Two tasks will do."""
    return make_config_of_two


@pytest.fixture(scope="module")
def finished(folder_root: Path, make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(make_config(folder_root, tmp_path_factory.mktemp("once") / "run", method=METHOD), quiet=True)


def weights(run: Path) -> dict[str, Any]:
    return load_file(run / "model" / "model.safetensors")


def files_of(run: Path) -> dict[str, bytes]:
    """The discovered labels of a run."""
    folder = run / "discovered"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- what a run leaves -------------------------------------------------------------------------------------------------
def test_every_label_that_a_training_image_does_not_show_is_discovered_and_no_other(finished: Path) -> None:
    with (finished / "labels.csv").open() as file:
        shown = {row.pop("id"): row for row in csv.DictReader(file)}
    missing = {f"{task}/{id}.npy" for id, row in shown.items() for task, flag in row.items() if flag == "0"}
    assert {name for name in files_of(finished) if name.endswith(".npy")} == missing
    tokens = {name.replace(".npy", ".token") for name in missing}
    assert {name for name in files_of(finished) if name.endswith(".token")} == tokens
    document = json.loads((finished / "discovered" / "store.json").read_text())
    assert document["teacher"] == sha256(finished / "teacher" / "model.safetensors")
    assert document["views"] == dict.fromkeys(document["tasks"], VIEWS)
    table = (finished / "discovered" / "discovered.csv").read_text().splitlines()
    assert document["count"] == len(missing) == len(table) - 1
    said = re.search(r"discovering (\d+) labels of 6 images: about ([\d.]+) MB in", (finished / "log.txt").read_text())
    assert said is not None
    assert int(said[1]) == len(missing)
    assert document["token_width"] == np.load(next((finished / "discovered" / "depth").rglob("*.token"))).size
    depth = np.load(next((finished / "discovered" / "depth").rglob("*.npy")))
    # Bins are widened by the zoom ranges of the augmentation.
    assert depth.shape == (load_model(finished)[1].tasks["depth"].num_tokens, 8, 8)
    assert depth.max() == 0


def test_no_step_and_no_checkpoint_of_the_second_stage_has_a_teacher(
    finished: Path, folder_root: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in complete_checkpoints(finished / "checkpoints"):
        assert not (path / "teacher.safetensors").exists()
        assert read_cursor(path).teacher == (
            sha256(finished / "teacher" / "model.safetensors") if path.name.startswith("1") else None
        )
    seen: list[tuple[bool, Any]] = []
    terms = Htt.terms

    def spy(self: Htt, prepared: Any, student: Any, teacher: Any = None) -> Any:
        seen.append((prepared.options.discovered, teacher))
        return terms(self, prepared, student, teacher)

    monkeypatch.setattr(Htt, "terms", spy)
    run = train(make_config(folder_root, tmp_path / "run", method=METHOD), quiet=True)
    assert seen == [(False, None)] * 2 + [(True, None)] * 4
    assert same_tensors(weights(run), weights(finished))
    found = [row for row in read_rows(run / "metrics.jsonl") if row.get("stage") == "discovery"]
    assert any(value for row in found for key, value in row.items() if key.startswith("discovered_loss/"))
    assert any(value for row in found for key, value in row.items() if key.startswith("token/"))
    assert not any(key.startswith("feature/") for row in found for key in row)


def test_without_the_token_level_no_tokens_are_kept(
    finished: Path, folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    run = train(make_config(folder_root, tmp_path / "run", method=METHOD | {"token_level": 0}), quiet=True)
    assert {name: data for name, data in files_of(finished).items() if name.endswith(".npy")} == {
        name: data for name, data in files_of(run).items() if name not in ("store.json", "discovered.csv")
    }
    assert "token_width" not in json.loads((run / "discovered" / "store.json").read_text())
    assert not same_tensors(weights(run), weights(finished)), "tokens are learned from"


def test_hidden_labels_change_nothing_of_what_is_discovered(
    finished: Path, folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    """Files of labels that the run does not see hold no picture; neither they nor their content are read."""
    root = tmp_path / "data"
    shutil.copytree(folder_root, root)
    with (finished / "labels.csv").open() as file:
        for row in csv.DictReader(file):
            for task in (name for name, flag in row.items() if flag == "0"):
                (root / task / f"{row['id']}.png").write_bytes(b"hidden")
    config = make_config(root, tmp_path / "run", method=METHOD, **{"data.check": False})
    run = train(config, quiet=True)
    assert files_of(run) == files_of(finished)
    assert same_tensors(weights(run), weights(finished))


@pytest.mark.slow
def test_further_rounds_have_labels_of_their_own_and_resume(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    method = METHOD | {"stage2_steps": 2, "rounds": 2}
    whole = train(make_config(folder_root, tmp_path / "whole", method=method), quiet=True)
    first, second = (json.loads((whole / name / "store.json").read_text()) for name in ("discovered", "discovered2"))
    assert first["teacher"] != second["teacher"] == sha256(whole / "teacher" / "model.safetensors")
    for last in ("1-0000002", "2-0000002"):
        train(stopped_at(whole, tmp_path / last, last), resume=True, quiet=True)
        assert same_tensors(weights(tmp_path / last), weights(whole)), last


def test_thresholds_by_accuracy_are_measured_before_the_second_stage(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    method = METHOD | {"thresholds": "calibrated", "target_accuracy": 0.1, "stage2_steps": 2}
    changes = {"data.holdout": 0.4, "data.labels": "full"}
    run = train(make_config(folder_root, tmp_path / "run", method=method, **changes), quiet=True)
    assert "held-out images before step 0 of stage discovery" in (run / "log.txt").read_text()
    state = load_file(run / "checkpoints" / "1-0000002" / "method.safetensors")
    assert state["task1"].item() != 0.9
    train(stopped_at(run, tmp_path / "again", "0-0000002"), resume=True, quiet=True)
    assert same_tensors(weights(tmp_path / "again"), weights(run))


# -- interruptions -----------------------------------------------------------------------------------------------------
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("files", [0, 4])
def test_a_run_that_is_killed_while_it_discovers_goes_on_to_the_same_bits(
    files: int, finished: Path, folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config(folder_root, tmp_path / "run", method=METHOD)
    child = os.fork()
    if child == 0:
        write, count = StoreWriter.write, iter(range(10**6))

        def killing(self: StoreWriter, *arguments: Any) -> None:
            if next(count) == files:
                os.kill(os.getpid(), signal.SIGKILL)
            write(self, *arguments)

        StoreWriter.write = killing  # type: ignore[method-assign]
        train(config, quiet=True)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert len(list((tmp_path / "run").rglob("*.npy"))) == files
    assert not (tmp_path / "run" / "discovered" / "store.json").exists()
    train(config, resume=True, quiet=True)
    assert files_of(tmp_path / "run") == files_of(finished)
    assert same_tensors(weights(tmp_path / "run"), weights(finished))


@pytest.mark.parametrize("first_steps", [2, 0], ids=["after a first stage", "with another run's teacher"])
def test_a_signal_while_it_discovers_ends_the_run_which_can_go_on(
    first_steps: int, finished: Path, folder_root: Path, make_config: MakeConfig, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    config = make_config(folder_root, tmp_path / "run", method=METHOD | {"stage1_steps": first_steps})
    teacher = None if first_steps else finished / "teacher"
    begin = StoreWriter.begin

    def signalled(self: StoreWriter) -> bool:
        signal.raise_signal(signal.SIGTERM)
        return begin(self)

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "begin", signalled)
        with pytest.raises(SystemExit) as stopped:
            train(config, quiet=True, init_from=teacher)
    assert stopped.value.code == 143
    assert "0 of 6 images have discovered labels; --resume continues" in capsys.readouterr().err
    train(config, resume=True, quiet=True)
    assert files_of(tmp_path / "run") == files_of(finished)
    assert same_tensors(weights(tmp_path / "run"), weights(finished))


# -- refusals ----------------------------------------------------------------------------------------------------------
def test_a_second_stage_that_has_begun_refuses_labels_that_are_not_complete_or_of_another_teacher(
    finished: Path, tmp_path: Path
) -> None:
    config = stopped_at(finished, tmp_path / "run", "1-0000002")
    document = tmp_path / "run" / "discovered" / "store.json"
    whole = json.loads(document.read_text())
    for change, named in (
        ({"teacher": "0" * 64}, "another teacher"), ({"views": {}}, "another views"), ({"labels": ""}, "set of images"),
    ):  # fmt: skip
        document.write_text(json.dumps(whole | change))
        with pytest.raises(CheckpointError, match=named):
            train(config, resume=True, quiet=True)
    document.unlink()
    with pytest.raises(CheckpointError, match=r"are not complete \(no store.json\); put the folder back"):
        train(config, resume=True, quiet=True)
    document.write_text(json.dumps(whole))
    train(config, resume=True, quiet=True)
    assert same_tensors(weights(tmp_path / "run"), weights(finished))


@pytest.mark.parametrize("ending", ["npy", "token"])
def test_a_label_that_is_gone_is_named(ending: str, finished: Path, tmp_path: Path) -> None:
    config = stopped_at(finished, tmp_path / "run", "1-0000002")
    for path in (tmp_path / "run" / "discovered" / "semseg").glob(f"*.{ending}"):
        path.unlink()
    with pytest.raises(DataError, match=rf"discovered/semseg/im0\d\.{ending} is gone"):
        train(config, resume=True, quiet=True)


def test_at_the_start_of_the_stage_what_another_teacher_discovered_is_replaced(finished: Path, tmp_path: Path) -> None:
    config = stopped_at(finished, tmp_path / "run", "0-0000002")
    document = tmp_path / "run" / "discovered" / "store.json"
    document.write_text(json.dumps(json.loads(document.read_text()) | {"teacher": "0" * 64}))
    for path in (tmp_path / "run" / "discovered").rglob("*.npy"):
        path.write_bytes(b"of somebody else")
    train(config, resume=True, quiet=True)
    assert files_of(tmp_path / "run") == files_of(finished)
    assert same_tensors(weights(tmp_path / "run"), weights(finished))


def test_a_run_of_an_earlier_version_is_read_with_its_live_teacher(finished: Path, tmp_path: Path) -> None:
    """Its settings have a number of views and a zoom in place of a list."""
    config = copy_run(finished, tmp_path / "run")
    path = tmp_path / "run" / "config.yaml"
    text = path.read_text()
    start, end = text.index("  teacher: once"), text.index("  targets:")
    path.write_text(text[:start] + "  teacher_views: 2\n  teacher_zoom: 1.5\n" + text[end:])
    method: Any = load_config(path).method
    assert (method.teacher, method.views) == ("live", [(1.0, False), (1.5, True)])
    assert config.method.teacher == "once"  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["full", "random"])
def test_parts_and_loader_processes_read_the_same_labels(
    labels: str, folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    """In parts the counts of all parts divide the sums; where every label is given there is nothing to discover."""
    runs = {}
    for name, changes in {"one": {}, "workers": {"data.workers": 1}, "parts": {"optim.accumulate": 3}}.items():
        config = make_config(folder_root, tmp_path / name, method=METHOD, **{"data.labels": labels} | changes)
        runs[name] = train(config, quiet=True)
    assert same_tensors(weights(runs["one"]), weights(runs["workers"]))
    for row in read_rows(runs["parts"] / "metrics.jsonl"):
        values = [value for key, value in row.items() if key.startswith("discovered_loss/")]
        assert all(value is None or np.isfinite(value) for value in values)
        assert labels == "random" or not any(values)
    files = list((runs["one"] / "discovered").rglob("*.npy"))
    assert bool(files) == (labels == "random")
    assert (runs["one"] / "discovered" / stores.COMPLETE).is_file()
    assert torch.isfinite(next(iter(weights(runs["parts"]).values()))).all()
