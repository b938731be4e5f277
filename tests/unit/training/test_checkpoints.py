"""Checkpoints that were damaged are passed over by name, and a kill at any moment of saving leaves a whole one."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file

from conftest import run_cli
from properties import same_tensors
from tasktokens.config import Config, load_config, to_yaml
from tasktokens.errors import CheckpointError
from tasktokens.models import Network
from tasktokens.training import checkpoint as checkpoints
from tasktokens.training.callbacks import checkpoints as saving
from tasktokens.training.checkpoint import (
    Cursor,
    complete_checkpoints,
    fault,
    latest_checkpoint,
    read_cursor,
    save_checkpoint,
    tidy,
)
from tasktokens.training.log import RunLog
from tasktokens.training.trainer import train

MakeConfig = Callable[..., Config]
FILES = ("student.safetensors", "teacher.safetensors", "optimizer.safetensors", "cursor.json", "complete.json")


@pytest.fixture(scope="session")
def make_config(make_config_of_two: MakeConfig) -> MakeConfig:
    """Two tasks will do."""
    return make_config_of_two


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))


def save(folder: Path, *cursors: Cursor, keep: int = 9) -> None:
    """Checkpoints of a network of six weights, which say at what step they were taken."""
    network = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(network.parameters())
    for cursor in cursors:
        network.weight.grad = torch.full((2, 2), float(cursor.step))
        optimizer.step()
        save_checkpoint(folder, cursor, cast(Network, network), cast(Network, network), optimizer, keep)


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink], ids=["cut", "flipped", "missing"])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_is_named_and_passed_over(
    name: str, damage: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, Cursor(0, 2), Cursor(0, 4), Cursor(1, 2))
    assert latest_checkpoint(tmp_path).name == "1-0000002"
    assert capsys.readouterr().err == ""
    for number, path in enumerate(("1-0000002", "0-0000004"), 1):
        damage(tmp_path / path / name)
        assert latest_checkpoint(tmp_path).name == ("0-0000004", "0-0000002")[number - 1]
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == number
        assert all("is not whole" in line and "passed over" in line for line in lines)
        assert f"{tmp_path / path} is" in lines[-1]
    damage(tmp_path / "0-0000002" / name)
    with pytest.raises(CheckpointError, match=r"no complete checkpoint.*none of 3 is whole.*start the run anew"):
        latest_checkpoint(tmp_path)


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    save(tmp_path, Cursor(0, 2))
    path = tmp_path / "0-0000002"
    assert fault(path) is None
    whole = (path / "student.safetensors").read_bytes()
    for damage, said in ((cut, f"in place of {len(whole)}"), (flip, "is damaged"), (Path.unlink, "is missing")):
        damage(path / "student.safetensors")
        assert said in (fault(path) or "")
        assert "student.safetensors" in (fault(path) or "")
        (path / "student.safetensors").write_bytes(whole)
    for content in ("", "{", "[]", "{}", '{"cursor.json": 3}', '{"cursor.json": {"size": 25}}'):
        (path / "complete.json").write_text(content)
        assert fault(path) is not None, content


def test_damaged_ones_do_not_count_as_kept(tmp_path: Path) -> None:
    """The run went on from step 2; what it writes at 4 must outlive the damaged ones of 4, 6 and 8."""
    save(tmp_path, *(Cursor(0, step) for step in (2, 4, 6, 8)))
    for step in (4, 6, 8):
        cut(tmp_path / f"0-000000{step}" / "student.safetensors")
    save(tmp_path, Cursor(0, 4), keep=1)
    assert latest_checkpoint(tmp_path).name == "0-0000004"
    assert [path.name for path in complete_checkpoints(tmp_path)] == ["0-0000004", "0-0000006", "0-0000008"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit of file sizes")
def test_a_write_that_fails_leaves_the_older_checkpoint_and_model(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    """As on a full disk: no file may be larger than 200 bytes."""
    import resource

    from tasktokens.datasets.open import open_data
    from tasktokens.models.files import ModelInfo, load_model, save_model

    config = make_config(folder_root, tmp_path)
    info = ModelInfo("mtl", config.model, {"depth": open_data(config).tasks["depth"]}, config.data.size)
    save(tmp_path / "checkpoints", Cursor(0, 2), keep=1)
    save_model(tmp_path / "model", info.build(), info)
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    network, limits = info.build(), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
        with pytest.raises(CheckpointError, match=r"cannot write checkpoint.*older ones are still there"):
            save(tmp_path / "checkpoints", Cursor(0, 4), keep=1)
        with pytest.raises(CheckpointError, match="cannot write the model"):
            save_model(tmp_path / "model", network, info)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert latest_checkpoint(tmp_path / "checkpoints").name == "0-0000002"
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["0-0000002"]
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before
    load_model(tmp_path)


def test_a_full_disk_is_one_sentence(
    folder_root: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def full(self: RunLog, values: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RunLog, "row", full)
    (tmp_path / "c.yaml").write_text(to_yaml(make_config(folder_root, tmp_path / "run", **{"data.check": False})))
    code, _, err = run_cli(capsys, "train", "--config", tmp_path / "c.yaml", "-q")
    assert code == 2
    assert err == "error: no space is left on the disk; free some space, then resume or start again\n"


# -- kills -------------------------------------------------------------------------------------------------------------
EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"}


def killed(number: int, action: Callable[[], None]) -> bool:
    """Run an action in a child that is killed before its n-th change of a file; whether it came to that."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    count, write = iter(range(10**6)), checkpoints.save_file

    def tick(event: str, arguments: object = None) -> None:
        if event in EVENTS and next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def half_first(tensors: Any, path: Path) -> None:
        write(tensors, path)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        tick("open")
        write(tensors, path)

    try:
        checkpoints.save_file = half_first
        sys.addaudithook(tick)
        action()
    finally:
        os._exit(0)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("again", [False, True], ids=["a new one", "one of the same name"])
