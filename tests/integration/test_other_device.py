"""Runs that go on on another kind of device: what a GPU leaves is read on a CPU, and what has changed is said.

There need be no GPU here: files say what one would have written.
"""

from __future__ import annotations

import io
import json
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from conftest import run_cli
from properties import same_tensors
from resuming import stopped_at
from tasktokens.config import load_config, to_yaml
from tasktokens.errors import WeightsError
from tasktokens.models.backbones import Backbone
from tasktokens.training import checkpoint as checkpoints
from tasktokens.training.trainer import train


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasktokens.reporting.train._attempt", lambda draw, run: None)


@pytest.fixture(scope="module")
def ended(make_config: Any, folder_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("device") / "run"
    changes = {"method": {"name": "mtl", "steps": 4}, "data.check": False, "model.backbone": "test_resnet"}
    train(make_config(folder_root, run, **changes, **{"run.device": "auto"}), quiet=True)
    return run


def begun_on(device: dict[str, str], ended: Path, run: Path) -> Any:
    """The run as it was when two steps were done, with an environment that says that it was begun on a device."""
    config = stopped_at(ended, run, "0-0000002")
    path = run / "environment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | device))
    return config


GPU = {"device": "cuda (NVIDIA H100 80GB HBM3)", "precision": "bf16"}


def test_device_and_precision_are_recorded(ended: Path) -> None:
    recorded = json.loads((ended / "environment.json").read_text())
    assert (recorded["device"], recorded["precision"]) == ("cpu", "fp32")


@pytest.mark.parametrize("more", [{}, {"scaler.json": '{"scale": 65536.0, "growth_tracker": 3}'}])
def test_a_run_of_a_gpu_goes_on_on_a_cpu_and_says_so(
    more: dict[str, str], ended: Path, tmp_path: Path, capsys: Any
) -> None:
    """Also with the state of a loss scaler, which nothing here has."""
    config = begun_on(GPU, ended, tmp_path / "run")
    for name, content in more.items():
        (tmp_path / "run" / "checkpoints" / "0-0000002" / name).write_text(content)
        checkpoints.mark_complete(tmp_path / "run" / "checkpoints" / "0-0000002")
    capsys.readouterr()
    train(config, resume=True, quiet=True)
    said = [line for line in capsys.readouterr().err.splitlines() if "begun with" in line]
    assert len(said) == 1
    assert "device cuda (NVIDIA H100 80GB HBM3), now cpu; precision bf16, now fp32" in said[0]
    assert "results may differ" in said[0]
    # The draws are those of a run that was never elsewhere.
    assert (tmp_path / "run/model/model.safetensors").read_bytes() == (ended / "model/model.safetensors").read_bytes()


def test_the_same_device_is_not_worth_a_line(ended: Path, tmp_path: Path, capsys: Any) -> None:
    config = begun_on({}, ended, tmp_path / "run")
    capsys.readouterr()
    train(config, resume=True, quiet=True)
    assert "begun with" not in capsys.readouterr().err


def test_a_checkpoint_names_no_device(ended: Path) -> None:
    """Tensors are safetensors, whose header has types, shapes and places in the file alone; nothing is pickled."""
    files = [path for path in (ended / "checkpoints").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".safetensors", ".json"}
    for path in files:
        content = path.read_bytes()
        if path.suffix == ".json":
            assert not any(word in content for word in (b"cpu", b"cuda", b"rng"))
            continue
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        assert all(set(entry) == {"dtype", "shape", "data_offsets"} for entry in header.values())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_moments_get_the_layout_of_this_device(layout: torch.memory_format, tmp_path: Path) -> None:
    """A GPU's networks may lie in channels last; the moments of fused kernels must lie as the weights do."""
    network = torch.nn.Conv2d(3, 4, 3)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    network(torch.randn(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    folder = checkpoints.save_checkpoint(tmp_path, checkpoints.Cursor(0, 1), network, None, optimizer, 1)  # type: ignore[arg-type]
    before = {n: v.clone() for n, v in optimizer.state[network.weight].items()}
    elsewhere = torch.nn.Conv2d(3, 4, 3).to(memory_format=layout)  # type: ignore[call-overload]
    other = torch.optim.AdamW(elsewhere.parameters(), fused=True)
    checkpoints.load_optimizer(folder, other)
    loaded = other.state[elsewhere.weight]
    same_tensors({n: v.contiguous() for n, v in loaded.items()}, before)
    assert loaded["exp_avg"].stride() == elsewhere.weight.stride()
    assert all(value.device == elsewhere.weight.device for value in loaded.values())


def test_a_run_of_fp16_needs_a_gpu_still(ended: Path, tmp_path: Path, capsys: Any) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    config = begun_on(GPU | {"precision": "fp16"}, ended, tmp_path / "run")
    config = config.model_copy(update={"run": config.run.model_copy(update={"precision": "fp16"})})
    (tmp_path / "run" / "config.yaml").write_text(to_yaml(config))
    code, _, err = run_cli(capsys, "train", "--resume", f"run.dir={tmp_path / 'run'}")
    assert (code, err.count("\n")) == (2, 1)
    assert "run.precision=fp16 needs a GPU" in err
    for precision in ("fp32", "bf16"):
        code, _, err = run_cli(capsys, "train", "--resume", f"run.dir={tmp_path / 'run'}", f"run.precision={precision}")
        assert (code, err.count("\n")) == (2, 1)
        assert "'precision: fp16' there" in err


@pytest.mark.parametrize("setting", ["run.device=cpu", "run.precision=fp32"])
def test_another_device_or_precision_that_was_asked_for_is_refused(
    setting: str, ended: Path, tmp_path: Path, capsys: Any
) -> None:
    begun_on({}, ended, tmp_path / "run")
    code, _, err = run_cli(capsys, "train", "--resume", f"run.dir={tmp_path / 'run'}", setting)
    assert (code, err.count("\n")) == (2, 1)
    assert "was started with other settings" in err
    assert load_config(tmp_path / "run" / "config.yaml").run.device == "auto"


def saved_on_a_gpu(state: dict[str, torch.Tensor], path: Path) -> None:
    """``torch.save``, with the location of each storage as a process with a GPU writes it."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("data.pkl"):
                # A text of one byte for its length: BINUNICODE "cpu".
                tag = b"X\x03\x00\x00\x00cpu"
                assert tag in content
                content = content.replace(tag, b"X\x06\x00\x00\x00cuda:0")
                assert b"cuda:0" in content
                assert pickle.PROTO in content[:2]
            target.writestr(name, content)


def test_weights_that_were_saved_on_a_gpu_are_read(tmp_path: Path) -> None:
    torch.manual_seed(3)
    state = timm.create_model("test_resnet", pretrained=False).state_dict()
    saved_on_a_gpu(state, tmp_path / "weights.pth")
    with pytest.raises(RuntimeError, match=r"CUDA"):
        torch.load(tmp_path / "weights.pth")
    backbone = Backbone("test_resnet", False, tmp_path / "weights.pth")
    loaded = backbone.state_dict()
    shared = {f"network.{name}": value for name, value in state.items() if f"network.{name}" in loaded}
    assert len(shared) > 20
    for name, value in shared.items():
        torch.testing.assert_close(loaded[name], value, rtol=0, atol=0)
    shutil.copy(tmp_path / "weights.pth", tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "weights.pth").read_bytes()[:5000])
    with pytest.raises(WeightsError):
        Backbone("test_resnet", False, tmp_path / "cut.pth")
