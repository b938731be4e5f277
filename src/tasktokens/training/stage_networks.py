"""The networks of a stage: where its student and teacher come from, and which of them the next stage gets."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import nn

from tasktokens.errors import CheckpointError
from tasktokens.methods import Stage
from tasktokens.models import Network
from tasktokens.models.files import ModelInfo, load_weights, model_folder, read_info
from tasktokens.tasks.same import require_same_tasks


def networks_of(
    stage: Stage, seed: int, info: ModelInfo, before: Network | None, checkpoint: Path | None
) -> tuple[Network, Network | None]:
    """A stage's student, and the teacher that it has or will be averaged into.

    Args:
        seed: of the stage: a fresh network depends on it alone, so a resumed run draws the same.
        before: what the stage before handed on.
        checkpoint: one within this stage, which both are loaded from.
    """
    torch.manual_seed(seed)
    if checkpoint is not None:
        student = info.build()
        load_weights(student, checkpoint / "student.safetensors")
        teacher = info.build() if stage.has_teacher else None
        if teacher is not None:
            load_weights(teacher, checkpoint / "teacher.safetensors")
    else:
        student = info.build(load_weights=True)
        teacher = before if stage.teacher else copy.deepcopy(student) if stage.ema is not None else None
        if before is not None and stage.student == "teacher":
            student.load_state_dict(before.state_dict())
    return student, None if teacher is None else teacher.eval().requires_grad_(False)


def start_from(network: Network, source: Path, info: ModelInfo) -> None:
    """Load the weights of another run; `CheckpointError` where its kind of network is another, or its tasks are.

    Raises `ConfigError` where tasks of the same name mean something else there.
    """
    folder = model_folder(source)
    other = read_info(folder)
    if list(other.tasks) != list(info.tasks) or other.network != info.network:
        raise CheckpointError(
            f"{source} is a '{other.network}' network for the tasks {', '.join(other.tasks)}; "
            f"this run trains '{info.network}' for {', '.join(info.tasks)}"
        )
    require_same_tasks(other.tasks, info.tasks, source, "this run", storage=False)
    load_weights(network, folder / "model.safetensors")


def stage_output(stage: Stage, student: Network, teacher: Network | None) -> Network:
    """The network that a stage hands on.

    A moving average predicts better than the last of the networks that it averages (Mean Teacher, 2017).
    """
    return teacher if teacher is not None and stage.ema is not None else student


@torch.no_grad()
def move_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """``average = decay * average + (1 - decay) * network``, for parameters and batch-norm statistics alike."""
    old, new = average.state_dict(), network.state_dict()
    floats = [key for key, tensor in old.items() if tensor.is_floating_point()]
    torch._foreach_lerp_([old[k] for k in floats], [new[k] for k in floats], 1 - decay)
