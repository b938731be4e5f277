"""Copies of finished runs, as they were at some time before, to go on from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tasktokens.config import Config, load_config, to_yaml
from tasktokens.training.checkpoint import complete_checkpoints


def copy_run(run: Path, to: Path, data: Path | None = None, **changes: Any) -> Config:
    """The run in another folder, where its settings say that it is there, and that its data is in ``data``."""
    shutil.copytree(run, to)
    config = load_config(run / "config.yaml")
    config = config.model_copy(update={"run": config.run.model_copy(update={"dir": to, **changes})})
    if data is not None:
        config = config.model_copy(update={"data": config.data.model_copy(update={"root": data})})
    (to / "config.yaml").write_text(to_yaml(config))
    return config


def stopped_at(run: Path, to: Path, last: str, data: Path | None = None) -> Config:
    """`copy_run`, as it was when the checkpoint ``last`` was its newest."""
    config = copy_run(run, to, data)
    for path in complete_checkpoints(to / "checkpoints"):
        if path.name > last:
            shutil.rmtree(path)
    return config
