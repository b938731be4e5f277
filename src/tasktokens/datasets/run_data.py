"""The data of a run that has begun: the images and labels that it started with, whatever has happened to the folder."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

from tasktokens.config import Config
from tasktokens.data.visibility import HIDDEN, VISIBLE, VisibleLabels
from tasktokens.datasets.automatic import settled
from tasktokens.datasets.discovered_folders import DiscoveredFolders
from tasktokens.datasets.index import DatasetIndex
from tasktokens.datasets.open import Data, choose_data, choose_tasks, open_index
from tasktokens.errors import DataError

LABELS, HELD_LABELS = "labels.csv", "labels-holdout.csv"
"""Files of a run: which labels of which training and held-out image it sees."""


def open_run_data(run: Path, config: Config) -> Data:
    """Open the data of a run with the labels that it began with.

    Images and labels that were added since stay unseen; nothing is drawn again.

    Args:
        run: its folder.
        config: its settings; another ``data.root`` is where the data lies now.

    Raises:
        DataError: an image or label that the run has seen is gone, or an image has left the training split; the first
            is named. ConfigError: the data has no task of the run's.
    """
    index = open_index(config)
    path, held_path = run / LABELS, run / HELD_LABELS
    seen, names = read_visible(path)
    chosen = choose_tasks(index, config.tasks)
    for name in names:
        if name not in chosen:
            raise DataError(f"task '{name}', which {run} learned, is no longer in {index.root}; put it back")
    tasks = {name: chosen[name] for name in names}
    train = _still_there(path, seen, index)
    if held_path.is_file():
        held = _still_there(held_path, read_visible(held_path)[0], index)
        return Data(index, tasks, train, tuple(held), held)
    if config.data.holdout == 0:
        return Data(index, tasks, train, ())
    # A run of an earlier version did not write down which images it held out: they are drawn again from the same ones.
    drawn = choose_data(settled(config, index), index)
    if list(drawn.train) != list(train):
        raise DataError(
            f"{path} lists {len(train)} training images, and {index.root} has {len(drawn.train)} others or more now; "
            f"the run does not say which images it held out: put the folder back as it was, or start the run anew"
        )
    return Data(index, tasks, train, drawn.holdout, drawn.held)


def read_visible(path: Path) -> tuple[VisibleLabels, list[str]]:
    """The labels that such a file of a run lists, in its order, and its tasks. Raises `DataError` for a damaged one."""
    cells, names = _cells(path)
    visible = {id: tuple(task for task, cell in row.items() if cell in VISIBLE) for id, row in cells.items()}
    return visible, names


def learned_discovered(run: Path, found: DiscoveredFolders) -> DiscoveredFolders:
    """Of the data set's own discovered labels those that a run began with.

    Raises `DataError` where one is no longer a discovered label: it was accepted, corrected, rejected or removed.
    """
    path = run / LABELS
    began = [(id, task) for id, row in _cells(path)[0].items() for task, cell in row.items() if cell == "discovered"]
    gone = [pair for pair in began if not found.has(*pair)]
    if gone:
        id, task = gone[0]
        more = f" ({len(gone)} such)" if len(gone) > 1 else ""
        raise DataError(
            f"the label of task '{task}' for '{id}' is no longer a discovered one{more} in {found.index.root}, and the "
            f"run has learned it as such ({path}): start the run anew"
        )
    return found.only(began)


def label_words(data: Data) -> dict[tuple[str, str], str]:
    """What `LABELS` says of labels that are not simply given: accepted, corrected, or learned as discovered ones."""
    words: dict[tuple[str, str], str] = {
        (id, name): source
        for id, seen in data.train.items()
        for name in seen
        if (source := data.collection.source(name, id)) != "given"
    }
    found = data.discovered
    pairs = [] if found is None or found.in_place_of_teacher else [*found.pairs()]
    return words | dict.fromkeys(pairs, "discovered")


def _cells(path: Path) -> tuple[dict[str, dict[str, str]], list[str]]:
    """The cells of a run's table by id and task, and the tasks."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        flags = {id: dict(zip(header[1:], cells, strict=True)) for id, *cells in rows}
        if header[0] != "id" or any(c not in (*VISIBLE, *HIDDEN) for row in flags.values() for c in row.values()):
            raise ValueError("it must have the columns id and tasks, with 0 or 1 for each task")
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"cannot read {path}, which says what labels the run sees ({error})") from error
    return flags, header[1:]


def _still_there(path: Path, visible: VisibleLabels, index: DatasetIndex) -> VisibleLabels:
    ids = set(index.split("train"))
    gone = [f"image '{id}'" for id in visible if id not in index.images]
    moved = [f"'{id}'" for id in visible if id in index.images and id not in ids]
    labels = [f"the label of task '{name}' for '{id}'" for id, names in visible.items() if id in ids
              for name in names if id not in index.labels[name]]  # fmt: skip
    for found, what in ((gone, "is gone"), (labels, "is gone"), (moved, "is no longer a training image")):
        if found:
            more = f" ({len(found)} such)" if len(found) > 1 else ""
            raise DataError(
                f"{found[0]} {what}{more} in {index.root}, and the run has seen it ({path}): put it back, or start "
                f"the run anew"
            )
    return visible


def described(config: Config, data: Data) -> list[str]:
    """Per task how many labels a run sees, and what hides the others; then what was set aside."""
    ids, lines = (*data.train, *data.holdout), []
    for name in data.tasks:
        exist = sum(id in data.collection.labels[name] for id in ids)
        seen = sum(name in names for names in data.train.values())
        aside = sum(id in data.collection.labels[name] for id in data.holdout)
        hidden = exist - seen - aside
        reasons = [f"{hidden} hidden by {_rule(config, data)}"] if hidden else []
        reasons += [f"{aside} set aside by data.holdout={config.data.holdout:g}"] if aside else []
        lines.append(f"labels of {name}: {seen} of {exist} seen" + (f" ({', '.join(reasons)})" if reasons else ""))
    lines += _of_review(data)
    if data.holdout:
        lines.append(f"{len(data.holdout)} of {len(ids)} training images are set aside, none of them is trained on")
    measured = f"on {config.run.evaluate}" if config.run.evaluate else "on nothing (run.evaluate=none)"
    return [*lines, f"the result is measured {measured}"]


def _of_review(data: Data) -> list[str]:
    """How many of the labels a person has decided of, and how many count by their confidence alone."""
    words = Counter((name, word) for (_, name), word in label_words(data).items())
    lines = []
    for name in data.tasks:
        found = {word: words[name, word] for word in ("accepted", "corrected", "discovered") if words[name, word]}
        if found:
            by_confidence = " (weighted by confidence)" if "discovered" in found else ""
            lines.append(f"labels of {name}: {', '.join(f'{n} {word}' for word, n in found.items())}{by_confidence}")
    return lines


def _rule(config: Config, data: Data) -> str:
    published = config.data.label_seed is None and config.data.labels in data.collection.published
    return f"data.labels={config.data.labels}" + (" (the published split)" if published else "")
