"""Labels of another model, or of a person, as the discovered labels of a task: ``discover --teacher depth=FOLDER``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tasktokens.datasets.discovered_folders import DiscoveredFolders, Row
from tasktokens.errors import ConfigError, did_you_mean
from tasktokens.inference.given_labels import GivenLabels
from tasktokens.inference.results import Prediction

Teachers = Mapping[str, Sequence[str | Path]]
"""Folders of labels by task."""


class BroughtLabels:
    """What such folders hold; every file is read at the start, so that a bad one ends the discovery before it begins.

    Raises:
        ConfigError: a task that the run does not have, or that means something else in a folder.
        DataError, LabelError: a folder or file does not fit; it is named.
    """

    def __init__(self, given: GivenLabels, teachers: Teachers, shown: bool = False) -> None:
        for name in teachers:
            if name not in given.tasks:
                near = did_you_mean(name, given.tasks)
                raise ConfigError(
                    f"a teacher is given for the task '{name}'{near}; the run has: {', '.join(given.tasks)}"
                )
        self.tasks = given.tasks
        self.by_task = {
            name: DiscoveredFolders(
                [Path(each) for each in folders], given.index, {name: given.tasks[name]}, given.train
            )
            for name, folders in teachers.items()
        }
        self.sources = {
            (id, name): "; ".join(row[2] for row in sorted(rows, key=lambda row: -row[3]) if row[3] > 0)
            for name, each in self.by_task.items()
            for id, rows in _by_id(each.survey(shown)).items()
        }

    @property
    def folders(self) -> dict[str, list[str]]:
        """The folders by task, as text."""
        return {name: [str(path) for path in each.folders] for name, each in self.by_task.items()}

    def find(self, id: str, size: tuple[int, int]) -> dict[str, Prediction]:
        """The labels of an image of (height, width), by task; pixels that nothing is said of have confidence 0."""
        found = {}
        for name, each in self.by_task.items():
            label = each.find(id, name, size)
            if label is not None and label.weight is not None:
                found[name] = Prediction(self.tasks[name], label.value.numpy(), label.weight[0].numpy())
        return found

    def source(self, id: str, task: str) -> str:
        """Whose label it is: the folders that have pixels of it, the one with most first, or ``network``."""
        return self.sources.get((id, task), "network")


def _by_id(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(str(row[0]), []).append(row)
    return found


def parse_teachers(words: Sequence[str]) -> dict[str, list[str | Path]]:
    """Folders by task, of the command line: ``depth=FOLDER``. Raises `ConfigError`.

    Examples:
        >>> parse_teachers(["depth=there", "depth=elsewhere"])
        {'depth': ['there', 'elsewhere']}
    """
    found: dict[str, list[str | Path]] = {}
    for word in words:
        name, equals, folder = word.partition("=")
        if not (name and equals and folder):
            raise ConfigError(f"--teacher must be a task and a folder, such as depth=FOLDER, found '{word}'")
        found.setdefault(name, []).append(folder)
    return found
