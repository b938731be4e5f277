"""The page of a comparison: table, metric against cost, metric against the share of labels, pictures side by side."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from tasktokens.data.dataset import load_sample
from tasktokens.datasets.open import all_visible
from tasktokens.inference.predictor import Predictor
from tasktokens.reporting.comparison.measure import data_of
from tasktokens.reporting.comparison.runs import Cell, Run, Work
from tasktokens.reporting.comparison.shares import share_of
from tasktokens.reporting.comparison.suite import Suite
from tasktokens.reporting.comparison.tables import Comparison, Line, cells, header
from tasktokens.reporting.provenance import describe
from tasktokens.tasks import Task
from tasktokens.utils.atomic import write_atomically
from tasktokens.utils.pictures import COLOURS, Picture, Strip, draw_strips, hidden, png, svg

IMAGES = 3
"""Test images that are shown."""


def write_page(work: Work, comparison: Comparison, tasks: Mapping[str, Task], higher: Mapping[str, bool]) -> Path:
    """Write ``report.html``, one file that needs no network."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("tasktokens", "assets"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    suite, found = work.suite, comparison.lines
    names = header(comparison.columns, found)
    head = describe("", suite.seeds)
    page = environment.get_template("compare.html.j2").render(
        title=f"Comparison: {suite.name}", notes=_notes(work), names=names, reference=suite.reference,
        against=suite.against, table=_marked(found, names, higher),
        arrows={name: " ↑" if up else " ↓" for name, up in higher.items()} | {"delta_mtl": " ↑"},
        equal_shares=[f"{each.sentence()}." for each in comparison.equal_shares], mean_against=_mean_against(suite),
        figures=_figures(found, comparison.columns, higher), pictures=_pictures(work, tasks),
        commit=head["commit"], machine=head["machine"], written=f"{datetime.now():%Y-%m-%d %H:%M}",
    )  # fmt: skip
    return write_atomically(work.out / "report.html", page.encode())


def _mean_against(suite: Suite) -> str:
    """What the reference of Δ_MTL was trained on."""
    data = "the same data" if suite.reference_data is None else suite.reference_data
    labels = "labels" if suite.reference_labels is None else f"labels: {suite.reference_labels}"
    return f"{data} and {labels}"


def _notes(work: Work) -> list[str]:
    suite = work.suite
    cost = f"networks take {suite.steps} optimiser steps, or the multiple of it that the suite gives a method"
    if suite.cost == "total":
        cost = f"each method takes as much time as {suite.cost_of}, whose stages are multiples of {suite.steps} steps"
    return [
        f"All methods see the same images, labels, batches and augmentation; {cost}. "
        f"Measured on the split {suite.split}, at the last checkpoint."
    ]


def _marked(found: Sequence[Line], names: Sequence[str], higher: Mapping[str, bool]) -> list[list[tuple[str, bool]]]:
    """Cells with whether they are the best of their column, among lines of the same data and labels."""
    rows = []
    for line in found:
        peers = [other for other in found if (other.data, other.labels) == (line.data, line.labels)]
        row = []
        for name, text in zip(names, cells(line, names), strict=True):
            up = {**higher, "delta_mtl": True}.get(name)
            best = False
            if up is not None and len(peers) > 1 and math.isfinite(line.values[name][0]):
                means = [mean for p in peers if math.isfinite(mean := p.values[name][0])]
                best = line.values[name][0] == (max if up else min)(means)
            row.append((text, best))
        rows.append(row)
    return rows


