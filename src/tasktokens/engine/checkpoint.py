"""Checkpoints from which a run goes on exactly: networks, optimiser, the state of the method, the cursor (stage, step).

A checkpoint is written into a temporary folder, flushed to disk, marked complete and then renamed, so a kill at any
moment leaves the older ones whole. Randomness needs no state: it depends on (seed, stage, step) alone.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tasktokens.engine.model_file import read_tensors
from tasktokens.errors import CheckpointError
from tasktokens.models import Network

_MARK = "complete"


@dataclass(frozen=True)
class Cursor:
    """Where a run stands: ``step`` steps of stage number ``stage`` are done."""

    stage: int = 0
    step: int = 0


def save_checkpoint(
    folder: Path,
    cursor: Cursor,
    student: Network,
    teacher: Network | None,
    optimizer: torch.optim.Optimizer,
    keep: int,
    method: nn.Module | None = None,
    scaler: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``folder/{stage}-{step}`` and remove all but the newest ``keep`` checkpoints.

    ``scaler``: the state of the loss scaler, where fp16 needs one.
    """
    target = folder / f"{cursor.stage}-{cursor.step:07d}"
    temporary = folder / f".{target.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(_contiguous(student.state_dict()), temporary / "student.safetensors")
    if teacher is not None:
        save_file(_contiguous(teacher.state_dict()), temporary / "teacher.safetensors")
    if method is not None:
        save_file(_contiguous(method.state_dict()), temporary / "method.safetensors")
    save_file(_optimizer_tensors(optimizer), temporary / "optimizer.safetensors")
    (temporary / "cursor.json").write_text(json.dumps({"stage": cursor.stage, "step": cursor.step}))
    if scaler is not None:
        (temporary / "scaler.json").write_text(json.dumps(scaler))
    (temporary / _MARK).touch()
    for path in [*temporary.iterdir(), temporary]:
        _flush(path)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
    _flush(folder)
    for old in complete_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def complete_checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    return sorted(path.parent for path in folder.glob(f"*/{_MARK}") if not path.parent.name.startswith("."))


def latest_checkpoint(folder: Path) -> Path:
    """The newest whole checkpoint. Raises `CheckpointError` where there is none."""
    found = complete_checkpoints(folder)
    if not found:
        raise CheckpointError(f"{folder} holds no complete checkpoint to resume from; start the run anew")
    return found[-1]


def read_cursor(checkpoint: Path) -> Cursor:
    """Where the checkpoint's run stood."""
    try:
        values = json.loads((checkpoint / "cursor.json").read_text())
        return Cursor(int(values["stage"]), int(values["step"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{checkpoint}/cursor.json is damaged ({error}); remove that checkpoint") from error


def load_scaler(checkpoint: Path, scaler: torch.amp.GradScaler) -> None:
    """Load the loss scale and how many good steps there were since it last changed."""
    try:
        scaler.load_state_dict(json.loads((checkpoint / "scaler.json").read_text()))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{checkpoint}/scaler.json is damaged ({error}); remove that checkpoint") from error


def load_optimizer(checkpoint: Path, optimizer: torch.optim.Optimizer) -> None:
    """Load the optimiser's moments; the optimiser must have the same parameters in the same order."""
    tensors = read_tensors(checkpoint / "optimizer.safetensors")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".")
        parameter = parameters[int(index)]
        if tensor.shape == parameter.shape:
            # The fused kernels walk through memory: a moment must have its weight's layout, such as channels last.
            tensor = torch.empty_like(parameter, dtype=tensor.dtype, requires_grad=False).copy_(tensor)
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value).contiguous()
        for index, item in state.items()
        for name, value in item.items()
    }


def _contiguous(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in state.items()}


def _flush(path: Path) -> None:
    """fsync a file or folder, so that a rename cannot outrun its content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
