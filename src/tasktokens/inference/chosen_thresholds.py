"""The thresholds above which `discover` writes labels: each task's own, or those that were chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tasktokens.errors import ConfigError, did_you_mean
from tasktokens.tasks import Task


def thresholds_of(tasks: Mapping[str, Task], chosen: float | Mapping[str, float] | None) -> dict[str, float]:
    """The threshold of each task: its own, or what was chosen for all or for it.

    Raises `ConfigError` for an unknown task or a threshold outside [0, 1].
    """
    by_task = chosen if isinstance(chosen, Mapping) else {} if chosen is None else dict.fromkeys(tasks, chosen)
    for name, value in by_task.items():
        if name not in tasks:
            near = did_you_mean(name, tasks)
            raise ConfigError(f"a threshold is given for the task '{name}'{near}; the run has: {', '.join(tasks)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ConfigError(f"the threshold of task '{name}' must be from 0 to 1, found {value!r}")
    return {name: float(by_task.get(name, task.threshold)) for name, task in tasks.items()}


def parse_thresholds(words: Sequence[str]) -> float | dict[str, float] | None:
    """Thresholds of the command line: ``0.5`` for all tasks, or ``depth=0.5`` for each. Raises `ConfigError`.

    Examples:
        >>> parse_thresholds(["depth=0.5", "semseg=0.8"]), parse_thresholds(["0.5"]), parse_thresholds([])
        ({'depth': 0.5, 'semseg': 0.8}, 0.5, None)
    """
    by_task: dict[str, float] = {}
    of_all: list[float] = []
    for word in words:
        name, equals, number = word.rpartition("=")
        try:
            value = float(number)
        except ValueError as error:
            raise ConfigError(f"--threshold must be a number, or such as depth=0.5, found '{word}'") from error
        if not 0 <= value <= 1:
            raise ConfigError(f"--threshold must be from 0 to 1, found {word}")
        if not equals:
            of_all.append(value)
        elif by_task.setdefault(name, value) != value:
            raise ConfigError(f"--threshold is given twice for '{name}': {by_task[name]:g} and {value:g}; keep one")
    if len(of_all) > 1 or (of_all and by_task):
        raise ConfigError(
            "--threshold takes one number for all tasks, or one per task, such as depth=0.5, but not both"
        )
    return of_all[0] if of_all else by_task or None
