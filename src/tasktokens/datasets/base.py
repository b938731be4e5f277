"""What a data set of any kind is to the rest of the package: settings that can open it."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tasktokens.config import components
from tasktokens.config.base import Settings
from tasktokens.errors import ConfigError
from tasktokens.hub.download import local_data
from tasktokens.registry import Registry

if TYPE_CHECKING:
    from tasktokens.datasets.index import DatasetIndex


class DatasetSource(Settings):
    """Where the images and labels of one kind of data set come from.

    A subclass has a ``kind``, a ``Literal`` whose default is the name that it is registered by, its own settings, and
    `open_index`. Its docstring begins with one line for ``tasktokens list``.

    Attributes:
        how_to_get: how a user gets the files, for messages; empty where nothing has to be got.
        generated: whether this package makes the files, so that they need no check before a run.
    """

    kind: str
    how_to_get: ClassVar[str] = ""
    generated: ClassVar[bool] = False

    @abstractmethod
    def open_index(self, size: tuple[int, int], progress: bool = False) -> DatasetIndex:
        """List the data set; nothing is decoded yet.

        Args:
            size: (height, width) of the run, for sources that render their images.
            progress: show it while rendering.

        Raises:
            DataError, ConfigError: what is missing, and what to do.
        """


class FolderOfFiles(DatasetSource):
    """A data set that lies in a folder."""

    root: Path | None = Field(None, description="the folder that holds it; required")

    def folder(self) -> Path:
        """The folder; of ``hf://datasets/user/name`` that in the cache. Raises `ConfigError` where none is set."""
        if self.root is None:
            raise ConfigError(
                "data.root is not set; give the data folder, such as data.root=path/to/folder or --root DIR"
            )
        return local_data(self.root)


DATASETS: Registry[type[DatasetSource]] = components.DATASETS
"""The settings class of each kind of data set, which opens it."""
