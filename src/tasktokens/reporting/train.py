"""``tasktokens train``: training, and pictures of the run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasktokens.config import Config, as_config
from tasktokens.reporting.curves import draw_curves, write_samples
from tasktokens.training.callbacks import Callback
from tasktokens.training.log import Row
from tasktokens.training.trainer import Trainer
from tasktokens.training.trainer import train as train_network
from tasktokens.utils import console


class RunPictures(Callback):
    """Draws ``curves.png`` after each validation and at the end, and then ``samples/``."""

    def on_validation(self, trainer: Trainer, row: Row) -> None:
        """Redraw ``curves.png`` from the open log."""
        _attempt(lambda: draw_curves(trainer.folder, trainer.log.read()), trainer.folder)

    def on_end(self, trainer: Trainer) -> None:
        """Draw ``curves.png`` and ``samples/``, on the main process only."""
        if trainer.accelerator.is_main_process:
            _attempt(lambda: draw_curves(trainer.folder), trainer.folder)
            _attempt(lambda: write_samples(trainer.folder), trainer.folder)


def train(
    config: Config | Mapping[str, Any] | str | Path,
    overrides: Iterable[str] = (),
    *,
    resume: bool = False,
    overwrite: bool = False,
    init_from: str | Path | None = None,
    quiet: bool = False,
    callbacks: Sequence[Callback] = (),
) -> Path:
    """Train as configured and return the run folder, with ``curves.png`` and ``samples/``.

    Args:
        config: what `load_config` returns, the path of a YAML file, or plain values as such a file holds them.
        overrides: settings that come before those, such as ``["optim.lr=1e-3"]``.
        resume: go on from the run's last checkpoint.
        overwrite: replace a run that is there.
        init_from: a run whose weights this one starts from.
        quiet: no progress on standard error. For errors see `tasktokens.training.trainer.train`.
        callbacks: objects whose methods are called at the moments of a run: see `Callback`.

    Examples:
        >>> import tasktokens
        >>> class CountSteps(tasktokens.Callback):
        ...     steps = 0
        ...     def on_step(self, trainer):
        ...         self.steps += 1
        >>> counted = CountSteps()
        >>> run = tasktokens.train("my.yaml", ["method.stage1_steps=3"], quiet=True, callbacks=[counted])
        >>> run.as_posix(), counted.steps
        ('runs/my', 5)
    """
    settings, start_from = as_config(config, overrides), None if init_from is None else Path(init_from)
    return train_network(settings, resume, overwrite, start_from, quiet, [*callbacks, RunPictures()])


def _attempt(draw: Callable[[], object], run: Path) -> None:
    """Draw; a picture that fails must not cost a run."""
    try:
        draw()
    except Exception as error:
        console.say(f"pictures of {run} were not drawn: {type(error).__name__}: {error}")
