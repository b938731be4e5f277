"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.table import Table

from tasktokens.hub.download import local_model
from tasktokens.inference.discovery_summary import Discovery
from tasktokens.inference.influence import Influence
from tasktokens.metrics import higher_is_better
from tasktokens.models.files import model_folder, read_info
from tasktokens.utils import console


def print_results(run: Path, results: Mapping[str, Mapping[str, float]]) -> None:
    """Metrics of a run by task, with units and directions."""
    info = read_info(model_folder(local_model(run)))
    table = Table("task", "metric", "value", title=str(run))
    for name, values in results.items():
        metric = info.tasks[name].metric()
        for key, value in values.items():
            unit = metric.units.get(key.split("/")[0], "")
            table.add_row(
                name,
                f"{key} {'↑' if higher_is_better(metric, key) else '↓'}",
                f"{value:.4g} {unit}" if value == value else "-",
            )
    console.table_console().print(table)


def print_discovery(discovery: Discovery) -> None:
    """What was filled in, by task; what should be known of it, and warnings, on standard error."""
    table = Table("task", "images", "filled", "mean confidence", "threshold", title=str(discovery.folder))
    for task in discovery.tasks:
        filled = "-" if task.filled is None else f"{task.filled:.1%}"
        confidence = "-" if task.confidence is None else f"{task.confidence:.2f}"
        table.add_row(task.task, str(task.images), filled, confidence, f"{task.threshold:g}")
    console.table_console().print(table)
    for note in discovery.notes:
        console.say(f"note: {note}")
    for warning in discovery.warnings:
        console.say(f"WARNING: {warning}")


_COLUMNS = 4
"""Tasks that stand side by side in 80 columns."""


def print_influence(influence: Influence) -> None:
    """What each intervention changes, a column per task."""
    if not influence.rows:
        console.say(f"note: a network '{influence.network}' names no parts that can be exchanged; nothing was measured")
        return
    names = list(influence.units)
    changed = {(row["part"], row["intervention"], row["task"]): row["changed"] for row in influence.rows}
    for at in range(0, len(names), _COLUMNS):
        shown = names[at : at + _COLUMNS]
        table = Table("part", "intervention", title=f"mean change over {influence.images} images", width=80)
        for name in shown:
            unit = influence.units[name]
            table.add_column(f"{name} [{unit}]" if unit else name, justify="right")
        for part, what in dict.fromkeys((part, what) for part, what, _ in changed):
            table.add_row(part, what, *(f"{changed[part, what, name]:.3g}" for name in shown))
        console.table_console(80).print(table)


def print_choices() -> None:
    """All components of the registries with one line each, and where the backbones come from."""
    table = Table("setting", "value", "what it is")
    for row in choices():
        table.add_row(*row.values())
    console.table_console().print(table)


def choices() -> list[dict[str, str]]:
    """What `print_choices` shows, as plain values."""
    import timm

    from tasktokens.datasets.base import DATASETS
    from tasktokens.methods import METHODS
    from tasktokens.metrics import METRICS
    from tasktokens.models import DESIGNS, NETWORKS
    from tasktokens.tasks import KINDS

    def first_line(thing: object) -> str:
        return ((thing.__doc__ or "").strip().splitlines() or [""])[0]

    rows: list[dict[str, str]] = []

    def add(setting: str, value: str, about: str) -> None:
        rows.append({"setting": setting, "value": value, "about": about})

    for name, method in METHODS.items():
        add("method.name", name, first_line(method.settings_class))
    for name, data in DATASETS.items():
        add("data.kind", name, first_line(data))
    for name, design in DESIGNS.items():
        add("model.variant", name, f"{design.width} channels, {'light' if design.light else 'full'} convolutions")
    for kind, task in KINDS.items():
        add("task kind", kind, first_line(task))
    for sort, components in (("network", NETWORKS), ("metric", METRICS)):
        for name, component in components.items():
            add(sort, name, first_line(component))
    add("model.backbone", "resnet18, …", f"any of timm's {len(timm.list_models())} models with four feature maps")
    return rows
