"""Variables of the environment: without effect, or refused in one sentence, and always written down."""

from __future__ import annotations

import os

import pytest
from torch import nn, tensor

from tasktokens.config import RunSettings
from tasktokens.errors import ConfigError
from tasktokens.utils.distributed import start
from tasktokens.utils.environment import recorded_variables

CPU = RunSettings(device="cpu")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "8"),
        ("ACCELERATE_MIXED_PRECISION", "bf16"),
        ("ACCELERATE_MIXED_PRECISION", "fp16"),
        ("ACCELERATE_DYNAMO_BACKEND", "eager"),
        ("ACCELERATE_FP8_BACKEND", "TE"),
        ("ACCELERATE_CPU_AFFINITY", "1"),
        ("ACCELERATE_TORCH_DEVICE", "meta"),
    ],
)
def test_what_accelerate_reads_changes_nothing_and_stays_set(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    accelerator = start(CPU)
    assert accelerator.gradient_accumulation_steps == 1
    assert accelerator.mixed_precision == "no"
    assert accelerator.device.type == "cpu"
    assert accelerator.state.dynamo_plugin.backend == "NO"
    assert accelerator.num_processes == 1
    weight = nn.Parameter(tensor(3.0))
    accelerator.backward(weight * weight)
    assert weight.grad == 6
    assert os.environ[name] == value
    assert recorded_variables()[name] == value


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ACCELERATE_USE_FSDP": "true"}, "ACCELERATE_USE_FSDP=true asks for a way of training"),
        ({"ACCELERATE_USE_DEEPSPEED": "1"}, "ACCELERATE_USE_DEEPSPEED=1 asks for a way of training"),
        ({"ACCELERATE_USE_MEGATRON_LM": "True"}, "ACCELERATE_USE_MEGATRON_LM=True asks"),
        ({"NVIDIA_TF32_OVERRIDE": "1"}, "NVIDIA_TF32_OVERRIDE=1 changes the precision"),
        ({"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"}, "ONEDNN_DEFAULT_FPMATH_MODE=BF16 changes the precision"),
        ({"LOCAL_RANK": "0"}, "LOCAL_RANK=0 says that this is one of several .* but RANK, WORLD_SIZE, MASTER_ADDR"),
        ({"LOCAL_RANK": "one"}, "LOCAL_RANK must be a whole number from 0; it is 'one'"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE must be a whole number from 0; it is 'two'"),
    ],
)
def test_what_cannot_be_passed_over_is_refused(
    variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        start(CPU)


@pytest.mark.parametrize(
    ("name", "value"),
    [("ACCELERATE_USE_FSDP", "false"), ("NVIDIA_TF32_OVERRIDE", ""), ("LOCAL_RANK", "-1"), ("RANK", "")],
)
def test_what_asks_for_nothing_is_let_pass(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert start(CPU).num_processes == 1


def test_others_are_not_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert "MY_TOKEN" not in recorded_variables()
    assert recorded_variables()["OMP_NUM_THREADS"] == "1"
