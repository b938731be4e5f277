"""``tasktokens train``: the engine's training, and pictures of the run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from accelerate import PartialState

from tasktokens.config import Config
from tasktokens.reporting.curves import draw_curves, write_samples
from tasktokens.training.log import Row
from tasktokens.training.trainer import train as train_network


def train(
    config: Config, resume: bool = False, overwrite: bool = False, init_from: Path | None = None, quiet: bool = False
) -> Path:
    """Train as configured and return the run folder, with ``curves.png`` and ``samples/``.

    Args:
        config: see `load_config`.
        resume: go on with the run in ``config.run.dir`` from its last checkpoint, with the same result as if it had
            never stopped; what is left may be the evaluation, or nothing. The configuration must be the run's own.
        overwrite: delete what lies in the run folder first.
        init_from: see `tasktokens.training.trainer.train`.
        quiet: no progress line.

    Raises:
        RunExistsError: the run folder is not empty and neither ``resume`` nor ``overwrite`` is set, or another process
            is training in it.
        ConfigError, DataError, CheckpointError, WeightsError, TrainingError, OutOfMemoryError: see their messages.
        SystemExit: 130 or 143 after SIGINT or SIGTERM, with a checkpoint saved; during the evaluation, too.
    """

    def follow(folder: Path, rows: list[Row]) -> None:
        _attempt(lambda: draw_curves(folder, rows), folder)

    run = train_network(config, resume, overwrite, init_from, quiet, follow)
    if PartialState().is_main_process:
        _attempt(lambda: draw_curves(run), run)
        _attempt(lambda: write_samples(run), run)
    return run


def _attempt(draw: Callable[[], object], run: Path) -> None:
    """Draw; a picture that fails must not cost a run."""
    try:
        draw()
    except Exception as error:
        print(f"pictures of {run} were not drawn: {type(error).__name__}: {error}", file=sys.stderr)
