"""``tasktokens train``: training, and pictures of the run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tasktokens.config import Config
from tasktokens.reporting.curves import draw_curves, write_samples
from tasktokens.training.callbacks import Callback
from tasktokens.training.log import Row
from tasktokens.training.trainer import Trainer
from tasktokens.training.trainer import train as train_network


class RunPictures(Callback):
    """Draws ``curves.png`` after each validation and at the end, and then ``samples/``."""

    def on_validation(self, trainer: Trainer, row: Row) -> None:
        _attempt(lambda: draw_curves(trainer.folder, trainer.log.read()), trainer.folder)

    def on_end(self, trainer: Trainer) -> None:
        if trainer.accelerator.is_main_process:
            _attempt(lambda: draw_curves(trainer.folder), trainer.folder)
            _attempt(lambda: write_samples(trainer.folder), trainer.folder)


def train(
    config: Config,
    resume: bool = False,
    overwrite: bool = False,
    init_from: Path | None = None,
    quiet: bool = False,
    callbacks: Sequence[Callback] = (),
) -> Path:
    """Train as configured and return the run folder, with ``curves.png`` and ``samples/``.

    See `tasktokens.training.trainer.train` for arguments and errors.
    """
    return train_network(config, resume, overwrite, init_from, quiet, [*callbacks, RunPictures()])


def _attempt(draw: Callable[[], object], run: Path) -> None:
    """Draw; a picture that fails must not cost a run."""
    try:
        draw()
    except Exception as error:
        print(f"pictures of {run} were not drawn: {type(error).__name__}: {error}", file=sys.stderr)
