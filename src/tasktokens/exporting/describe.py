"""The metadata of a model that is exported: each task in plain values, with its decoder."""

from __future__ import annotations

from importlib.metadata import version

from tasktokens.exported.metadata import ExportInfo
from tasktokens.exported.task import ExportedTask
from tasktokens.exporting.graph import decoder_onnx
from tasktokens.models.files import ModelInfo
from tasktokens.tasks import Task


def describe(info: ModelInfo, precision: str) -> ExportInfo:
    """What the file will say of itself. Raises `ConfigError` where a task's decoding is not in ONNX."""
    tasks = {name: exported_task(task) for name, task in info.tasks.items()}
    return ExportInfo(version("tasktokens"), precision, info.size, tasks)


def exported_task(task: Task) -> ExportedTask:
    """A task without torch."""
    return ExportedTask(
        name=task.name, kind=task.kind, channels=task.label_channels, unit=task.unit, classes=task.class_names(),
        tokens=task.token_names(), threshold=task.threshold, continuous=task.continuous, unit_length=task.unit_length,
        drawn=task.maps(), decoder=decoder_onnx(task), spec=task.spec(),
    )  # fmt: skip