def test_a_kill_at_any_moment_of_saving_leaves_a_whole_checkpoint(
    again: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With one checkpoint kept, which the new one replaces; the next save then leaves nothing half done."""
    step, moments = 2 if again else 4, 0
    while True:
        folder = tmp_path / str(moments)
        save(folder, Cursor(0, 2), keep=1)
        before = load_file(folder / "0-0000002" / "student.safetensors")
        if not killed(moments, lambda folder=folder: save(folder, Cursor(0, step), keep=1)):  # type: ignore[misc]
            break
        tidy(folder)
        found = latest_checkpoint(folder)
        assert read_cursor(found).step in (2, step)
        if found.name == "0-0000002" and not again:
            assert same_tensors(load_file(found / "student.safetensors"), before)
        save(folder, Cursor(0, 6), keep=1)
        assert [path.name for path in folder.iterdir()] == ["0-0000006"]
        moments += 1
    assert moments > 20
    assert [path.name for path in folder.iterdir()] == [f"0-000000{step}"]
    assert capsys.readouterr().err == ""


@pytest.fixture(scope="module")
def whole(folder_root: Path, make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps in each of two stages that was not interrupted."""
    method = {"name": "htt", "stage1_steps": 2, "stage2_steps": 2}
    return train(make_config(folder_root, tmp_path_factory.mktemp("runs") / "run", method=method), quiet=True)


@pytest.mark.parametrize("saves", [0, 1])
def test_a_run_killed_at_the_change_of_stages_goes_on(
    saves: int, whole: Path, folder_root: Path, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last step of stage 1 is saved, and while the first checkpoint of stage 2 is; one is kept."""
    method = {"name": "htt", "stage1_steps": 2, "stage2_steps": 2}
    config = make_config(folder_root, tmp_path / "run", method=method, **{"run.keep": 1})
    save_as_ever, calls = saving.save_checkpoint, iter(range(9))

    def save_then_die(*arguments: Any) -> Path:
        if next(calls) == saves:
            if saves == 0:
                save_as_ever(*arguments)
            raise KeyboardInterrupt
        return save_as_ever(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(saving, "save_checkpoint", save_then_die)
        with pytest.raises(KeyboardInterrupt):
            train(config, quiet=True)
    assert [path.name for path in complete_checkpoints(tmp_path / "run" / "checkpoints")] == ["0-0000002"]
    train(config, resume=True, quiet=True)
    for which in ("model", "teacher"):
        ours, theirs = (load_file(run / which / "model.safetensors") for run in (tmp_path / "run", whole))
        assert same_tensors(ours, theirs)


def test_a_run_goes_on_from_before_a_damaged_checkpoint_with_the_same_bits(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    text = (run / "config.yaml").read_text().replace(str(whole), str(run))
    (run / "config.yaml").write_text(text)
    cut(run / "checkpoints" / "1-0000002" / "student.safetensors")
    train(load_config(run / "config.yaml"), resume=True, quiet=True)
    assert "1-0000002 is not whole: student.safetensors has" in capsys.readouterr().err
    for file in ("model/model.safetensors", "checkpoints/1-0000002/student.safetensors"):
        assert same_tensors(load_file(run / file), load_file(whole / file))
    assert fault(run / "checkpoints" / "1-0000002") is None


def test_the_format_is_written_and_a_later_one_is_refused(tmp_path: Path) -> None:
    for written, expected in (({}, None), ({"format": 1}, None), ({"format": 2}, "has format 2; .* resume with the")):
        (tmp_path / "cursor.json").write_text(json.dumps({"stage": 1, "step": 7, **written}))  # {}: as 0.1 wrote it
        if expected is None:
            assert read_cursor(tmp_path) == Cursor(1, 7)
        else:
            with pytest.raises(CheckpointError, match=expected):
                read_cursor(tmp_path)
