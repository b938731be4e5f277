"""Errors that a user can correct, one exception class per kind.

Every message says what was expected, what was found, where, and what to do. The command line turns each of them into
one sentence on standard error and exit code 2; in Python they are ordinary exceptions.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TaskTokensError(Exception):
    """Base of all errors that a user can correct; the message says how."""


class ConfigError(TaskTokensError):
    """A setting is unknown, of the wrong type or out of range."""


class DataError(TaskTokensError):
    """A folder, image or label file is missing, unreadable or inconsistent."""


class LabelError(DataError):
    """A label file disagrees with its image or with its task: size, class id, value range."""


class CheckpointError(TaskTokensError):
    """A checkpoint is missing, incomplete, or belongs to another model or other tasks."""


class RunExistsError(TaskTokensError):
    """A run folder is not empty and neither resuming nor overwriting was asked for."""


class WriteError(TaskTokensError, OSError):
    """A file cannot be written: the disk is full, or refuses."""


class WeightsError(TaskTokensError):
    """Pretrained weights cannot be downloaded, or do not fit the network."""


class HubError(TaskTokensError):
    """The Hugging Face Hub has no such model or data set, refuses, or cannot be reached."""


class TrainingError(TaskTokensError):
    """Training cannot continue: several losses in a row are not finite, or there are no labels to learn from."""


class OutOfMemoryError(TaskTokensError):
    """A step does not fit into the memory of the device or the machine."""


class OtherRankError(TaskTokensError):
    """Another process of the same run failed and has reported why; this one ends too."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the nearest known word, or an empty string.

    Examples:
        >>> did_you_mean("dept", ["depth", "semseg"])
        " (did you mean 'depth'?)"
        >>> did_you_mean("ResNet18", ["resnet18", "resnet50"])
        " (did you mean 'resnet18'?)"
    """
    known = [str(each) for each in known]
    near = difflib.get_close_matches(str(word), known, n=1, cutoff=0.5)
    if not near:  # capitals alone may make words too different
        lower = {each.casefold(): each for each in known}
        near = [lower[each] for each in difflib.get_close_matches(str(word).casefold(), lower, n=1, cutoff=0.5)]
    return f" (did you mean '{near[0]}'?)" if near else ""
