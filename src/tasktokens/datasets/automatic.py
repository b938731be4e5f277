"""What ``auto`` means for a data set: which labels a run sees, and what its result is measured on."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tasktokens.config import Config
from tasktokens.datasets.index import DatasetIndex

SHARE, SHARE_OF_FEW = 0.1, 0.2
"""Shares of the training images set aside where there is nothing else to measure on: of ten and more, of fewer."""


def settled(config: Config, index: DatasetIndex) -> Config:
    """The configuration with a value for ``data.labels=auto`` and ``run.evaluate=auto``.

    - Labels: ``one`` where the data set has a published split of that name; else ``full``, every label there is.
    - Measured on ``test``, else ``val``, if it shows a label of the run's tasks and does not choose the best network;
      else on training images: those that ``data.holdout`` sets aside, or, where it sets none aside, a tenth of them (a
      fifth of fewer than ten). Not at all where that would leave a task without labels to learn from.
    """
    data, run = config.data, config.run
    if data.labels == "auto":
        data = data.model_copy(update={"labels": "one" if "one" in index.published else "full"})
    if run.evaluate == "auto":
        split, holdout = _measured_on(config, index)
        run = run.model_copy(update={"evaluate": split})
        data = data.model_copy(update={"holdout": holdout})
    return config.model_copy(update={"data": data, "run": run})


def held_out(ids: tuple[str, ...], share: float, seed: int) -> set[str]:
    """The images that a share sets aside, drawn by the seed."""
    count = round(share * len(ids))
    return {ids[i] for i in np.random.RandomState(seed).permutation(len(ids))[:count].tolist()}


def _measured_on(config: Config, index: DatasetIndex) -> tuple[str | None, float]:
    """A split, ``holdout`` or None, and the share of training images to set aside."""
    tasks = [name for name in (config.tasks or index.tasks) if name in index.tasks]

    def labelled(ids: Iterable[str], task: str) -> bool:
        return any(id in index.labels[task] for id in ids)

    for split in ("test", "val"):
        chooses_best = config.run.validate_every is not None and config.run.validate_on == split
        if not chooses_best and any(labelled(index.splits.get(split, ()), task) for task in tasks):
            return split, config.data.holdout
    if config.data.holdout > 0:
        return "holdout", config.data.holdout
    ids = index.splits.get("train", ())
    share = SHARE if len(ids) >= 10 else SHARE_OF_FEW
    held = held_out(ids, share, config.data.label_seed or 0)
    rest = [id for id in ids if id not in held]
    usable = held and all(labelled(rest, task) or not labelled(held, task) for task in tasks)
    return ("holdout", share) if usable and any(labelled(held, task) for task in tasks) else (None, 0.0)
