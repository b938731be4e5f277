"""Checkpoints for exact resuming: networks, optimiser, the state of the method, the cursor (stage, step).

A checkpoint is written into a temporary folder, flushed to disk, marked complete and then renamed, so a kill at any
moment leaves the older ones whole. The mark holds size and CRC-32 of every file: what was cut off or damaged later is
found on resuming. Randomness needs no state: it depends on (seed, stage, step) alone.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from tasktokens.errors import CheckpointError
from tasktokens.models import Network
from tasktokens.models.files import read_tensors
from tasktokens.utils import console, strict_json
from tasktokens.utils.atomic import flush
from tasktokens.utils.file_state import crc32
from tasktokens.utils.safe_io import load_json

MARK = "complete.json"
"""Written last: a checkpoint with it is whole."""
FORMAT = 1
"""Of a checkpoint's files; version 0.1 wrote no number and the same files."""


@dataclass(frozen=True)
class Cursor:
    """Where a run stands: ``step`` steps of stage number ``stage`` are done.

    ``teacher``: SHA-256 of the weights of the network that discovered the labels of the stage, if one did.
    """

    stage: int = 0
    step: int = 0
    teacher: str | None = field(default=None, compare=False)


def save_checkpoint(
    folder: Path,
    cursor: Cursor,
    student: Network,
    teacher: Network | None,
    optimizer: torch.optim.Optimizer,
    keep: int,
    method: nn.Module | None = None,
    scaler: Mapping[str, Any] | None = None,
    sums: Mapping[str, Any] | None = None,
    balance: nn.Module | None = None,
) -> Path:
    """Write ``folder/{stage}-{step}`` and remove all but the newest ``keep`` checkpoints up to it.

    ``scaler``: the state of the loss scaler, where fp16 needs one. ``sums``: of the losses since the last row of the
    log. ``balance``: what is learned of how losses are balanced.

    Raises:
        CheckpointError: it cannot be written, as on a full disk; the older ones are still there.
    """
    target = folder / f"{cursor.stage}-{cursor.step:07d}"
    temporary = _unfinished(target)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        save_file(_contiguous(student.state_dict()), temporary / "student.safetensors")
        if teacher is not None:
            save_file(_contiguous(teacher.state_dict()), temporary / "teacher.safetensors")
        if method is not None:
            save_file(_contiguous(method.state_dict()), temporary / "method.safetensors")
        if balance is not None:
            save_file(_contiguous(balance.state_dict()), temporary / "balance.safetensors")
        save_file(_optimizer_tensors(optimizer), temporary / "optimizer.safetensors")
        (temporary / "cursor.json").write_text(
            strict_json.dumps({"format": FORMAT, **asdict(cursor)}), encoding="utf-8", newline="\n"
        )
        if sums:
            (temporary / "sums.json").write_text(
                strict_json.dumps(strict_json.finite(sums)), encoding="utf-8", newline="\n"
            )
        if scaler is not None:
            (temporary / "scaler.json").write_text(strict_json.dumps(scaler), encoding="utf-8", newline="\n")
        mark_complete(temporary)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(
            f"cannot write checkpoint {target} ({error}); older ones are still there: free space, then --resume"
        ) from error
    if target.exists():  # damaged, or the run would not have come by again
        _remove(target)
    temporary.rename(target)
    flush(folder)
    # Later ones are damaged, or the run would have gone on from there: they must not count as kept.
    for old in [path for path in complete_checkpoints(folder) if path.name <= target.name][:-keep]:
        _remove(old)
    return target


def mark_complete(checkpoint: Path) -> None:
    """Flush a checkpoint's files to disk and write down size and CRC-32 of each, which makes it a whole one."""
    files = [path for path in sorted(checkpoint.iterdir()) if path.name != MARK]
    sums = {path.name: {"size": path.stat().st_size, "crc32": crc32(path)} for path in files}
    for path in files:
        flush(path)
    (checkpoint / MARK).write_text(strict_json.dumps(sums, indent=1), encoding="utf-8", newline="\n")
    flush(checkpoint / MARK)
    flush(checkpoint)


