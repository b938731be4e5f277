"""From the setting ``optim.balance`` to what does it."""

from __future__ import annotations

from collections.abc import Mapping

from tasktokens.errors import ConfigError
from tasktokens.tasks import Task
from tasktokens.training.gradient_balance import AGGREGATORS, GradientBalance, aggregator
from tasktokens.training.loss_balance import DynamicAverage, FirstLosses, LossBalance
from tasktokens.training.uncertainty import Uncertainty


def make_balance(kind: str, tasks: Mapping[str, Task], epoch: int) -> LossBalance:
    """What balances the losses of tasks.

    Args:
        kind: the setting. epoch: steps of an epoch.
    """
    weights = {name: task.weight for name, task in tasks.items()}
    if kind == "first_losses":
        return FirstLosses(weights)
    if kind == "dwa":
        return DynamicAverage(weights, epoch)
    if kind == "uncertainty":
        return Uncertainty(list(weights))
    return GradientBalance(list(weights), kind) if kind in AGGREGATORS else LossBalance()


def check_balance(kind: str, precision: str) -> None:
    """Raise `ConfigError` where balancing does not go with the precision, or its library is not installed."""
    if kind not in AGGREGATORS:
        return
    aggregator(kind)
    if precision == "fp16":
        raise ConfigError(f"optim.balance={kind} takes gradients without fp16's loss scale; set run.precision to bf16")
