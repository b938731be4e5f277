"""Signals, resuming and bad numbers: what ends early leaves nothing half done, and goes on where it stopped."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import processes
from properties import same_tensors
from resuming import stopped_at
from tasktokens.config import Config, to_yaml
from tasktokens.datasets.folder import open_folder
from tasktokens.errors import ConfigError, RunExistsError
from tasktokens.inference import evaluate as evaluating
from tasktokens.inference import predict_files as predicting
from tasktokens.inference.discover import discover
from tasktokens.inference.evaluate import evaluate
from tasktokens.inference.predict import predict
from tasktokens.methods import PreparedBatch, Supervised
from tasktokens.training.checkpoint import complete_checkpoints
from tasktokens.training.log import RunLog, is_written, read_rows
from tasktokens.training.nan_guard import Statistics
from tasktokens.training.trainer import train

JOURNAL = "discovering.jsonl"
MakeConfig = Callable[..., Config]
SHORT = {"method": {"name": "mtl", "steps": 4}, "run.evaluate": "train", "data.check": False}


@pytest.fixture(scope="module")
def finished(folder_root: Path, make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps with its evaluation."""
    return train(make_config(folder_root, tmp_path_factory.mktemp("runs") / "run", **SHORT), quiet=True)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def unfinished(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if ".partial" in path.name or path.name.endswith(".tmp")]


def signal_at(number: int, function: Callable[..., Any], which: signal.Signals = signal.SIGTERM) -> Callable[..., Any]:
    """The function, but its n-th call (from 1) first sends this process a signal."""
    calls = iter(range(1, 10**6))

    def watched(*arguments: Any, **settings: Any) -> Any:
        if next(calls) == number:
            signal.raise_signal(which)
        return function(*arguments, **settings)

    return watched


# -- signals -----------------------------------------------------------------------------------------------------------
def slow_down(module: str, name: str) -> None:
    """A function says on its first call that it was reached, and takes 0.2 s on each."""
    owner = import_module(f"tasktokens.{module}")
    function = getattr(owner, name)

    def slow(*arguments: Any, **settings: Any) -> Any:
        print("reached", flush=True)
        time.sleep(0.2)
        return function(*arguments, **settings)

    setattr(owner, name, slow)


def interrupt(module: str, name: str, number: signal.Signals, *words: object) -> tuple[int, str]:
    """Run a verb in another process, where a function takes 0.2 s; signal it at its first call. Exit code, errors."""
    with processes.started(*words, before=partial(slow_down, module, name)) as process:
        process.until(lambda: process.output)
        process.send_signal(number)
        return process.wait(), process.errors


