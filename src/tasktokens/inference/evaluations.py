"""The metrics that a run wrote of a split, as ``evaluation-SPLIT.json`` has them."""

from __future__ import annotations

from pathlib import Path

from tasktokens.errors import CheckpointError
from tasktokens.utils.safe_io import read_json

Evaluation = dict[str, dict[str, float | None]]
"""Value by task and metric; None where nothing valid was seen."""


def read_evaluation(folder: Path, split: str) -> Evaluation:
    """Of a run; empty where the split was not measured. Raises `CheckpointError` for a damaged file."""
    path = folder / f"evaluation-{split}.json"
    if not path.is_file():
        return {}
    try:
        found = {task: dict(values) for task, values in read_json(path).items()}
        for value in (value for values in found.values() for value in values.values()):
            if value is not None and not isinstance(value, int | float):
                raise TypeError(f"{value!r} is no number")
        return found
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged; write it again by 'tasktokens evaluate {folder}'") from error
