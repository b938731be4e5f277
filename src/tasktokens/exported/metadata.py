"""What an exported model says of itself: the JSON in the file's metadata, written by `tasktokens.exporting`.

| key | holds |
|---|---|
| `format` | the version of this layout, `FORMAT`; later ones are refused |
| `version` | the version of TaskTokens that wrote the file |
| `precision` | fp32, fp16 or int8 |
| `size` | the (height, width) of the training images: see `tasktokens.utils.resizing.working_size` |
| `multiple` | what height and width must be a multiple of, other than those of `size` |
| `tasks` | of each task: what `ExportedTask` holds |
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasktokens.errors import CheckpointError
from tasktokens.exported.task import ExportedTask
from tasktokens.utils import strict_json
from tasktokens.utils.label_maps import maps_from_plain

FORMAT = 1
KEY = "tasktokens"
"""Name of the entry in the metadata of an ONNX file, and in the runtime information of an OpenVINO model."""


@dataclass(frozen=True)
class ExportInfo:
    """The metadata of an exported model; see the table above."""

    version: str
    precision: str
    size: tuple[int, int]
    tasks: Mapping[str, ExportedTask]
    multiple: int = 32

    def text(self) -> str:
        """As JSON."""
        tasks = {name: _plain(task) for name, task in self.tasks.items()}
        values = {"format": FORMAT, "version": self.version, "precision": self.precision, "size": list(self.size)}
        return strict_json.dumps({**values, "multiple": self.multiple, "tasks": tasks})


def parse_info(text: str | None, path: Path) -> ExportInfo:
    """The metadata of a file. Raises `CheckpointError` for a file that is not ours, of a later format, or damaged."""
    if not text:
        raise CheckpointError(
            f"{path} was not written by 'tasktokens export' (it has no metadata '{KEY}'); export a run to get one"
        )
    try:
        values = json.loads(text)
        if values["format"] != FORMAT:
            raise CheckpointError(
                f"{path} has format {values['format']} of exported models, written by TaskTokens "
                f"{values.get('version', 'of another version')}; this version reads format {FORMAT}: install that one"
            )
        height, width = (int(side) for side in values["size"])
        tasks = {str(name): _task(str(name), each) for name, each in values["tasks"].items()}
        if not tasks or min(height, width) < 1:
            raise ValueError(f"it has {len(tasks)} tasks and the size {height}x{width}")
        return ExportInfo(
            str(values["version"]), str(values["precision"]), (height, width), tasks, int(values["multiple"])
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"the metadata of {path} is damaged ({type(error).__name__} {error}); export it again"
        ) from error


def _plain(task: ExportedTask) -> dict[str, Any]:
    maps = None if task.drawn is None else task.drawn.plain()
    return {
        "kind": task.kind, "channels": task.channels, "unit": task.unit, "classes": task.classes and list(task.classes),
        "tokens": list(task.tokens), "threshold": task.threshold, "continuous": task.continuous,
        "unit_length": task.unit_length, "maps": maps, "decoder": base64.b64encode(task.decoder).decode(),
        "spec": dict(task.spec),
    }  # fmt: skip


def _task(name: str, values: Mapping[str, Any]) -> ExportedTask:
    return ExportedTask(
        name=name, kind=str(values["kind"]), channels=int(values["channels"]), unit=str(values["unit"]),
        classes=None if values["classes"] is None else tuple(map(str, values["classes"])),
        tokens=tuple(map(str, values["tokens"])), threshold=float(values["threshold"]),
        continuous=bool(values["continuous"]), unit_length=bool(values["unit_length"]),
        drawn=None if values["maps"] is None else maps_from_plain(values["maps"]),
        decoder=base64.b64decode(values["decoder"]), spec=dict(values["spec"]),
    )  # fmt: skip
