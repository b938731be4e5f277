"""Files that version 0.1 (commit 73601fe) wrote are read, or refused in a sentence that says how to go on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import save_file

from properties import same_tensors
from tasktokens.config import load_config, load_run_config
from tasktokens.errors import CheckpointError, ConfigError
from tasktokens.methods import build_method
from tasktokens.models.create import create_model
from tasktokens.models.files import FORMAT, load_weights, read_info
from tasktokens.tasks import Task

FILES = Path(__file__).parents[2] / "fixtures" / "version_0_1"


def test_settings_of_a_run_are_read_with_the_values_that_it_had() -> None:
    written = yaml.safe_load((FILES / "config.yaml").read_text())
    config = load_config(FILES / "config.yaml")
    assert config.method.model_dump()["student"] == written["method"]["student"] == "fresh"  # not today's default
    assert config.method.model_dump()["thresholds"] == written["method"]["thresholds"] == "fixed"
    assert config.optim.weight_decay == written["optim"]["weight_decay"] == 1e-4
    assert [stage.name for stage in build_method(config.method, {}).stages()] == ["supervised", "discovery"]


def test_a_model_with_the_heads_of_then_says_how_to_go_on() -> None:
    with pytest.raises(CheckpointError, match=r"is of an earlier version, .* train it again"):
        read_info(FILES)


def test_a_model_of_a_network_that_has_not_changed_is_read_and_built(tmp_path: Path) -> None:
    written = json.loads((FILES / "model.json").read_text()) | {"network": "mtl"}
    (tmp_path / "model.json").write_text(json.dumps(written))
    info = read_info(tmp_path)
    assert info.size == tuple(written["size"])
    assert info.mirrored  # as all were then
    assert {name: task.kind for name, task in info.tasks.items()} == {
        name: spec["kind"] for name, spec in written["tasks"].items()
    }
    for name, spec in written["tasks"].items():
        now = info.tasks[name].spec() | info.tasks[name].training()
        assert {key: now[key] for key in spec} == spec
    assert sum(p.numel() for p in info.build().parameters()) > 0


def test_weights_from_before_the_confidence_had_a_token_of_its_own_give_the_same_network(
    tiny_tasks: dict[str, Task], tmp_path: Path
) -> None:
    network = create_model("htt", tiny_tasks, backbone="test_resnet", width=16).eval()
    before = {name: x.contiguous() for name, x in network.state_dict().items() if ".confidence." not in name}
    assert len(before) == len(network.state_dict()) - len(tiny_tasks)
    save_file(before, tmp_path / "model.safetensors")
    loaded = create_model("htt", tiny_tasks, backbone="test_resnet", width=16).eval()
    load_weights(loaded, tmp_path / "model.safetensors")
    assert same_tensors(loaded.state_dict(), network.state_dict())


def test_data_sets_under_one_name_have_another_kind_now() -> None:
    parts = [{"name": name, "source": {"kind": "rooms"}} for name in ("a", "b")]
    config = load_config(None, [f"data={json.dumps({'kind': 'several', 'parts': parts})}"])
    assert config.data.model_dump()["kind"] == "concat"


@pytest.mark.parametrize("setting", [{"geometry": True}, {"strong": {"cutmix": 0.5}}])
def test_settings_that_left_are_refused_by_name(setting: dict[str, Any], tmp_path: Path) -> None:
    values = yaml.safe_load((FILES / "config.yaml").read_text())
    for key, value in setting.items():
        values["method"][key] = {**values["method"][key], **value} if isinstance(value, dict) else value
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match=r"method\.(geometry|strong\.cutmix)") as raised:
        load_config(tmp_path / "config.yaml")
    assert "\n" not in str(raised.value)


def test_a_format_of_a_later_version_is_refused(tmp_path: Path) -> None:
    shutil.copy(FILES / "model.json", tmp_path)
    values = json.loads((tmp_path / "model.json").read_text()) | {"format": FORMAT + 1}
    (tmp_path / "model.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=f"format {FORMAT + 1}; this version reads formats 1 to {FORMAT}"):
        read_info(tmp_path)


def test_its_settings_are_those_to_resume_with(tmp_path: Path) -> None:
    shutil.copy(FILES / "config.yaml", tmp_path)
    assert load_run_config(None, [f"run.dir={tmp_path}"]).optim.batch_size == 2
