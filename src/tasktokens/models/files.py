"""A trained model as two files: ``model.safetensors`` (weights) and ``model.json`` (all that is needed to build it)."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tasktokens.config import ModelSettings
from tasktokens.errors import CheckpointError, ConfigError
from tasktokens.hub.address import could_be_repository
from tasktokens.hub.download import local_model
from tasktokens.hub.shipped import SHIPPED
from tasktokens.models import NETWORKS, Network, build_network
from tasktokens.models.fold import fold_batch_norms
from tasktokens.tasks import Task, build_task
from tasktokens.utils import strict_json
from tasktokens.utils.atomic import atomically
from tasktokens.utils.safe_io import read_json, require_regular_file

FORMAT = 3
"""Version of ``model.json``. Earlier ones are read too, but for what was built in another way then: see `_rebuilt`."""


@dataclass(frozen=True)
class ModelInfo:
    """What `model.json` holds.

    Attributes:
        network: kind, by its name in the registry.
        settings: its settings.
        tasks: by name.
        size: the (height, width) that it was trained at.
        mirrored: whether training images were mirrored; where not, left and right mean something to the network.
        largest_zoom: of training images; None: not known.
    """

    network: str
    settings: ModelSettings
    tasks: Mapping[str, Task]
    size: tuple[int, int]
    mirrored: bool = True
    largest_zoom: float | None = None

    def build(self, load_weights: bool = False) -> Network:
        """A network of this description; see `build_network`."""
        return build_network(self.network, self.tasks, self.settings, load_weights)


def save_model(folder: Path, network: Network, info: ModelInfo) -> None:
    """Write both files into ``folder``, each in one piece, the description last.

    Raises `CheckpointError` where they cannot be written, as on a full disk.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomically(folder / "model.safetensors") as new:
            save_file({k: v.contiguous() for k, v in network.state_dict().items()}, new)
        with atomically(folder / "model.json") as new:
            new.write_text(strict_json.dumps(to_json(info), indent=1), encoding="utf-8", newline="\n")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot write the model {folder} ({error}); make room, then --resume goes on") from error


def to_json(info: ModelInfo) -> dict[str, Any]:
    """`ModelInfo` as plain values."""
    return {
        "format": FORMAT,
        "network": info.network,
        "model": info.settings.model_dump(mode="json", exclude={"weights", "pretrained"}),
        "tasks": {name: task.spec() | task.training() for name, task in info.tasks.items()},
        "size": list(info.size),
        "mirrored": info.mirrored,
        "largest_zoom": info.largest_zoom,
    }


def load_model(path: str | Path, device: torch.device | str = "cpu", folded: bool = False) -> tuple[Network, ModelInfo]:
    """Load the network of a model folder, or of a run that holds one, in evaluation mode; see also `tasktokens.load`.

    Args:
        path: of the folder, or ``hf://user/name`` for a model of the Hugging Face Hub.
        folded: for prediction alone: with batch norms folded into convolutions, see `fold_batch_norms`.

    Returns:
        The network, a plain `torch.nn.Module` that takes uint8 images (B, 3, H, W), and what it was built from.

    Raises `CheckpointError` when it is missing, damaged or of another format, `HubError` where it cannot be downloaded.

    Examples:
        >>> network, info = load_model(Path("runs/mine"))
        >>> output = network(torch.zeros(1, 3, 32, 48, dtype=torch.uint8))
        >>> list(output), info.size
        (['semseg', 'depth'], (32, 48))
    """
    folder = model_folder(local_model(path))
    info = read_info(folder)
    network = info.build()
    load_weights(network, folder / "model.safetensors")
    network = network.to(device).eval()
    return fold_batch_norms(network) if folded else network, info


def model_folder(path: Path) -> Path:
    """The model folder of a run; any other path is taken for one itself, such as a run's ``best``."""
    return path / "model" if (path / "model").is_dir() else path


def read_info(folder: Path) -> ModelInfo:
    """Read ``model.json``."""
    path = folder / "model.json"
    if not path.is_file():
        advice = "give a finished run or its model folder"
        if (run := folder.parent if folder.name == "model" else folder).joinpath("config.yaml").is_file():
            advice = f"a run that was interrupted goes on by 'tasktokens train --resume run.dir={run}'"
        if not folder.exists() and could_be_repository(folder.as_posix()):
            advice += f", or hf://{folder.as_posix()} for one of the Hugging Face Hub"
        if folder in (Path(SHIPPED), Path(SHIPPED, "model")):
            advice += f"; '{SHIPPED}' is the model that ships with TaskTokens only where nothing else is called so"
        raise CheckpointError(f"{folder} holds no trained model (no model.json); {advice}")
    try:
        values = read_json(path)
        if values["format"] not in range(1, FORMAT + 1):
            raise CheckpointError(
                f"{path} has format {values['format']}; this version reads formats 1 to {FORMAT}; install the "
                "version of TaskTokens that wrote it"
            )
        if values["network"] not in NETWORKS:
            raise CheckpointError(
                f"{path} is of the network '{values['network']}', which is not installed here; found: "
                f"{', '.join(NETWORKS)}; install the package that it came from"
            )
        tasks = {name: build_task(name, spec) for name, spec in values["tasks"].items()}
        height, width = (operator.index(side) for side in values["size"])
        if not (tasks and 0 < min(height, width) <= max(height, width) <= 2**15):
            raise ValueError(f"it has {len(tasks)} tasks and the size {height}x{width}")
        mirrored = values.get("mirrored", True)  # older files lack it
        if not isinstance(mirrored, bool):
            raise ValueError(f"'mirrored' must be true or false, found {mirrored!r}")
        zoom = None if values.get("largest_zoom") is None else float(values["largest_zoom"])
        settings = ModelSettings.model_validate(values["model"])
        if _rebuilt(values["format"], values["network"], settings.variant):
            raise CheckpointError(
                f"{path} is of an earlier version, in which the heads of the variant '{settings.variant}' were others; "
                "train it again"
            )
        return ModelInfo(values["network"], settings, tasks, (height, width), mirrored, zoom)
    except (OSError, KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
        raise CheckpointError(f"{path} is damaged: {type(error).__name__} {error}") from error


def _rebuilt(version: int, network: str, variant: str) -> bool:
    """Whether a network that was saved by an earlier version has other layers now."""
    return (version < 3 and variant == "paper") or (version < 2 and network == "htt")


def load_weights(network: nn.Module, path: Path) -> None:
    """Load weights that must fit exactly. Raises `CheckpointError` saying what differs."""
    state = read_tensors(path)
    if isinstance(network, Network):
        state = network.upgraded(state)
    expected = network.state_dict()
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    shapes = [
        f"{k}: {tuple(state[k].shape)} for {tuple(expected[k].shape)}"
        for k in expected
        if k in state and state[k].shape != expected[k].shape
    ]
    if missing or extra or shapes:
        raise CheckpointError(
            f"{path} belongs to another network or other tasks: {len(missing)} tensors missing "
            f"{missing[:2]}, {len(extra)} unknown {extra[:2]}, {len(shapes)} of another shape {shapes[:2]}"
        )
    network.load_state_dict(state)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; nothing is executed. Raises `CheckpointError`."""
    try:
        require_regular_file(path)
        tensors: dict[str, Tensor] = load_file(path)
        return tensors
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is no complete safetensors file ({error})") from error
