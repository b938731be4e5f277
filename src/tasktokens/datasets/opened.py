"""A data set as users hold it: its tasks and splits, and data sets of torch for a loop of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasktokens.config import Augmentation, parse_config
from tasktokens.data.dataset import PartialDataset
from tasktokens.datasets.index import DatasetIndex
from tasktokens.datasets.open import all_visible, choose_tasks, open_data, open_index
from tasktokens.errors import ConfigError
from tasktokens.tasks import Task


def open_dataset(kind: str = "folder", root: str | Path | None = None, **settings: Any) -> OpenedDataset:
    """Open a data set without a configuration file; nothing is decoded yet.

    Args:
        kind: ``folder`` for your own, or what ``tasktokens list`` shows under data, such as ``nyud`` or ``rooms``.
        root: the folder in which it lies.
        settings: others of that kind, such as ``classes=40``; see docs/research/datasets.md.

    Raises:
        ConfigError: no such kind or setting. DataError: the folder is missing, or not of that kind.

    Examples:
        >>> import tasktokens
        >>> data = tasktokens.open_dataset("folder", root="mydata")
        >>> data
        OpenedDataset(mydata, tasks: semseg (classes), depth (depth); images: 6 train, 2 test)
        >>> train = data.train_dataset(size=(32, 48))
        >>> train[0].image.shape, sorted(train[0].labels)
        (torch.Size([3, 32, 48]), ['depth', 'semseg'])
    """
    values = {"kind": kind, **settings} | ({} if root is None else {"root": str(root)})
    return OpenedDataset(values)


class OpenedDataset:
    """The images, tasks and label files of a data set; see `open_dataset`.

    Attributes:
        index: every image and label file by id.
        tasks: the tasks by name.

    Examples:
        >>> import tasktokens
        >>> data = tasktokens.open_dataset("folder", root="mydata")
        >>> list(data.tasks), len(data.splits["test"])
        (['semseg', 'depth'], 2)
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        config = parse_config({"data": dict(values)}, "open_dataset")
        self._values = {**values, "size": config.data.size}
        self.index: DatasetIndex = open_index(config)
        self.tasks: dict[str, Task] = dict(self.index.tasks)

    @property
    def splits(self) -> dict[str, tuple[str, ...]]:
        """The ids of the images by split; an id is a path without ending, such as ``kitchen/0001``."""
        return dict(self.index.splits)

    def train_dataset(
        self,
        size: tuple[int, int] = (96, 128),
        labels: str = "full",
        augmentation: Augmentation | Mapping[str, Any] | None = None,
        tasks: list[str] | None = None,
        label_seed: int | None = None,
        seed: int = 0,
    ) -> PartialDataset:
        """The training images with the labels that may be seen, as a data set of torch.

        Args:
            size: (height, width) of every sample.
            labels: ``full``: all that there are; ``one``, ``random``, a fraction such as ``0.3``, or a CSV file: hide
                the others, whose files are then never opened.
            augmentation: None: samples are stretched to ``size`` and nothing is random. `Augmentation()`, or a
                dictionary of its settings: random zoom, crop and mirror, which are drawn anew for each epoch
                (`PartialDataset.set_epoch`).
            tasks: names of those to learn; default: all.
            label_seed: of the labels hidden at random; default: 0, or the data set's published split where it has one.
            seed: of the augmentation.

        Returns:
            A data set whose ``tasks`` can express every zoomed label: build the network from them.

        Raises:
            ConfigError, DataError: a task, setting or rule that is not there, or a task left without any label.
        """
        changes = augmentation.model_dump() if isinstance(augmentation, Augmentation) else dict(augmentation or {})
        data_values = {
            **self._values, "size": size, "labels": labels, "label_seed": label_seed, "augmentation": changes,
        }  # fmt: skip
        config = parse_config({"data": data_values, "tasks": self._chosen(tasks)}, "train_dataset")
        data = open_data(config)
        used = None if augmentation is None else config.data.augmentation
        learned = {name: task if used is None else task.widened(used.widest) for name, task in data.tasks.items()}
        return PartialDataset(data.collection, data.train, learned, config.data.size, used, seed)

    def eval_dataset(
        self,
        split: str = "test",
        size: tuple[int, int] = (96, 128),
        tasks: list[str] | None = None,
        full: bool = False,
    ) -> PartialDataset:
        """The images of a split with all their labels, stretched to ``size``; nothing is random.

        Args:
            split: one of `splits`.
            size: (height, width) that the network sees.
            tasks: names of those to measure; default: all.
            full: images keep their shape, near the area of ``size``, and labels their own size.

        Raises:
            ConfigError, DataError: no such task or split.
        """
        config = parse_config({"data": {**self._values, "size": size}, "tasks": self._chosen(tasks)}, "eval_dataset")
        chosen = choose_tasks(self.index, config.tasks)
        visible = all_visible(self.index, self.index.split(split), chosen)
        return PartialDataset(self.index, visible, chosen, config.data.size, full=full)

    def _chosen(self, tasks: list[str] | None) -> dict[str, dict[str, Any]] | None:
        if isinstance(tasks, str):
            raise ConfigError(f"tasks must be a list of names, found '{tasks}'; give ['{tasks}']")
        return None if tasks is None else {name: {} for name in tasks}

    def __repr__(self) -> str:
        tasks = ", ".join(f"{name} ({task.kind})" for name, task in self.tasks.items())
        images = ", ".join(f"{len(ids)} {name}" for name, ids in self.index.splits.items())
        return f"OpenedDataset({self.index.root}, tasks: {tasks}; images: {images})"
