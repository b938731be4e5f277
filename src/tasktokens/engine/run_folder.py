"""The folder of a run: refuse to mix runs, write down what a run is made of."""

from __future__ import annotations

import json
import platform
import shutil
from importlib.metadata import version

from tasktokens.config import Config, load_config, to_yaml
from tasktokens.data.partial import save_split
from tasktokens.data.source import Data
from tasktokens.engine.checkpoint import tidy
from tasktokens.engine.log import refuse_written
from tasktokens.errors import CheckpointError, ConfigError, RunExistsError


def prepare_folder(config: Config, data: Data, resume: bool, overwrite: bool) -> None:
    """Make the folder of a new run and write what it is made of: settings, visible labels, environment.

    Raises:
        RunExistsError: it holds something, and neither ``resume`` nor ``overwrite`` is set; or it is being written to.
        CheckpointError: there is no run to resume. ConfigError: it was started with other settings.
    """
    folder = config.run.dir
    refuse_written(folder / "metrics.jsonl")
    if resume:
        if not (folder / "config.yaml").is_file():
            raise CheckpointError(f"{folder} holds no run to resume (no config.yaml)")
        if (old := load_config(folder / "config.yaml")) != config:
            raise ConfigError(
                f"{folder} was started with other settings; resume with its own ({_difference(old, config)})"
            )
        for half in folder.rglob(".*.partial*"):  # of a killed process
            half.unlink()
        tidy(folder / "checkpoints")
        return
    if folder.exists() and not folder.is_dir():
        raise RunExistsError(f"{folder} is a file; choose another run.dir")
    if folder.exists() and any(folder.iterdir()):
        if not overwrite:
            raise RunExistsError(f"{folder} is not empty; choose another run.dir, or give --resume or --overwrite")
        if not (folder / "config.yaml").is_file():
            raise RunExistsError(
                f"{folder} is not empty and no run (no config.yaml); it is not deleted, do so yourself"
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    save_split(folder / "labels.csv", data.train, list(data.tasks))
    packages = ("tasktokens", "torch", "timm", "accelerate", "numpy")
    environment = {"python": platform.python_version(), "machine": platform.platform(), "processor": platform.machine()}
    environment |= {name: version(name) for name in packages}
    (folder / "environment.json").write_text(json.dumps(environment, indent=1), encoding="utf-8")


def _difference(old: Config, new: Config) -> str:
    """The first setting that differs."""
    pairs = zip(to_yaml(old).splitlines(), to_yaml(new).splitlines(), strict=False)
    return next((f"'{a.strip()}' there, '{b.strip()}' here" for a, b in pairs if a != b), "see config.yaml")