def fault(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint: a file is missing, cut off or damaged; None for a whole one."""
    try:
        sums = load_json((checkpoint / MARK).read_text(encoding="utf-8"))
        for name in ("cursor.json", *sums):
            path, size = checkpoint / name, sums[name]["size"]
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size} bytes in place of {size}"
            if crc32(path) != sums[name]["crc32"]:
                return f"{name} is damaged (its checksum is another)"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MARK} or a file that it names cannot be read ({error})"
    return None


def complete_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints that were written to their end, oldest first; `fault` says whether they still are whole."""
    return [path for path in _checkpoints(folder) if (path / MARK).is_file()]


def latest_checkpoint(folder: Path, quiet: bool = False) -> Path:
    """The newest whole checkpoint; newer ones that are not are named on standard error unless ``quiet``.

    Raises:
        CheckpointError: there is none.
    """
    found = _checkpoints(folder)
    for path in reversed(found):
        damage = fault(path)
        if damage is None:
            return path
        if not quiet:
            console.say(f"checkpoint {path} is not whole: {damage}; passed over")
    damaged = f" (none of {len(found)} is whole)" if found else ""
    raise CheckpointError(f"{folder} holds no complete checkpoint to resume from{damaged}; start the run anew")


def tidy(folder: Path) -> None:
    """Remove what a killed process left half done; a checkpoint that only lacks its name gets it."""
    for half in folder.glob(".*.tmp"):
        target = folder / half.name[1:].removesuffix(".tmp")
        if half == _unfinished(target) and not target.exists() and fault(half) is None:
            half.rename(target)
        else:
            shutil.rmtree(half)


def read_cursor(checkpoint: Path) -> Cursor:
    """Where the checkpoint's run stood. Raises `CheckpointError` where it is damaged or of a later format."""
    try:
        values = load_json((checkpoint / "cursor.json").read_text(encoding="utf-8"))
        if values.get("format", FORMAT) != FORMAT:
            raise CheckpointError(
                f"{checkpoint} has format {values['format']}; this version reads format {FORMAT}; resume with the "
                "version of TaskTokens that wrote it"
            )
        teacher = values.get("teacher")  # earlier versions wrote none
        return Cursor(int(values["stage"]), int(values["step"]), None if teacher is None else str(teacher))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{checkpoint}/cursor.json is damaged ({error}); remove that checkpoint") from error


def load_sums(checkpoint: Path) -> dict[str, list[float]]:
    """Sum and count of each loss since the last row of the log; empty where it was written just before."""
    path = checkpoint / "sums.json"
    if not path.exists():
        return {}
    try:
        values = load_json(path.read_text(encoding="utf-8"))
        return {name: [math.nan if v is None else float(v) for v in pair] for name, pair in values.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); remove that checkpoint") from error


def load_scaler(checkpoint: Path, scaler: torch.amp.GradScaler) -> None:
    """Load the loss scale and how many good steps there were since it last changed."""
    try:
        scaler.load_state_dict(load_json((checkpoint / "scaler.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{checkpoint}/scaler.json is damaged ({error}); remove that checkpoint") from error


def load_optimizer(
    checkpoint: Path, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler | None = None
) -> None:
    """Load the optimiser's moments, and what scales its losses; it must have the same parameters in the same order.

    Raises:
        CheckpointError: a moment has another shape than its parameter.
    """
    if scaler is not None:
        load_scaler(checkpoint, scaler)
    tensors = read_tensors(checkpoint / "optimizer.safetensors")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".")
        parameter = parameters[int(index)]
        if name != "step":
            if tensor.shape != parameter.shape:
                raise CheckpointError(
                    f"{checkpoint}/optimizer.safetensors orders its parameters otherwise ({name} of number {index} is "
                    f"{list(tensor.shape)}, expected {list(parameter.shape)}): it was made by another version; finish "
                    f"the run with that one, or start it anew"
                )
            # The fused kernels walk through memory: a moment must have its weight's layout, such as channels last.
            tensor = torch.empty_like(parameter, dtype=tensor.dtype, requires_grad=False).copy_(tensor)
        else:
            tensor = tensor.clone()  # or the file stays mapped, and Windows removes no such checkpoint
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


def _checkpoints(folder: Path) -> list[Path]:
    """All of them, oldest first, whole or not; nothing that is being written or removed."""
    return sorted(path for path in folder.glob("[!.]*") if path.is_dir())


def _unfinished(target: Path) -> Path:
    return target.with_name(f".{target.name}.tmp")


def _remove(checkpoint: Path) -> None:
    """Remove a checkpoint so that a kill meanwhile leaves none that looks whole."""
    doomed = checkpoint.with_name(f".{checkpoint.name}.old.tmp")
    shutil.rmtree(doomed, ignore_errors=True)
    checkpoint.rename(doomed)
    shutil.rmtree(doomed)
