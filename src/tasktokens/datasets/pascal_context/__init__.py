"""PASCAL-Context: settings, and how to get it; the reader is imported when it is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from tasktokens.datasets.base import DATASETS, FolderOfFiles

if TYPE_CHECKING:
    from tasktokens.datasets.index import DatasetIndex


@DATASETS.register("pascal_context")
class PascalContextSource(FolderOfFiles):
    """PASCAL-Context with five tasks in the layout of ATRC."""

    kind: Literal["pascal_context"] = "pascal_context"
    how_to_get: ClassVar[str] = (
        "no registration; PASCALContext.tar.gz of ATRC (size not stated), named in "
        "https://github.com/prismformore/Multi-Task-Transformer/tree/main/InvPT, unpacked: the folder with JPEGImages"
    )

    def open_index(self, size: tuple[int, int], progress: bool = False) -> DatasetIndex:
        """List the files below ``root``, of a layout that is recognised by its files."""
        from tasktokens.datasets.pascal_context.dataset import open_pascal_context

        return open_pascal_context(self.folder())
