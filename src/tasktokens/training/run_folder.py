"""The folder of a run: never mixes two runs, and records settings, labels, tasks and environment."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from accelerate import Accelerator

from tasktokens.config import Config, load_config, to_yaml
from tasktokens.data.visibility import AVAILABLE, save_visible
from tasktokens.datasets.open import Data, all_visible
from tasktokens.datasets.run_data import HELD_LABELS, LABELS, label_words
from tasktokens.errors import CheckpointError, RunExistsError
from tasktokens.training.checkpoint import tidy
from tasktokens.training.log import check_not_written
from tasktokens.training.seen_files import save_seen_files
from tasktokens.utils import strict_json
from tasktokens.utils.atomic import write_atomically
from tasktokens.utils.environment import recorded_variables

TASKS, ENVIRONMENT = "tasks.json", "environment.json"
"""Files of a run: its tasks as the data described them, and what it ran on."""


def check_run_folder(folder: Path, resume: bool, overwrite: bool) -> None:
    """Raise what `prepare_folder` would raise for a run folder, before anything that takes time."""
    check_not_written(folder / "metrics.jsonl")
    is_run = (folder / "config.yaml").is_file()
    if resume and not is_run:
        raise CheckpointError(f"{folder} holds no run to resume (no config.yaml)")
    if resume:
        return
    if folder.exists() and not folder.is_dir():
        raise RunExistsError(f"{folder} is a file; choose another run.dir")
    if folder.exists() and any(folder.iterdir()):
        if not overwrite:
            raise RunExistsError(f"{folder} is not empty; choose another run.dir, or give --resume or --overwrite")
        if not is_run:
            raise RunExistsError(
                f"{folder} is not empty and no run (no config.yaml); it is not overwritten, delete it yourself"
            )


def prepare_folder(config: Config, data: Data, accelerator: Accelerator, resume: bool, overwrite: bool) -> None:
    """Make the folder of a new run and write its settings, visible labels, tasks and environment.

    Raises:
        RunExistsError: it holds something, and neither ``resume`` nor ``overwrite`` is set; or it is being written to.
        CheckpointError: there is no run to resume.
    """
    folder = config.run.dir
    check_run_folder(folder, resume, overwrite)
    if resume:
        if load_config(folder / "config.yaml") != config:  # a copy, or data that was moved: later verbs must find both
            write_atomically(folder / "config.yaml", to_yaml(config).encode())
        for half in folder.rglob(".*.partial*"):  # of a killed process
            half.unlink()
        tidy(folder / "checkpoints")
        return
    if folder.exists() and any(folder.iterdir()):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(to_yaml(config), encoding="utf-8", newline="\n")
    save_visible(folder / LABELS, data.train, list(data.tasks), label_words(data))
    ids = (*data.train, *data.holdout)
    save_visible(folder / AVAILABLE, all_visible(data.collection, ids, data.tasks), list(data.tasks))
    if data.holdout:
        save_visible(folder / HELD_LABELS, data.held, list(data.tasks))
    save_seen_files(folder, config, data)
    described = {name: task.spec() | task.training() for name, task in data.tasks.items()}
    (folder / TASKS).write_text(strict_json.dumps(described, indent=1), encoding="utf-8", newline="\n")
    (folder / ENVIRONMENT).write_text(
        strict_json.dumps(environment(accelerator), indent=1), encoding="utf-8", newline="\n"
    )


def environment(accelerator: Accelerator) -> dict[str, str]:
    """What beside the settings could change a result: versions, machine, device, precision, commit, variables."""
    packages = ("tasktokens", "torch", "timm", "accelerate", "numpy")
    found = {"python": platform.python_version(), "machine": platform.platform(), "processor": platform.machine()}
    found["device"] = device = accelerator.device.type
    if device == "cuda":
        found["device"] += f" ({torch.cuda.get_device_name(accelerator.device)})"
    found["precision"] = "fp32" if accelerator.mixed_precision == "no" else accelerator.mixed_precision
    found |= {name: version(name) for name in packages}
    if (commit := code_commit()) is not None:
        found["commit"] = commit
    return found | recorded_variables()


def code_commit(measured: Sequence[str] = (".",)) -> str | None:
    """The git commit that this package is run from, ``+changes`` where files differ; None where it is installed.

    Args:
        measured: the files and folders that may differ: of the package, or with ``:/`` in front of the checkout.
    """
    package = Path(__file__).parents[1]

    def git(*words: str) -> str:
        command = ["git", "-C", str(package), *words]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, timeout=20)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # or it lies in another project's folder
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", *measured) else "")
    except (OSError, subprocess.SubprocessError):
        return None
