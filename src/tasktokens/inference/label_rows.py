"""The files of a prediction that comes in bands of rows: the same as of one in memory, written as the bands come."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from tasktokens.errors import DataError
from tasktokens.inference.label_pictures import Kept
from tasktokens.inference.results import Prediction
from tasktokens.tasks import Task
from tasktokens.tasks.base import Array
from tasktokens.utils.atomic import atomically
from tasktokens.utils.file_kinds import CONFIDENCE
from tasktokens.utils.rows import NpyRows, PngRows, RowWriter


class LabelRows:
    """Label and confidence of one task, ``{task}/{id}.png`` or ``.npy`` and ``confidence/{task}/{id}.png``.

    Args:
        held: files become what they are called when it is closed without an error, and go away otherwise.
        drawn: keeps what a picture shows of them.
    """

    def __init__(
        self, folder: Path, task: Task, id: str, size: tuple[int, int], held: ExitStack, drawn: Kept | None = None
    ) -> None:
        self.folder, self.task, self.id, self.size, self.held, self.drawn = folder, task, id, size, held, drawn
        self.top = 0
        self.confidence = self._open(PngRows, folder / CONFIDENCE / task.name / f"{id}.png", size, np.uint8)
        self.label: RowWriter | None = None
        self.values: Array | None = None

    def add(self, band: Prediction) -> None:
        """The next rows."""
        self.confidence.add(np.rint(band.confidence * 255).astype(np.uint8))
        if self.drawn is not None:
            self.drawn.add(self.top, band.value_CHW, None, band.confidence)
        if self._needs_all():
            self._keep(band.value_CHW)
        else:
            self._encode(band.value_CHW)
        self.top += len(band.confidence)

    def close(self) -> None:
        """All rows were added."""
        self.confidence.close()
        if self.label is not None:
            self.label.close()
        if self.values is not None:
            self.task.write(self.folder / self.task.name / f"{self.id}.png", self.values)

    def _needs_all(self) -> bool:
        """Of a kind that writes files itself, or whose numbers may not fit the integers of its files."""
        return type(self.task).write is not Task.write or self.task.storable() != self.task

    def _encode(self, value_CnW: Array) -> None:
        rows = self.task.encode(value_CnW)
        if self.label is None:
            floats = rows.dtype == np.float32
            path = self.folder / self.task.name / f"{self.id}{'.npy' if floats else '.png'}"
            self.label = self._open(NpyRows if floats else PngRows, path, (self.size[0], *rows.shape[1:]), rows.dtype)
        if rows.dtype != self.label.dtype:
            raise DataError(
                f"the label file of task '{self.task.name}' needs {rows.dtype} for some rows and {self.label.dtype} "
                f"for others; predict without tiles"
            )
        self.label.add(rows)

    def _keep(self, value_CnW: Array) -> None:
        """The values, in a file that is mapped into memory and has no name."""
        if self.values is None:
            path = self.folder / self.task.name / f".values.{os.getpid()}.{self.top}.partial.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            self.held.callback(path.unlink, missing_ok=True)
            shape = (len(value_CnW), *self.size)
            self.values = np.lib.format.open_memmap(path, "w+", value_CnW.dtype, shape)
        self.values[:, self.top : self.top + value_CnW.shape[1]] = value_CnW

    def _open(self, kind: type[RowWriter], path: Path, shape: tuple[int, ...], dtype: object) -> RowWriter:
        writer = kind(self.held.enter_context(atomically(path)), shape, np.dtype(dtype))  # type: ignore[call-overload]
        self.held.callback(writer.abandon)
        return writer
