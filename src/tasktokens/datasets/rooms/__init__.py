"""Rooms: an embedded data set of rendered indoor scenes with exact labels of six tasks, of any size, from a seed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tasktokens.config.base import Seed, Side
from tasktokens.datasets.base import DATASETS, DatasetSource
from tasktokens.datasets.rooms.names import HUMAN_PARTS, RENDER_VERSION, ROOMS_CLASSES, ROOMS_FOCAL

if TYPE_CHECKING:
    from tasktokens.datasets.index import DatasetIndex

__all__ = ["HUMAN_PARTS", "RENDER_VERSION", "ROOMS_CLASSES", "ROOMS_FOCAL", "RoomsSource"]


@DATASETS.register("rooms")
class RoomsSource(DatasetSource):
    """The embedded synthetic rooms, rendered on first use."""

    kind: Literal["rooms"] = "rooms"
    train: int = Field(400, ge=1, le=1_000_000, description="images of the training split")
    val: int = Field(40, ge=1, le=1_000_000, description="images of the validation split")
    test: int = Field(120, ge=1, le=1_000_000, description="images of the test split")
    render_seed: Seed = Field(0, description="decides the scenes")
    render_size: tuple[Side, Side] | None = Field(None, description="height and width; default: data.size")
    generated: ClassVar[bool] = True

    def open_index(self, size: tuple[int, int], progress: bool = False) -> DatasetIndex:
        """Render the images that the cache lacks at ``size``, then list them."""
        from tasktokens.datasets.folder import open_folder
        from tasktokens.datasets.rooms.dataset import rooms_folder

        height, width = self.render_size or size
        return open_folder(rooms_folder(self.counts(), height, width, self.render_seed, progress=progress))

    def write(self, out: Path, size: tuple[int, int], progress: bool = True) -> Path:
        """Render the data set into a new folder of the own-folder layout, and return it."""
        from tasktokens.datasets.rooms.dataset import write_rooms

        height, width = self.render_size or size
        return write_rooms(out, self.counts(), height, width, self.render_seed, progress=progress)

    def counts(self) -> dict[str, int]:
        """Number of images by split."""
        return {"train": self.train, "val": self.val, "test": self.test}
