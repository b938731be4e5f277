"""What describes a folder of labels that were written: ``dataset.yaml`` and ``classes.csv``."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasktokens.utils.atomic import atomically
from tasktokens.utils.safe_io import dump_yaml

if TYPE_CHECKING:  # exported models write folders where there is no torch
    from tasktokens.exported.task import ExportedTask
    from tasktokens.tasks import Task

FORMATS = """\
# One label file per image and task, {task}/{id}.png or .npy; confidence/{task}/{id}.png: 0..255 for 0..1.
# classes: ids (classes.csv), `void` among them. depth: 16 bit, (v + offset) * scale, 0 void; npy: metres.
# normals: 8-bit RGB, n = 2 v / 255 - 1, x right, y down, z forward (or `frame`), (128, 128, 128) void.
# Probabilities: v / 255, alpha 0 void; npy: as they are. Numbers: npy. NaN is void.
"""
"""What a filled folder says about its files, at the top of its ``dataset.yaml``."""


def write_description(out: Path, values: Mapping[str, Any], tasks: Mapping[str, Task | ExportedTask]) -> None:
    """``classes.csv``, where a task has classes, and ``dataset.yaml``, which says how the label files are read."""
    classes = [
        [name, stored, title, *colour]
        for name, task in tasks.items()
        for stored, title, colour in task.stored_classes()
    ]
    if classes:
        with atomically(out / "classes.csv") as new, new.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["task", "stored", "class", "red", "green", "blue"])
            writer.writerows(classes)
    with atomically(out / "dataset.yaml") as new:
        new.write_text(FORMATS + dump_yaml(dict(values), allow_unicode=True), encoding="utf-8", newline="\n")