def _figures(
    found: Sequence[Line], columns: Sequence[str], higher: Mapping[str, bool]
) -> list[tuple[str, list[tuple[str, Markup]]]]:
    """Charts by heading."""
    figures = []
    names = [*columns, *(["delta_mtl"] if any(math.isfinite(line.values["delta_mtl"][0]) for line in found) else [])]
    places = dict.fromkeys((line.data, line.labels) for line in found)
    for data, labels in places:
        of_place = [line for line in found if (line.data, line.labels) == (data, labels)]
        charts = [(f"{name} against minutes", _scatter(f"{data}{labels}{name}", of_place, name)) for name in names]
        heading = " · ".join(part for part in ("Quality against cost", data, f"labels: {labels}") if part)
        figures.append((heading, charts))
    shares = [line for line in found if share_of(line.labels) is not None]
    for data in dict.fromkeys(line.data for line in shares):
        of_data = [line for line in shares if line.data == data]
        if len({line.labels for line in of_data}) > 1:
            charts = [(f"{name} against labels", _curves(f"{data}{name}", of_data, name)) for name in names]
            figures.append((" · ".join(part for part in ("Quality against labels", data) if part), charts))
    return figures


def _scatter(salt: str, found: Sequence[Line], name: str) -> Markup:
    def draw(axes: Any) -> None:
        for number, line in enumerate(found):
            (x, _), (y, spread) = line.values["cpu_minutes"], line.values[name]
            colour = COLOURS[number % len(COLOURS)]
            axes.errorbar([x], [y], yerr=[spread if math.isfinite(spread) else 0], fmt="o", color=colour, markersize=5)
            axes.annotate(line.method, (x, y), xytext=(5, 4), textcoords="offset points", color=colour, fontsize=8.5)
        axes.set_xlabel("minutes")
        axes.margins(x=0.25, y=0.15)

    return Markup(svg(salt, draw, (4.0, 2.8)))


def _curves(salt: str, found: Sequence[Line], name: str) -> Markup:
    def draw(axes: Any) -> None:
        for number, method in enumerate(dict.fromkeys(line.method for line in found)):
            points = sorted((100 * (share_of(line.labels) or 0), *line.values[name]) for line in found
                            if line.method == method)  # fmt: skip
            x, y, spread = (list(values) for values in zip(*points, strict=True))
            spread = [s if math.isfinite(s) else 0 for s in spread]
            axes.errorbar(x, y, yerr=spread, fmt="o-", color=COLOURS[number % len(COLOURS)], markersize=4, label=method)
        axes.set_xlabel("% of the labels")
        axes.legend(fontsize=8, frameon=False)

    return Markup(svg(salt, draw, (4.0, 2.8)))


def _pictures(work: Work, tasks: Mapping[str, Task]) -> str | None:
    """Some test images with their labels and what each method's first seed predicts, as a data address."""
    suite = work.suite
    seed, data, labels = suite.seeds[0], next(iter(suite.data)), suite.labels[0]
    runs = [(m, Run(work, Cell(m, data, labels, seed))) for m in suite.methods if not suite.method(m).each_task]
    runs = [(method, run) for method, run in runs if run.done]
    if not runs:
        return None
    opened = data_of(runs[0][1], runs[0][1].config(), suite.split)
    ids = opened.holdout if suite.split == "holdout" else opened.collection.split(suite.split)
    chosen = tuple(ids[:: max(1, len(ids) // IMAGES)][:IMAGES])
    visible = all_visible(opened.collection, chosen, opened.tasks)
    predictors = {method: Predictor(run.folder) for method, run in runs}
    strips = []
    for id in chosen:
        sample = load_sample(opened.collection, id, visible[id])
        image = sample.image.permute(1, 2, 0).numpy()
        predicted = {method: predictor(image) for method, predictor in predictors.items()}
        for name, task in opened.tasks.items():
            label = sample.labels.get(name)
            given = hidden(image.shape)
            if label is not None:
                given = task.colourise(label.value.numpy(), label.valid[0].numpy())
            shown = [
                Picture(method, _small(task.colourise(found[name].value_CHW))) for method, found in predicted.items()
            ]
            strips.append(
                Strip(f"{id} {name}", (Picture("image", _small(image)), Picture("label", _small(given)), *shown))
            )
    return "data:image/png;base64," + base64.b64encode(png(draw_strips(strips, scale=1))).decode("ascii")


def _small(pixels_HW3: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """At most 192 pixels wide, by leaving pixels out, so that class colours keep."""
    step = max(1, -(-pixels_HW3.shape[1] // 192))
    return pixels_HW3[::step, ::step]
