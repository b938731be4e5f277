"""Formats of annotation tools: one file per format, which both reads and writes it.

`tasktokens.review` exchanges labels with annotation tools in them; `tasktokens.datasets.annotated` opens data sets that
lie in them.
"""

from __future__ import annotations

from tasktokens.datasets.formats.archive import Archive, open_archive
from tasktokens.datasets.formats.base import (
    FORMATS,
    Annotations,
    Entry,
    ExportItem,
    Format,
    Vocabulary,
    usable_format,
)

__all__ = [
    "FORMATS",
    "Annotations",
    "Archive",
    "Entry",
    "ExportItem",
    "Format",
    "Vocabulary",
    "open_archive",
    "usable_format",
]
