"""Which labels a finished run's data has now: given ones, ones added since, and hidden ones, which are never opened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tasktokens.config import Config
from tasktokens.data.visibility import AVAILABLE, VisibleLabels, load_flags, load_visible
from tasktokens.datasets.index import DatasetIndex
from tasktokens.datasets.open import all_visible, choose_tasks, open_data, open_index
from tasktokens.datasets.run_data import LABELS
from tasktokens.errors import ConfigError, DataError
from tasktokens.hub.download import DESCRIPTION
from tasktokens.inference.evaluate import run_folder
from tasktokens.models.files import model_folder, read_info
from tasktokens.tasks import Task
from tasktokens.tasks.same import require_same_tasks
from tasktokens.utils.file_kinds import is_exported


@dataclass(frozen=True)
class GivenLabels:
    """The data of a finished run.

    Attributes:
        index: the files as they are now.
        tasks: the run's tasks, with its thresholds.
        train: for each training image the tasks whose labels are given, whenever they came.
        others: ids by split, for all other splits and the training images that the run set aside.
        notes: what a user should know of it.
    """

    index: DatasetIndex
    tasks: Mapping[str, Task]
    train: VisibleLabels
    others: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]

    def files(self) -> Iterator[Path]:
        """All files of images and labels."""
        yield from (image.path for image in self.index.images.values())
        yield from (label.path for labels in self.index.labels.values() for label in labels.values())
        yield from (found.label.path for files in self.index.discovered.values() for found in files.values())

    def all_labels(self) -> VisibleLabels:
        """The tasks whose labels are given, of the images of all splits: those of training first."""
        ids = tuple(id for ids in self.others.values() for id in ids if id not in self.train)
        return {**self.train, **all_visible(self.index, ids, self.tasks)}


def given_labels(run: Path, config: Config) -> GivenLabels:
    """Open the data of a run, or of a model folder in it, without opening a label.

    A label that the run's ``data.labels`` hid stays hidden; whatever other label file is there is a given label, also
    one that was added after the training.

    Raises:
        CheckpointError: there is no model. ConfigError: its tasks are not those of the data.
        DataError: a label that the run has seen is no longer there, or the data cannot be opened.
    """
    if is_exported(run):
        raise ConfigError(f"{run} is an exported file, which does not say what was seen; discover with its run")
    index = open_index(config)
    tasks = choose_tasks(index, config.tasks)
    trained = read_info(model_folder(run)).tasks
    added = require_same_tasks(trained, tasks, run, index.root, config.data.augmentation.widest)
    tasks = {name: tasks[name] for name in trained}
    run = run_folder(run)
    ids = index.split("train")
    existing = all_visible(index, ids, tasks)
    notes = [f"task '{name}' is new, and the model does not predict it: left out" for name in added]
    if (run / DESCRIPTION).is_file():  # shared without its run: there is no label of this data that it had hidden
        notes.append(f"{run} is a model without its run: all labels of {index.root} count as given")
        seen = existing
    else:
        seen = load_visible(run / LABELS, ids, {name: index.labels[name] for name in tasks})
    held, hidden = _held_and_hidden(run, config, ids, existing, seen, notes)
    aside = set(held)
    train = {
        id: tuple(task for task in existing[id] if task not in hidden.get(id, ())) for id in ids if id not in aside
    }
    if not train:
        raise DataError(f"{index.root} has no training images")
    later = sum(len(set(labels) - set(seen[id])) for id, labels in train.items())
    if later:
        notes.append(f"{_count(later, 'label was', 'labels were')} added since the training: kept as given")
    return GivenLabels(index, tasks, train, _others(index, tasks, train, held, notes), tuple(notes))


def _held_and_hidden(
    run: Path, config: Config, ids: tuple[str, ...], existing: VisibleLabels, seen: VisibleLabels, notes: list[str]
) -> tuple[tuple[str, ...], dict[str, set[str]]]:
    """The images that a run set aside, and by image the tasks whose labels it hid."""
    if seen is existing:
        return (), {}
    if (run / AVAILABLE).is_file():
        before, trained_on = load_flags(run / AVAILABLE), load_flags(run / LABELS)
        held = tuple(id for id in ids if id in before and id not in trained_on)
        return held, {id: set(before.get(id, ())) - set(seen[id]) for id in ids}
    # A run of an earlier version; where its data was seen in full, nothing was hidden.
    known = config.data.labels == "full"
    hidden = {id: set() if known else set(existing[id]) - set(seen[id]) for id in ids}
    if any(hidden.values()):
        notes.append(
            f"{run} does not say which labels were there as it was trained: labels that were added since cannot be "
            f"told from hidden ones, and are discovered like those"
        )
    return open_data(config).holdout, hidden


def _others(
    index: DatasetIndex, tasks: Mapping[str, Task], train: VisibleLabels, held: tuple[str, ...], notes: list[str]
) -> dict[str, tuple[str, ...]]:
    """The other splits; an image that is also trained on leaves them if a label of it is discovered."""
    splits = {name: ids for name, ids in index.splits.items() if name != "train"}
    if held:
        name = "val" if "val" not in splits else "set_aside"
        splits[name] = held
        notes.append(f"{_count(len(held), 'image', 'images')} that the run set aside: split '{name}'")
    others = {}
    for name, ids in splits.items():
        others[name] = tuple(id for id in ids if len(train.get(id, tasks)) == len(tasks))
        if len(others[name]) < len(ids):
            notes.append(
                f"{_count(len(ids) - len(others[name]), 'image', 'images')} of split '{name}' left out of it: also "
                f"trained on, so that discovered labels would be measured by"
            )
    return {name: ids for name, ids in others.items() if ids}


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
