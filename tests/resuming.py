"""Copies of finished runs, as they were at some time before, to go on from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tasktokens.config import Config, load_config, to_yaml
from tasktokens.training.checkpoint import complete_checkpoints


def copy_run(run: Path, to: Path, **changes: Any) -> Config:
    """The run in another folder, where its settings say that it is there."""
    shutil.copytree(run, to)
    config = load_config(run / "config.yaml")
    config = config.model_copy(update={"run": config.run.model_copy(update={"dir": to, **changes})})
    (to / "config.yaml").write_text(to_yaml(config))
    return config


def stopped_at(run: Path, to: Path, last: str) -> Config:
    """`copy_run`, as it was when the checkpoint ``last`` was its newest."""
    config = copy_run(run, to)
    for path in complete_checkpoints(to / "checkpoints"):
        if path.name > last:
            shutil.rmtree(path)
    return config
