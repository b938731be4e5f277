"""NYU Depth v2: settings, and how to get it; the readers are imported when it is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tasktokens.datasets.base import DATASETS, FolderOfFiles

if TYPE_CHECKING:
    from tasktokens.datasets.index import DatasetIndex


@DATASETS.register("nyud")
class NyudSource(FolderOfFiles):
    """NYU Depth v2 in any of its usual layouts, recognised by its files."""

    kind: Literal["nyud"] = "nyud"
    classes: Literal[13, 40] = Field(13, description="classes of semantic segmentation")
    how_to_get: ClassVar[str] = (
        "no registration; nyu_depth_v2_labeled.mat (2.8 GB) from https://cs.nyu.edu/~fergus/datasets/"
        "nyu_depth_v2.html, splits.mat from https://cs.nyu.edu/~silberman/projects/indoor_scene_seg_sup.html and "
        "classMapping40.mat from https://github.com/ankurhanda/nyuv2-meta-data into one folder; or MTAN's nyuv2.zip "
        "(about 8.5 GB, linked in https://github.com/lorenmt/mtan), unpacked"
    )

    def open_index(self, size: tuple[int, int], progress: bool = False) -> DatasetIndex:
        """List the files below ``root``, of a layout that is recognised by its files."""
        from tasktokens.datasets.nyud.dataset import open_nyud

        return open_nyud(self.folder(), self.classes)