@pytest.mark.slow
def test_a_signal_during_the_last_evaluation_ends_the_run_and_resume_evaluates(
    finished: Path, folder_root: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(folder_root, tmp_path / "run", **SHORT)
    (tmp_path / "c.yaml").write_text(to_yaml(config))
    words = ("train", "--config", tmp_path / "c.yaml", "-q")
    code, errors = interrupt("inference.evaluate", "decode_at", signal.SIGTERM, *words)
    assert code == 143, errors
    assert "Traceback" not in errors
    assert "stopped by SIGTERM" in errors
    run = tmp_path / "run"
    assert not (run / "evaluation-train.json").exists()
    assert unfinished(run) == []
    checkpoints = files(run / "checkpoints")
    monkeypatch.setattr(Supervised, "terms", None)  # no step is taken
    train(config, resume=True, quiet=True)
    assert files(run / "checkpoints") == checkpoints
    for name in ("evaluation-train.json", "model/model.safetensors"):
        assert (run / name).read_bytes() == (finished / name).read_bytes()
    rows, others = read_rows(run / "metrics.jsonl"), read_rows(finished / "metrics.jsonl")
    assert [row.get("step") for row in rows] == [row.get("step") for row in others] == [1, 2, 3, 4, None]
    assert rows[-1]["finished"]
    # Resumed once more there is nothing to do.
    monkeypatch.setattr(evaluating, "decode_at", None)
    before = files(run)
    train(config, resume=True, quiet=True)
    assert files(run) == before


def test_a_signal_ends_discover_and_the_same_command_goes_on(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = discover(finished, tmp_path / "whole", quiet=True).folder, tmp_path / "out"
    code, errors = interrupt(
        "inference.filler", "write_prediction", signal.SIGINT, "discover", finished, "--out", out, "-q"
    )
    assert code == 130, errors
    assert "Traceback" not in errors
    count = int(re.search(r"(\d) of 8 images are done", errors)[1])  # type: ignore[index]
    assert 1 <= count < 8  # what was being written was written to its end
    assert len(list((out / "images").iterdir())) == count
    assert unfinished(out) == []
    assert not (out / "dataset.yaml").exists()
    with (out / JOURNAL).open("a") as file:
        file.write('["im03", [["im0')  # as a kill leaves it
    with pytest.raises(RunExistsError, match="another discovery"):
        discover(finished, out, threshold=0.9, quiet=True)
    with pytest.raises(RunExistsError, match="choice of views"):
        discover(finished, out, views=1, quiet=True)
    images = [path.stem for path in (out / "images").iterdir()]
    seen: list[str] = []
    from tasktokens.inference import filler

    copy = filler.copy_image
    monkeypatch.setattr(filler, "copy_image", lambda image, folder, id: (seen.append(id), copy(image, folder, id)))
    discover(finished, out, quiet=True)
    assert sorted([*images, *seen]) == [f"im0{i}" for i in range(8)]
    assert files(out) == files(whole) | {
        "dataset.yaml": (out / "dataset.yaml").read_bytes(),
    }
    assert open_folder(out).split("train") == open_folder(whole).split("train")


def test_discover_is_as_sure_as_predict_with_as_many_views(finished: Path, tmp_path: Path) -> None:
    sure: dict[tuple[int, Path], bytes] = {}
    for views in (1, 2):
        out, predicted = tmp_path / f"discovered{views}", tmp_path / f"predicted{views}"
        discover(finished, out, views=views, quiet=True)
        predict(finished, [out / "images"], predicted, views=views, quiet=True)
        for path in (out / "confidence").rglob("*.png"):
            name = path.relative_to(out)
            sure[views, name] = path.read_bytes()
            assert sure[views, name] == (predicted / name).read_bytes()
    names = {name for _, name in sure}
    assert len(names) == len(sure) / 2 == 6 * 5 - 6
    with pytest.raises(ConfigError, match="views must be 1 or 2"):
        discover(finished, tmp_path / "third", views=3, quiet=True)
    # After four steps the network is sure of no depth however it looks.
    assert any(sure[1, name] != sure[2, name] for name in names if name.parts[1] == "semseg")


def test_discover_overwrites_an_interrupted_one_when_asked(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / JOURNAL).write_text('{"model": "another"}\n')
    (out / "old.txt").touch()
    with pytest.raises(RunExistsError, match="another discovery"):
        discover(finished, out, quiet=True)
    discover(finished, out, overwrite=True, quiet=True)
    assert not (out / "old.txt").exists()
    assert not (out / JOURNAL).exists()


def test_a_signal_ends_evaluate_and_nothing_is_written(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    before, handler = files(tmp_path / "run"), signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(evaluating, "decode_at", signal_at(2, evaluating.decode_at))
    with pytest.raises(SystemExit) as stop:
        evaluate(tmp_path / "run", "train")
    assert stop.value.code == 143
    assert files(tmp_path / "run") == before
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_signal_ends_predict_between_two_images(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(20):
        Image.new("RGB", (48, 32), "red").save(tmp_path / f"{number:02}.png")
    draw = predicting.save_label_picture
    monkeypatch.setattr(predicting, "save_label_picture", signal_at(2, draw, signal.SIGINT))
    with pytest.raises(SystemExit) as stop:
        predict(finished, [tmp_path / "*.png"], tmp_path / "out", quiet=True)
    assert stop.value.code == 130
    count = int(re.search(r"(\d+) of 20 images", capsys.readouterr().err)[1])  # type: ignore[index]
    assert 2 <= count < 20
    for task in ("semseg", "depth", "pictures", "confidence/edge"):
        written = sorted((tmp_path / "out" / task).iterdir())
        assert [path.name for path in written] == [f"{number:02}.png" for number in range(count)]
        for path in written:
            Image.open(path).load()
    assert unfinished(tmp_path / "out") == []


def test_a_signal_to_the_process_group_with_loader_processes_saves_a_checkpoint(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    """As a batch system or a terminal sends it: the loader processes get it, too."""
    changes = SHORT | {"method": {"name": "mtl", "steps": 10**6}, "data.workers": 1, "run.checkpoint_every": 10**6}
    (tmp_path / "c.yaml").write_text(to_yaml(make_config(folder_root, tmp_path / "run", **changes)))
    log = tmp_path / "run" / "metrics.jsonl"
    with processes.started("train", "--config", tmp_path / "c.yaml", "-q", own_session=True) as process:
        process.until(lambda: log.is_file() and len(read_rows(log)) > 2)
        assert is_written(log)
        with pytest.raises(RunExistsError, match="another process is training"):
            RunLog(log, quiet=True)
        os.killpg(process.pid, signal.SIGTERM)
        code, errors = process.wait(), process.errors
    assert code == 143, errors
    assert "Traceback" not in errors
    assert not is_written(log)
    assert len(complete_checkpoints(tmp_path / "run" / "checkpoints")) == 1


@pytest.mark.parametrize("evaluating", [False, True])
def test_a_second_signal_ends_a_run_whose_loader_process_hangs(
    evaluating: bool, folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    """Loader processes ignore signals, so whoever waits for one that hangs would wait for ever."""
    changes = SHORT | {"method": {"name": "mtl", "steps": 1 if evaluating else 10**6}, "data.workers": 1,
                       "run.evaluate": "test"}  # fmt: skip
    (tmp_path / "c.yaml").write_text(to_yaml(make_config(folder_root, tmp_path / "run", **changes)))
    (tmp_path / "hang.py").write_text(
        "import sys, time\nfrom tasktokens import cli\nfrom tasktokens.data.dataset import PartialDataset\n"
        "from torch.utils.data import get_worker_info\nread, count = PartialDataset.__getitem__, 0\n"
        "def hang(self, key):\n"
        "    global count\n    count += 1\n"
        f"    if get_worker_info() is not None and (len(self) == 2 if {evaluating} else count > 9):\n"
        "        print('hangs', flush=True)\n        time.sleep(1000)\n"
        "    return read(self, key)\n"
        "PartialDataset.__getitem__ = hang\ncli.main()\n"
    )
    words = ("train", "--config", tmp_path / "c.yaml", "-q")
    with processes.started(*words, script=tmp_path / "hang.py", own_session=True) as process:
        try:
            process.until(lambda: process.output)
            process.send_signal(signal.SIGTERM)
            time.sleep(1)
            process.send_signal(signal.SIGTERM)
            code, errors = process.wait(40), process.errors
            deadline = time.monotonic() + 10
            with contextlib.suppress(ProcessLookupError):  # once the loader process has gone, too
                while time.monotonic() < deadline:
                    os.killpg(process.pid, 0)
                    time.sleep(0.02)
                pytest.fail("the loader process is still there")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert code in (130, 143, -signal.SIGTERM)  # the first where a batch was waited for, the last on the way out
    assert "Traceback" not in errors


# -- the log of a resumed run ------------------------------------------------------------------------------------------
def test_a_resumed_run_has_each_row_once(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = stopped_at(finished, run, "0-0000002")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "supervised", "st')  # as a kill leaves it
    (run / ".evaluation-train.1.partial.json").touch()
    (run / "checkpoints" / ".0-0000004.tmp").mkdir()
    train(config, resume=True, quiet=True)
    again, whole = read_rows(run / "metrics.jsonl"), read_rows(finished / "metrics.jsonl")
    assert [row.get("step") for row in again] == [1, 2, 3, 4, None]
    assert again[:2] == whole[:2]
    for one, other in zip(again, whole, strict=True):
        assert {k: v for k, v in one.items() if "loss" in k} == {k: v for k, v in other.items() if "loss" in k}
    assert again[-1]["finished"]
    minutes = [row["minutes"] for row in again]
    assert minutes == sorted(minutes)  # those before the interruption count
    assert unfinished(run) == []
    assert (run / "evaluation-train.json").read_bytes() == (finished / "evaluation-train.json").read_bytes()


# -- numbers that are not finite ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_image_changes_neither_weights_nor_statistics(
    bad: float, folder_root: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terms, steps = Supervised.terms, iter(range(10**6))

    def spoilt(self: Supervised, prepared: PreparedBatch, *rest: Any) -> Any:
        image = prepared.image.float()
        if next(steps) == 1:
            image[0, 0, 5, 5] = bad
        return terms(self, replace(prepared, image=image), *rest)

    monkeypatch.setattr(Supervised, "terms", spoilt)
    changes = SHORT | {"method": {"name": "mtl", "steps": 3}, "run.evaluate": None, "run.checkpoint_every": 1}
    changes["data.augmentation"] = {"photometric": 0.0}
    run = train(make_config(folder_root, tmp_path / "run", **changes), quiet=True)
    assert [row["skipped"] for row in read_rows(run / "metrics.jsonl") if "step" in row] == [0, 1, 0]
    before, after, later = (
        load_file(path / "student.safetensors") for path in complete_checkpoints(run / "checkpoints")
    )
    assert any(name.endswith("running_var") for name in before)
    assert same_tensors(before, after)
    assert all(tensor.isfinite().all() for tensor in later.values())
    assert not same_tensors(after, later)


def test_good_statistics_are_kept_and_bad_ones_put_back() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3))
    guard, no, yes = Statistics(network), torch.tensor(False), torch.tensor(True)
    network(torch.randn(4, 2, 5, 5))
    guard.keep_or_restore(no)
    first = {name: buffer.clone() for name, buffer in network.named_buffers()}
    assert first["1.running_mean"].abs().sum() > 0
    network(torch.randn(4, 2, 5, 5))
    guard.keep_or_restore(yes)
    assert same_tensors(dict(network.named_buffers()), first)
    network(torch.full((4, 2, 5, 5), float("inf")))
    guard.keep_or_restore(no)  # the gradient may be finite all the same
    assert same_tensors(dict(network.named_buffers()), first)
    network(torch.randn(4, 2, 5, 5))
    guard.keep_or_restore(no)
    assert int(network[1].num_batches_tracked) == 2  # type: ignore[arg-type]
    assert np.isfinite(network[1].running_var).all()  # type: ignore[arg-type]


def test_a_network_without_batch_norm_has_nothing_to_guard() -> None:
    Statistics(torch.nn.Linear(2, 2)).keep_or_restore(torch.tensor(True))
