"""Tasks whose losses differ widely: the largest dominates training, so weights are proposed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tasktokens.training.callbacks.base import Callback
from tasktokens.training.loss_balance import FIRST_STEPS
from tasktokens.training.loss_means import LossMeans

if TYPE_CHECKING:
    from tasktokens.training.trainer import Trainer

FAR = 10.0
"""Ratio of two tasks' weighted losses from which on weights are proposed."""


class TaskWeights(Callback):
    """Proposes weights once, after the first steps of a run, where the losses of its tasks differ more than tenfold."""

    def __init__(self) -> None:
        self._means = LossMeans()
        self._steps = 0

    def on_step(self, trainer: Trainer) -> None:
        """Collect the losses of the first steps, then propose weights if they differ widely."""
        if trainer.stage_index or trainer.step != self._steps + 1 or self._steps >= FIRST_STEPS:
            return  # also in a run that was resumed later
        self._steps += 1
        if trainer.config.optim.balance != "none":
            return
        self._means.add(trainer.sums)
        if self._steps < FIRST_STEPS:
            return
        means = self._means.read()
        losses = {name: means.get(f"loss/{name}") for name in trainer.tasks}
        weights = {name: task.weight for name, task in trainer.tasks.items()}
        weighted = {name: weights[name] * loss for name, loss in losses.items() if loss}
        if (proposed := proposed_weights(weighted, weights)) is not None:
            shown = ", ".join(f"{name} {loss:.3g}" for name, loss in weighted.items())
            trainer.log.say(
                f"the weighted losses of the first {FIRST_STEPS} steps differ more than tenfold ({shown}): the largest "
                f"dominates training. Weights that balance them: {' '.join(proposed)}, or "
                f"optim.balance=first_losses"
            )


def proposed_weights(weighted: Mapping[str, float], weights: Mapping[str, float]) -> list[str] | None:
    """Settings under which each task's loss is the median of all; None where they are within `FAR` of each other.

    Args:
        weighted: loss times weight of each task, above 0.
        weights: that each task has.

    Example:
        >>> proposed_weights({"semseg": 1.0, "depth": 40.0}, {"semseg": 1.0, "depth": 1.0})
        ['tasks.semseg.weight=20', 'tasks.depth.weight=0.51']
    """
    positive = {name: loss for name, loss in weighted.items() if loss > 0}
    if len(positive) < 2 or max(positive.values()) <= FAR * min(positive.values()):
        return None
    middle = statistics.median(positive.values())
    return [f"tasks.{name}.weight={weights[name] * middle / loss:.2g}" for name, loss in positive.items()]
